"""The formats that a trained network leaves this program in, a module each."""
