"""The version of the package, where every room finds it."""

__version__ = "0.1.0"
