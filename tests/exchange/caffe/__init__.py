"""Tests of vggkit/exchange/caffe."""
