"""ONNX: networks as graphs of operations, with or without their weights."""
