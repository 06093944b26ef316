"""Tests of `vggkit.footprint.remedies`."""
