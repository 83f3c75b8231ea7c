"""Takes files and encodings, gives tasks, examples and batches (NumPy only)."""
