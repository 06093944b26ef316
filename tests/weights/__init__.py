"""Tests of the checkpoints: reading, telling, loading, saving, converting, fetching."""
