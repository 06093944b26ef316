"""Tests of vggkit/model."""
