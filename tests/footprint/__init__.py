"""Tests of vggkit/footprint."""
