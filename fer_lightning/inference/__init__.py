"""What is done with a trained model: open it, predict."""
