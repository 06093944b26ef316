"""Pictures → classes."""
