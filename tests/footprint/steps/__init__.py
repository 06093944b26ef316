"""Tests of vggkit.footprint.steps."""
