"""Tests of vggkit/exchange/programs."""
