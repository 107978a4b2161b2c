"""Applications that run as they are, to read and to copy from."""
