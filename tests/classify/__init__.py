"""Tests of vggkit/classify."""
