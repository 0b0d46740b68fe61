"""The server and the page; nothing here imports JAX."""
