"""Tests of vggkit/base."""
