"""Opening a trained model."""
