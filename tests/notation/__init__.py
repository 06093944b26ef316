"""Tests of vggkit/notation."""
