"""Where a server keeps the sequence of accepted changes."""
