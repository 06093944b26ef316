"""The public names: each is there when it is asked for, and says what it takes, gives and raises."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import vggkit

FUNCTIONS = [name for name in vggkit.__all__ if inspect.isfunction(getattr(vggkit, name))]
CLASSES = [name for name in vggkit.__all__ if inspect.isclass(getattr(vggkit, name))]


def methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Return the public methods of the public classes that are written in vggkit."""
    for name in CLASSES:
        for word, value in vars(getattr(vggkit, name)).items():
            plain = getattr(value, "__func__", value)
            if not word.startswith("_") and inspect.isfunction(plain):
                yield f"{name}.{word}", plain


METHODS = dict(methods())


def section(text: str, title: str) -> str:
    """Return a section of a docstring: what is indented under its title."""
    match = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return match.group(1) if match else ""


def arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's arguments."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def test_every_public_name_is_a_function_or_a_class() -> None:
    """Nothing else is exported, and no name is a module."""
    assert sorted(FUNCTIONS + CLASSES) == sorted(vggkit.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_docstring_explains_each_argument(name: str) -> None:
    """Args has an entry for each argument and no other."""
    function = getattr(vggkit, name)
    entries = re.findall(r"^    (\w+): ", section(inspect.getdoc(function) or "", "Args"), re.MULTILINE)
    assert entries == arguments(function)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_docstring_says_what_it_gives_and_shows_it(name: str) -> None:
    """Its first line is a sentence; a call is shown with its result; what takes arguments has Returns or Raises."""
    text = inspect.getdoc(getattr(vggkit, name)) or ""
    assert re.match(r"[A-Z].*\.$", text.splitlines()[0])
    assert ">>> " in text
    if arguments(getattr(vggkit, name)):
        assert section(text, "Returns") or section(text, "Raises")


@pytest.mark.parametrize("name", CLASSES)
def test_a_classs_docstring_explains_each_field(name: str) -> None:
    """What a class is made from stands under its Args."""
    kind = getattr(vggkit, name)
    text = inspect.getdoc(kind) or ""
    fields = getattr(kind, "__struct_fields__", None) or (arguments(kind.__init__) if "__init__" in vars(kind) else [])
    assert text
    assert re.findall(r"^    (\w+): ", section(text, "Args"), re.MULTILINE) == list(fields)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_docstring_explains_each_argument(name: str) -> None:
    """A public method says what it does, and explains what it takes, if that is more than one plain argument."""
    method = METHODS[name]
    text = inspect.getdoc(method) or ""
    assert re.match(r"[A-Z].*\.", text)
    if len(arguments(method)) > 1:
        assert re.findall(r"^    (\w+): ", section(text, "Args"), re.MULTILINE) == arguments(method)


NEED_TORCH = (
    "VGG", "Classifier", "build", "convert", "features", "load_model", "load_weights", "save_weights",
    "to_fully_convolutional",
)  # fmt: skip


@pytest.mark.parametrize("name", vggkit.__all__)
def test_a_name_is_imported_when_it_is_asked_for(name: str) -> None:
    """In a fresh interpreter each name works on its own, is found by dir(), and needs no other before it."""
    code = f"import vggkit; assert {name!r} in dir(vggkit); from vggkit import {name}; print({name}.__name__)"
    torch_free = "" if name in NEED_TORCH else "; import sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code + torch_free], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr


def test_what_is_not_there_is_an_attribute_error() -> None:
    """As with any module, so that hasattr and getattr with a default work."""
    with pytest.raises(AttributeError, match="module 'vggkit' has no attribute 'biuld'"):
        vggkit.biuld  # noqa: B018
    assert not hasattr(vggkit, "VGG16")


def test_the_version_is_the_packages() -> None:
    """A version in three numbers."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", vggkit.__version__)
