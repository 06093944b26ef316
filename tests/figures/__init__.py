"""Tests of vggkit/figures."""
