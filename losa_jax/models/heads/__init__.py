"""Detection heads: outputs, targets, loss and decoding."""
