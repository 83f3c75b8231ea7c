"""Takes batch tensors, gives hidden states and logits: configuration, grouped layers, encoder, heads."""
