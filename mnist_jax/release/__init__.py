"""What turns a trained network into a verdict."""
