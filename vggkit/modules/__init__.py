"""Torch modules → layers and configurations: what runs as a chain is described by running it."""
