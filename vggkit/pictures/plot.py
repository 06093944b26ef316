"""Networks → Picture: what is needed for it is worked out by its own room, and handed to `render.plot`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from vggkit.base.errors import ArgumentError, did_you_mean, shorten
from vggkit.figures.compare import compare
from vggkit.figures.summary import summarize
from vggkit.network import Dtype, Network, Source, each_source
from vggkit.notation.overrides import Overrides, check_keywords

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

    from vggkit.figures.find import Found

KINDS = ("architecture", "cost", "compare", "receptive")

FORMATS = ("svg", "png", "pdf")
"""What a picture can be written as; the file's ending says which."""

MOST_LAYERS = 1_000
"""More layers than this are no picture that a person reads, and take minutes to draw."""

MOST_COMPARED = 20
"""More labels than this find no place of their own."""


class Picture:
    """A picture of one or several networks. In a notebook it draws itself.

    Args:
        figure: the matplotlib figure.
        title: what it is, on one line.
        description: what it shows, for those who can't see it.
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
        from vggkit.pictures.style import encoded

        if format not in FORMATS:
            raise ArgumentError(f"format: expected one of {', '.join(FORMATS)}, found {shorten(format)}")
        return encoded(self.figure, format, self.title, self.description)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file whose ending says the format, whole or not at all.

        Args:
            path: it ends in .svg, .png or .pdf.

        Raises:
            ArgumentError: if it ends otherwise.
            VggkitError: if it can't be written.
        """
        from vggkit.base.files import write_bytes

        write_bytes(path, self.to_bytes(format_of(path)))

    def _repr_svg_(self) -> str:
        return self.to_bytes("svg").decode()


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that a file's ending says.

    Raises:
        ArgumentError: if it says none.

    >>> format_of("D.SVG")
    'svg'
    """
    ending = Path(path).suffix.lower().lstrip(".")
    if ending not in FORMATS:
        endings = f".{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}"
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
        sources: one name, path, Config or Network; for the kind compare any number or lists of them, changes behind
            them as in `compare`, or none for all six.
        kind: architecture (blocks in perspective), cost (what each layer costs), receptive (what each layer sees) or
            compare (parameters, MACs, training memory and reported errors of several networks).
        flat: whether the architecture is drawn block by block with a box for each layer.
        batch: number of images, 1 if absent; for the kinds cost and compare.
        dtype: float32 if absent, float16, bfloat16 or float64; for the kinds cost and compare.
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
    if kind not in KINDS:
        advice = did_you_mean(str(kind), KINDS)
        raise ArgumentError(f"kind: expected one of {', '.join(KINDS)}, found {shorten(kind)}.{advice}")
    if flat and kind != "architecture":
        raise ArgumentError(f"flat: expected kind architecture with it, found {kind}")
    chosen = each_source(sources)
    if kind != "compare" and len(chosen) != 1:
        raise ArgumentError(f"kind {kind}: expected one network, found {len(chosen)}; kind compare draws several")
    if len(chosen) > MOST_COMPARED:
        raise ArgumentError(f"kind compare: expected up to {MOST_COMPARED} networks, found {len(chosen)}")
    options: dict[str, Any] = {word: value for word, value in (("batch", batch), ("dtype", dtype)) if value is not None}
    for word in options if kind in ("architecture", "receptive") else ():
        raise ArgumentError(f"{word}: expected kind cost or compare with it, found {kind}")
    from vggkit.pictures import architecture, cost, receptive, scatter
    from vggkit.pictures import flat as boxes

    if kind == "compare":
        comparison = compare(*chosen, **options, **overrides)
        return _picture(scatter, comparison, file_name(kind, [one.label for one in comparison.networks]))
    network = Network.of(chosen[0], **overrides)
    if len(network) > MOST_LAYERS:
        raise ArgumentError(
            f"{network.name}: expected up to {MOST_LAYERS:,} layers in a picture, found {len(network):,}"
        )
    if kind == "architecture":
        summary = summarize(network, expand=True)
        return _picture(boxes if flat else architecture, summary, file_name("flat" if flat else kind, [network.name]))
    return _picture(
        cost if kind == "cost" else receptive, summarize(network, **options), file_name(kind, [network.name])
    )


def plot_found(found: Found) -> Picture:
    """Draw what a search found.

    Args:
        found: what `find` returns.

    Raises:
        ArgumentError: if it is nothing.
    """
    from vggkit.pictures import front

    if not len(found):
        raise ArgumentError("nothing was found, so there is nothing to draw; expected conditions that some meet")
    return _picture(front, found, file_name("find", list(dict.fromkeys(one.name for one in found))))


def _picture(room: Any, shown: Any, name: str) -> Picture:
    """Draw something in the room of `render.plot` for it."""
    from vggkit.pictures.style import applied

    with applied():
        figure = room.figure(shown)
    return Picture(figure, room.title(shown), room.description(shown), name)


def file_name(kind: str, names: Sequence[str]) -> str:
    """Name a file after what is drawn, in characters that every file system takes."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', '-'.join(names)).lstrip('.')[:60]}-{kind}"
