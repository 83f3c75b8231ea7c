"""Takes a checkpoint, gives an artifact: one file per format."""
