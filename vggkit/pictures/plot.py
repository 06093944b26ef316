"""Networks → Picture: each kind of picture works out what it shows, and its module draws it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex

from vggkit.base.errors import ArgumentError, did_you_mean, shorten
from vggkit.base.files import write_bytes
from vggkit.figures.compare import Comparison, compare
from vggkit.figures.summary import Summary, summarize
from vggkit.network import Dtype, Network, Source, each_source
from vggkit.notation.overrides import Overrides, check_keywords
from vggkit.pictures import architecture, cost, flat, receptive, scatter
from vggkit.pictures.style import PICTURE_FORMATS, applied, encoded

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

MOST_LAYERS = 1_000
"""A picture of more layers takes minutes, and nobody can read it."""

MOST_COMPARED = 20
"""Most networks in one picture: more labels would cover one another."""


class Drawing(Protocol):
    """A module that draws one kind of picture."""

    def figure(self, shown: Any, /) -> Figure:
        """Draw it."""

    def title(self, shown: Any, /) -> str:
        """Return one line that says what is drawn."""

    def description(self, shown: Any, /) -> str:
        """Say in words what the picture shows."""


class PictureKind(NamedTuple):
    """A kind of picture.

    Args:
        drawing: the module that draws it.
        shown: works out what is drawn, of networks, options and overrides.
        options: which of batch and dtype it depends on.
        most: how many networks it draws at most.
    """

    drawing: Drawing
    shown: Callable[..., Summary | Comparison]
    options: tuple[str, ...] = ()
    most: int = 1


def _rows(
    source: Source,
    *,
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    expand: bool = False,
    **overrides: Unpack[Overrides],
) -> Summary:
    """Summarize a network, if it can be drawn at all."""
    network = Network.of(source, **overrides)
    if len(network) > MOST_LAYERS:
        raise ArgumentError(
            f"{network.name}: expected up to {MOST_LAYERS:,} layers in a picture, found {len(network):,}"
        )
    return summarize(network, batch=batch, dtype=dtype, expand=expand)


FLAT = PictureKind(flat, partial(_rows, expand=True))
"""How `flat=True` draws the architecture."""

PICTURE_KINDS = {
    "architecture": PictureKind(architecture, partial(_rows, expand=True)),
    "cost": PictureKind(cost, _rows, ("batch", "dtype")),
    "compare": PictureKind(scatter, compare, ("batch", "dtype"), MOST_COMPARED),
    "receptive": PictureKind(receptive, _rows),
}
"""Every kind of picture, by the word that asks for it."""


class Picture:
    """A picture of one or several networks. In a notebook it draws itself.

    Args:
        figure: the matplotlib figure.
        title: one line that says what is drawn.
        description: what the picture shows, for those who can't see it.
        name: a file's name for it, without an ending.
    """

    def __init__(self, figure: Figure, title: str, description: str, name: str) -> None:
        self.figure = figure
        self.title = title
        self.description = description
        self.name = name

    def to_bytes(self, format: str = "svg") -> bytes:
        """Return the content of a file; the same for the same network.

        Args:
            format: svg, png or pdf.

        Raises:
            ArgumentError: if the format is another.
        """
        if format not in PICTURE_FORMATS:
            raise ArgumentError(f"format: expected one of {', '.join(PICTURE_FORMATS)}, found {shorten(format)}")
        return encoded(self.figure, format, self.title, self.description)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, in the format of its ending; on an error nothing is written.

        Args:
            path: a name that ends in .svg, .png or .pdf.

        Raises:
            ArgumentError: if it has another ending.
            VggkitError: if it can't be written.
        """
        write_bytes(path, self.to_bytes(format_of(path)))

    def _repr_svg_(self) -> str:
        return self.to_bytes("svg").decode()


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format of a file's ending.

    Raises:
        ArgumentError: if it is none of a picture's.

    >>> format_of("D.SVG")
    'svg'
    """
    ending = Path(path).suffix.lower().lstrip(".")
    if ending not in PICTURE_FORMATS:
        *first, last = PICTURE_FORMATS
        endings = f".{', .'.join(first)} or .{last}"
        raise ArgumentError(f"expected a file that ends in {endings}, found {shorten(os.fspath(path))}")
    return ending


def plot(
    *sources: Source | Iterable[Source],
    kind: str = "architecture",
    flat: bool = False,
    batch: SupportsIndex | None = None,
    dtype: Dtype | None = None,
    **overrides: Unpack[Overrides],
) -> Picture:
    """Draw networks.

    Args:
        sources: one name, path, Config, Network or torch module; for the kind compare any number or lists of them, with
            changes as in `compare`, or none for the paper's six.
        kind: architecture (blocks in perspective), cost (what each layer costs), receptive (what each layer sees) or
            compare (parameters, MACs, training memory and reported errors of several networks).
        flat: whether the architecture is drawn block by block with a box for each layer.
        batch: number of images, 1 by default; for the kinds cost and compare.
        dtype: float32 (the default), float16, bfloat16 or float64; for the kinds cost and compare.
        overrides: changes to make to each network, as for `load`.

    Returns:
        The picture: `.save("D.svg")` writes it, `.figure` is matplotlib's.

    Raises:
        ConfigError: if a configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.

    >>> plot("D", kind="cost").title
    'D: 3×224×224, batch 1, float32'
    """
    check_keywords(plot, overrides)
    if kind not in PICTURE_KINDS:
        advice = did_you_mean(str(kind), PICTURE_KINDS)
        raise ArgumentError(f"kind: expected one of {', '.join(PICTURE_KINDS)}, found {shorten(kind)}.{advice}")
    if flat and kind != "architecture":
        raise ArgumentError(f"flat: needs kind architecture, found {kind}")
    drawn = FLAT if flat else PICTURE_KINDS[kind]
    chosen = each_source(sources)
    if drawn.most == 1 and len(chosen) != 1:
        raise ArgumentError(f"kind {kind}: expected one network, found {len(chosen)}; kind compare draws several")
    if len(chosen) > drawn.most:
        raise ArgumentError(f"kind {kind}: expected up to {drawn.most} networks, found {len(chosen)}")
    options = {word: value for word, value in (("batch", batch), ("dtype", dtype)) if value is not None}
    for word in options:
        if word not in drawn.options:
            allowed = " or ".join(name for name, other in PICTURE_KINDS.items() if word in other.options)
            raise ArgumentError(f"{word}: needs kind {allowed}, found {kind}")
    shown = drawn.shown(*chosen, **options, **overrides)
    names = [one.label for one in shown.networks] if isinstance(shown, Comparison) else [shown.name]
    return draw(drawn.drawing, shown, file_name("flat" if flat else kind, names))


def draw(drawing: Drawing, shown: Any, name: str) -> Picture:
    """Draw something.

    Args:
        drawing: the module that draws it.
        shown: what it draws.
        name: a file's name for it, without an ending.
    """
    with applied():
        figure = drawing.figure(shown)
    return Picture(figure, drawing.title(shown), drawing.description(shown), name)


def file_name(kind: str, names: Sequence[str]) -> str:
    """Name a file after what it shows, in characters that every file system takes."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', '-'.join(names)).lstrip('.')[:60]}-{kind}"
