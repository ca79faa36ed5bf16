"""Networks and their parts, independent of trainers and methods."""
