"""Whom a test asks, other packages and programs. Where one is missing the test is left out; in CI it fails."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Leave out a test for want of its judge, or fail in CI, where everybody must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and in CI no judge may be missing", pytrace=False)
    pytest.skip(what)


def package(name: str) -> Any:
    """Return a module of a package that the extra `test` installs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(f"{name} can't be imported: {error}")


def program(*names: str) -> str:
    """Return the path of a program, whichever of its names it has here."""
    found = next(filter(None, map(shutil.which, names)), None)
    return found or missing(f"{names[0]} is not installed")


def file(variable: str, what: str) -> Path:
    """Return the file that an environment variable names, which no package manager puts in a known place."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_file() else missing(f"{variable} names no file, expected {what}")
