"""One equation each: tensors in, scalar out; no trainer, no configuration."""
