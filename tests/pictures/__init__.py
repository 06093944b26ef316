"""Tests of vggkit/pictures."""
