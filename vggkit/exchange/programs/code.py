"""The code in a file of TorchScript: a subset of Python, which is parsed and never run."""

from __future__ import annotations

import ast
import io
import tokenize
from typing import NamedTuple

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.programs.archive import Archive

MOST_CODE = 2**21
"""Bytes of all texts that are parsed. A VGG of torchvision's has 20,000."""

MOST_WORDS = 1_000
"""In one statement: Python's parser needs memory of the machine's stack for each that stands inside another."""


MOST_LINE = 4_000
"""Bytes: Python's tokenizer takes much memory for long ones, and time for long numbers."""


class Function(NamedTuple):
    """A function or a method.

    Args:
        node: its text.
        home: the file.
    """

    node: ast.FunctionDef
    home: str


class Code:
    """The texts in an archive.

    Args:
        archive: it.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.files: dict[str, dict[str, ast.stmt]] = {}
        self.size = 0

    def function(self, name: str) -> Function:
        """Return a function by its name, such as `__torch__.torch.nn.functional.relu`.

        Raises:
            LayerError: if there is none.
        """
        home, node = self._statement(name)
        if not isinstance(node, ast.FunctionDef):
            raise LayerError(f"{escaped(shorten(name))} is no function of the file")
        return Function(node, home)

    def method(self, kind: str, name: str) -> Function:
        """Return a method of a class.

        Raises:
            LayerError: if there is none.
        """
        home, node = self._statement(kind)
        body = node.body if isinstance(node, ast.ClassDef) else []
        for one in body:
            if isinstance(one, ast.FunctionDef) and one.name == name:
                return Function(one, home)
        raise LayerError(f"{escaped(shorten(kind))} has no method {escaped(shorten(name))} in the file")

    def _statement(self, name: str) -> tuple[str, ast.stmt | None]:
        folder, _, word = name.rpartition(".")
        home = f"code/{folder.replace('.', '/')}.py"
        if home not in self.files:
            self.files[home] = self._parsed(home) if self.archive.has(home) else {}
        return home, self.files[home].get(word)

    def _parsed(self, home: str) -> dict[str, ast.stmt]:
        content = self.archive.text(home)
        self.size += len(content)
        if self.size > MOST_CODE:
            raise MalformedError(f"expected at most {MOST_CODE:,} bytes of code, found more")
        told = escaped(home)
        if any(len(line) > MOST_LINE for line in content.splitlines()):
            raise MalformedError(f"{told}: expected lines of at most {MOST_LINE:,} bytes")
        try:
            text = content.decode()
            is_deep = _is_deep(text)
            tree = None if is_deep else ast.parse(text)
        except (SyntaxError, ValueError, tokenize.TokenError, MemoryError, RecursionError):
            raise MalformedError(f"{told}: expected code of TorchScript") from None
        if tree is None:
            raise MalformedError(f"{told}: expected statements of at most {MOST_WORDS:,} words")
        return {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}


def _is_deep(text: str) -> bool:
    """Tell whether a statement may be too deep for Python's parser."""
    words = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        words = 0 if token.type == tokenize.NEWLINE else words + 1
        if words > MOST_WORDS:
            return True
    return False
