"""Takes a model and batches, gives a checkpoint: loss, optimizer, schedule, and the one visible loop."""
