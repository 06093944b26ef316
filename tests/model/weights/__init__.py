"""Tests of vggkit/model/weights."""
