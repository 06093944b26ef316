"""Tests of vggkit/notation/layers."""
