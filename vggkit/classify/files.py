"""Which files are pictures to classify, and where their drawings go."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vggkit.base.errors import ArgumentError, file_name

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
DRAWN = "_pred.png"
"""The ending of a drawing beside its picture."""


def find_pictures(sources: Iterable[str]) -> list[Path]:
    """Find pictures.

    Args:
        sources: files, folders and patterns such as `photos/**/*.jpg`; a folder means every picture in it and in
            its folders, hidden ones left out. A `~` in front means the home folder.

    Returns:
        Each picture once, in the order of the sources and sorted within a folder or pattern. A file that is named
        stays, whatever its suffix and whether it exists or not. A drawing (see `drawing_paths`) is no picture, unless
        it is named without the picture that it belongs to.

    Raises:
        ArgumentError: for a folder or a pattern without a picture.
    """
    found: dict[str, Path] = {}
    for source in sources:
        for path in _expanded(source):
            found.setdefault(os.path.abspath(path), path)
    return _without_drawings(found.values(), found.values())


def _expanded(source: str) -> list[Path]:
    """Return the pictures that one source means."""
    if not source:
        raise ArgumentError("images: expected a file, a folder or a pattern, found ''")
    if not os.path.lexists(source):
        source = os.path.expanduser(source)
    if os.path.isdir(source):
        paths = sorted(filter(_is_picture, _files(source)))
        nothing = "no pictures in this folder"
    elif os.path.lexists(source) or not glob.has_magic(source):
        return [Path(source)]
    else:
        matches = map(Path, glob.glob(source, recursive=True))
        paths = sorted(path for path in matches if _is_picture(path) and path.is_file())
        nothing = "no pictures match this pattern"
    paths = _without_drawings(paths, _beside(paths))
    if not paths:
        raise ArgumentError(f"{file_name(source)}: {nothing}")
    return paths


def _files(folder: str) -> Iterator[Path]:
    """Find the files in a folder and its folders, hidden ones left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _without_drawings(paths: Iterable[Path], inputs: Iterable[Path]) -> list[Path]:
    """Leave out the drawings that belong to one of the inputs, by their names."""
    names = {str(name) for path in inputs for name in (path, os.path.splitext(path)[0])}
    return [path for path in paths if not (str(path).endswith(DRAWN) and str(path).removesuffix(DRAWN) in names)]


def _beside(paths: Iterable[Path]) -> Iterator[Path]:
    """Find all pictures in the folders of these."""
    for folder in {path.parent for path in paths}:
        with contextlib.suppress(OSError):  # a folder may let its files be read but not listed
            yield from filter(_is_picture, folder.iterdir())


def drawing_paths(paths: Sequence[Path]) -> list[Path]:
    """Return where each picture is drawn with its classes.

    Args:
        paths: the pictures.

    Returns:
        For each a file beside it: NAME_pred.png for NAME.jpg, or NAME.jpg_pred.png if there is a NAME.png as well.
    """
    together = {*paths, *_beside(paths)}
    namesakes = Counter((path.parent, path.stem.lower()) for path in together)
    return [
        path.with_name(f"{path.stem if namesakes[path.parent, path.stem.lower()] == 1 else path.name}{DRAWN}")
        for path in paths
    ]
