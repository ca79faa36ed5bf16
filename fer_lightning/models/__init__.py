"""Networks and their parts; they know nothing of trainers or methods."""
