"""Takes logits and labels, gives scores: metrics by name, as fractions."""
