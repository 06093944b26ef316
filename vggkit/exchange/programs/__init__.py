"""torch's own files: exported programs and TorchScript."""
