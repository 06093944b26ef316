"""Checkpoints of every layout."""
