"""Data: faces on disk, splits of them, and the batches that methods receive."""
