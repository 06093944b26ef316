"""Tests of vggkit/modules."""
