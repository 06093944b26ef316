"""Tests of vggkit/pictures/report."""
