"""Checkpoints: reading them, telling what they are, loading, saving and converting them."""
