"""Tests of vggkit/search."""
