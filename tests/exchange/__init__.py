"""Tests of vggkit/exchange."""
