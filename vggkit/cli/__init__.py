"""The command line: the group of commands, and a file of commands for each wing."""

from vggkit.cli import classify, exchange, figures, footprint, model, notation, pictures, search
from vggkit.cli.app import main

__all__ = ["classify", "exchange", "figures", "footprint", "main", "model", "notation", "pictures", "search"]
