"""Configurations by name, by alias or by path: those that come with vggkit, and your own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, ConfigError, Problem, did_you_mean, file_name, shorten
from vggkit.notation.config import Config
from vggkit.notation.document import MAX_BYTES, read
from vggkit.notation.overrides import Overrides, override
from vggkit.notation.reading import parse_config

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_CHAIN = 16
"""The most files in a chain in which each extends the next."""


@lru_cache(maxsize=1)
def folder() -> Path:
    """Return the folder of the shipped configurations: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent.parent
    inside = here / "configs"
    return inside if inside.is_dir() else here.parent / "configs"


def names() -> list[str]:
    """Return the names of the paper's configurations, in its order.

    >>> names()
    ['A', 'A-LRN', 'B', 'C', 'D', 'E']
    """
    return list(_files())


def family_names() -> list[str]:
    """Return the names of the networks of the VGG family that research code uses.

    >>> len(family_names())
    70
    """
    return list(_files("family"))


def known_names() -> list[str]:
    """Return every name and alias that finds a shipped configuration."""
    return [*_known(_files()), *_known(_files("family"))]


def _files(inside: str = "") -> dict[str, Path]:
    """Return the shipped files by name: the paper's, or those of a folder inside."""
    paths = sorted((folder() / inside).glob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: path for path in paths}


def _known(files: dict[str, Path]) -> list[str]:
    """Return the names and aliases of files."""
    return [known for name, path in files.items() for known in (name, *_aliases(path))]


@lru_cache(maxsize=128)
def _aliases(path: Path) -> list[str]:
    """Return the aliases of a shipped file. They are on one line there; parsing all files would take a second."""
    found = re.search(r"^aliases: \[(.*)\]$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1).split(", ") if found else []


def load(source: str | os.PathLike[str] | Config, **overrides: Unpack[Overrides]) -> Config:
    """Load a configuration.

    Args:
        source: a name or alias of a shipped one (letter case, - and _ don't matter; a final `_bn` adds batch norm),
            the path of a YAML file, or a Config.
        overrides: changes to make. `head`: "paper" or "gap"; `num_classes`: units of the last layer; `input`: shape of
            one image, "3x224x224"; `in_channels`: channels of the input; `width`: multiplies all channels and units
            except the classes, 0.5 or with a rounding "0.5 multiple of 8"; `pool`: "max" or "avg"; `activation`:
            replaces every activation, "none" removes them; `inplace`: False gives each activation memory of its own,
            which full backward hooks need; `batch_norm`: whether it follows the convolutions; `dropout`: rate after the
            hidden FC layers.

    Returns:
        The configuration.

    Raises:
        ConfigError: if it can't be found or is wrong; every problem with its file, line and column.
        ArgumentError: if an override is unknown or its value is not allowed.

    >>> load("vgg16").name
    'D'
    """
    if not isinstance(source, (str, os.PathLike, Config)):
        raise ArgumentError(f"source: expected a name, a path or a Config, found {shorten(source)}")
    config = source if isinstance(source, Config) else _load(os.fspath(source), (), None)
    return override(config, overrides)


def loads(text: str | bytes, file: str = "<text>", **overrides: Unpack[Overrides]) -> Config:
    """Load a configuration from YAML text.

    Args:
        text: the YAML.
        file: a name for messages; `extends:` with a relative path starts from its folder.
        overrides: as for `load`.

    Raises:
        ConfigError: with every problem of the text.
        ArgumentError: if an override is unknown or its value is not allowed.

    >>> loads("blocks: [[conv3-64]]").blocks[0][0].layer.out_channels
    64
    """
    return override(_parse(text, file, (), Path(file).parent), overrides)


def dump(config: str | os.PathLike[str] | Config, path: str | os.PathLike[str] | None = None) -> str:
    """Write a configuration as canonical YAML, which loads to an equal Config.

    Args:
        config: what to write.
        path: a file to write it to as well.

    Returns:
        The text.

    Raises:
        VggkitError: if the file can't be written.

    >>> print(dump("A").splitlines()[0])
    name: A
    """
    from vggkit.base.files import write_text

    text = str(load(config))
    if path is not None:
        write_text(path, text)
    return text


def variant(config: Config, changes: Iterable[str]) -> Config:
    """Mark a changed configuration as a variant, in its name and its source.

    Args:
        config: the configuration, changes made.
        changes: the changes, as they were typed.

    >>> variant(load("E", head="gap"), ["head=gap"]).source
    'Simonyan & Zisserman, arXiv:1409.1556, Table 1, column E, changed: head=gap'
    """
    source = f"{config.source or config.name}, changed: {', '.join(changes)}"
    return replace(config, name=f"{config.name}-variant", aliases=(), source=source)


def _load(source: str, chain: tuple[str, ...], base: Path | None) -> Config:
    """Load by name or path.

    Args:
        source: the name or path.
        chain: the files that led here through `extends`.
        base: the folder that a relative path starts from; None is the working directory.
    """
    if not ("/" in source or os.sep in source or source.lower().endswith((".yaml", ".yml"))):
        return _load_name(source)
    if base is None:
        return _load_file(Path(source), chain)
    return _load_file(base / source, chain, extended=True)


def _load_file(path: Path, chain: tuple[str, ...], *, extended: bool = False) -> Config:
    """Load a file.

    Args:
        path: where it is.
        chain: the files that led here through `extends`.
        extended: whether the path comes from a file, perhaps a stranger's, and not from the user.
    """
    name = file_name(path.relative_to(folder()).as_posix() if path.is_relative_to(folder()) else path)
    try:
        real = os.path.realpath(path)
    except ValueError as error:  # a NUL byte
        raise ConfigError([Problem(f"{name[:100]}: not a path: {error}")]) from None
    if real in chain:
        names = " → ".join(Path(link).name for link in (*chain, real))
        raise ConfigError([Problem(f"extends itself through {names}")])
    if len(chain) >= MAX_CHAIN:
        raise ConfigError([Problem(f"{name}: more than {MAX_CHAIN} files extend one another")])
    try:
        if extended and not (path.is_file() or path.is_dir()) and path.exists():
            raise ConfigError([Problem(f"{name}: expected a file, found a pipe or a device")])
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([Problem(f"{name}: no such file")]) from None
    except OSError as error:
        raise ConfigError([Problem(f"{name}: can't be read: {error.strerror or error}")]) from None
    if not extended and path.suffix.lower() not in ENDINGS and not _has_layers(text):
        raise ConfigError([Problem(f"{name}: {NO_YAML}")])
    if extended and not _has_layers(text):  # its lines may be secret, so no message quotes them
        raise ConfigError([Problem(f"{name}: not a configuration; `vggkit validate` says what is wrong in a file")])
    return _parse(text, name, (*chain, real), path.parent)


ENDINGS = (".yaml", ".yml", ".json", "")
"""Of files that are meant to be configurations."""

NO_YAML = "expected a file that ends in .yaml; `vggkit import` makes one of another tool's file"


def _has_layers(text: bytes) -> bool:
    """Tell whether a text looks like a configuration."""
    try:
        root = read(text, "", []).value
    except ConfigError:
        return False
    return isinstance(root, dict) and not {"blocks", "classifier", "extends"}.isdisjoint(root)


def _parse(text: str | bytes, file: str, chain: tuple[str, ...], base: Path) -> Config:
    return parse_config(text, file, lambda name: _load(name, chain, base))


def _load_name(name: str) -> Config:
    wanted = _letters(name)
    if path := _find(wanted):
        return _shipped(path)
    if path := _find(wanted.removesuffix("bn")):
        config = _shipped(path)
        aliases = tuple(f"{alias}_bn" for alias in config.aliases)
        return replace(override(config, {"batch_norm": True}), name=f"{config.name}-BN", aliases=aliases)
    if os.path.isfile(name):
        raise ConfigError([Problem(f"{file_name(name)}: {NO_YAML}")])
    known = f" Known: {', '.join(names())}; those of `vggkit list --family`; or give a path that ends in .yaml"
    raise ConfigError([Problem(f"unknown configuration {shorten(name)}.{_advice(name) or known}")])


@lru_cache(maxsize=128)
def _shipped(path: Path) -> Config:
    """Load a shipped file, which is read once; it extends shipped ones only."""
    return _load_file(path, ())


def _letters(name: str) -> str:
    """Return a name without letter case, hyphens and the like, to compare it."""
    return re.sub("[-_ ]", "", name).lower()


@lru_cache(maxsize=128)
def _find(letters: str) -> Path | None:
    """Find a shipped file by its name, or else by one of its aliases."""
    paths = [*_files().values(), *_files("family").values()]
    named = (path for path in paths if _letters(path.stem) == letters)
    return next(named, None) or next((path for path in paths if letters in map(_letters, _aliases(path))), None)


MEANT = {"vgg": "vgg16", "vggnet": "vgg16"}
"""What a name without a depth usually means."""

BEGINNING = 3
"""From this many letters on, the beginning of a longer name is recognised."""


def _advice(name: str) -> str:
    """Return " Did you mean 'x'?" for an unknown name, or an empty string."""
    wanted, letters = _letters(name), {_letters(known): known for known in names()}
    meant = MEANT.get(wanted) or letters.get(wanted.removeprefix("vgg").removeprefix("net"))
    if meant:
        return f" Did you mean '{meant}'?"
    paper, family = _known(_files()), _known(_files("family"))
    longer = [known for known in family if len(wanted) >= BEGINNING and _letters(known).startswith(wanted)]
    return did_you_mean(name, paper) or did_you_mean(name, longer, 0) or did_you_mean(name, family, 0.8)
