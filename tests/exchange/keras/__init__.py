"""Tests of Keras's files."""
