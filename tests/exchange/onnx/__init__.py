"""Tests of vggkit/exchange/onnx."""
