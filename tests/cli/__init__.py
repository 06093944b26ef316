"""Tests of vggkit/cli."""
