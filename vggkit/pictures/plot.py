"""Networks → Picture: each kind of picture works out what it shows, and its module draws it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex

from vggkit.base.errors import ArgumentError, did_you_mean, shorten
from vggkit.base.files import write_bytes
from vggkit.figures.compare import Comparison, compare
from vggkit.figures.summary import Summary, summarize
from vggkit.network import Dtype, Network, Source, each_source
from vggkit.notation.overrides import Overrides, check_keywords
from vggkit.pictures import architecture, cost, flat, mermaid, receptive, scatter, tikz
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


class Language(NamedTuple):
    """A language of another tool that draws pictures from text.

    Args:
        write: writes what is shown in it.
        endings: of its files; with each, what makes such a file of the text.
    """

    write: Callable[[Any], str]
    endings: Mapping[str, Callable[[str], str]]


LANGUAGES = {
    "tikz": Language(tikz.document, {".tex": str}),
    "mermaid": Language(mermaid.flowchart, {".mmd": str, ".md": mermaid.fenced}),
}
"""The languages that pictures can be written in, by the word that asks for one."""

FORMATS: dict[str, tuple[str, ...]] = {
    **{word: (f".{word}",) for word in PICTURE_FORMATS},
    **{word: tuple(language.endings) for word, language in LANGUAGES.items()},
}
"""Every format of a picture, with the endings of its files; not each kind of picture has each."""


class PictureKind(NamedTuple):
    """A kind of picture.

    Args:
        drawing: the module that draws it.
        shown: works out what is drawn, of networks, options and overrides.
        options: which of batch and dtype it depends on.
        most: how many networks it draws at most.
        languages: keys of `LANGUAGES` that say it, too.
    """

    drawing: Drawing
    shown: Callable[..., Summary | Comparison]
    options: tuple[str, ...] = ()
    most: int = 1
    languages: tuple[str, ...] = ()


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


FLAT = PictureKind(flat, partial(_rows, expand=True), languages=("mermaid",))
"""How `flat=True` draws the architecture."""

PICTURE_KINDS = {
    "architecture": PictureKind(architecture, partial(_rows, expand=True), languages=("tikz", "mermaid")),
    "cost": PictureKind(cost, _rows, ("batch", "dtype")),
    "compare": PictureKind(scatter, compare, ("batch", "dtype"), MOST_COMPARED),
    "receptive": PictureKind(receptive, _rows),
}
"""Every kind of picture, by the word that asks for it."""


class Picture:
    """A picture of one or several networks. In a notebook it draws itself.

    Args:
        draw: draws the matplotlib figure, when it is first needed.
        title: one line that says what is drawn.
        description: what the picture shows, for those who can't see it.
        name: a file's name for it, without an ending.
        texts: what writes it in another tool's language, by keys of `LANGUAGES`.
    """

    def __init__(
        self,
        draw: Callable[[], Figure],
        title: str,
        description: str,
        name: str,
        texts: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        self._draw = draw
        self.title = title
        self.description = description
        self.name = name
        self._texts = texts or {}

    @cached_property
    def figure(self) -> Figure:
        """The matplotlib figure."""
        with applied():
            return self._draw()

    def to_bytes(self, format: str = "svg") -> bytes:
        """Return the content of a file; the same for the same network.

        Args:
            format: svg, png or pdf; for an architecture also mermaid, and unless it is flat, tikz.

        Raises:
            ArgumentError: if the format is another, or can't say so much.
        """
        self._check(format)
        if format in self._texts:
            return self._texts[format]().encode()
        return encoded(self.figure, format, self.title, self.description)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Write a file; on an error nothing is written.

        Args:
            path: a name that ends in .svg, .png or .pdf; for an architecture also in .tex (TikZ), .mmd (Mermaid) or
                .md (the same, as it stands in a Markdown page).
            format: as for `to_bytes`; by the ending if absent.

        Raises:
            ArgumentError: if the name has another ending, or the picture no such format.
            VggkitError: if it can't be written.
        """
        write_bytes(path, self.content(path, format or format_of(path)))

    def content(self, path: str | os.PathLike[str], format: str) -> bytes:
        """Return the content of a file with a name: Mermaid stands in a fence if that is a Markdown page's.

        Args:
            path: the file's name.
            format: as for `to_bytes`.

        Raises:
            ArgumentError: if the picture has no such format.
        """
        made = self.to_bytes(format)
        if format in self._texts:
            return LANGUAGES[format].endings.get(_ending(path), str)(made.decode()).encode()
        return made

    def _check(self, format: str) -> None:
        """Refuse a format that the picture doesn't have."""
        mine = [*PICTURE_FORMATS, *self._texts]
        if format in mine:
            return
        if format in LANGUAGES:
            kinds = [kind for kind, other in PICTURE_KINDS.items() if format in other.languages]
            flat = "" if format in FLAT.languages else ", not flat"
            advice = f"; {format} needs kind {' or '.join(kinds)}{flat}"
        else:
            advice = f".{did_you_mean(str(format), FORMATS)}"
        raise ArgumentError(f"format: expected one of {', '.join(mine)}, found {shorten(format)}{advice}")

    def _repr_svg_(self) -> str:
        return self.to_bytes("svg").decode()


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format of a file's ending.

    Raises:
        ArgumentError: if it is none of a picture's.

    >>> format_of("D.SVG"), format_of("D.tex")
    ('svg', 'tikz')
    """
    for word, endings in FORMATS.items():
        if _ending(path) in endings:
            return word
    *first, last = [ending for endings in FORMATS.values() for ending in endings]
    raise ArgumentError(f"expected a file that ends in {', '.join(first)} or {last}, found {shorten(os.fspath(path))}")


def _ending(path: str | os.PathLike[str]) -> str:
    return Path(path).suffix.lower()


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
        The picture: `.save("D.svg")` writes it, and an architecture also as TikZ (`D.tex`) and Mermaid (`D.md`);
        `.figure` is matplotlib's.

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
    return draw(drawn.drawing, shown, file_name("flat" if flat else kind, names), drawn.languages)


def draw(drawing: Drawing, shown: Any, name: str, languages: Iterable[str] = ()) -> Picture:
    """Return a picture of something.

    Args:
        drawing: the module that draws it.
        shown: what it draws.
        name: a file's name for it, without an ending.
        languages: keys of `LANGUAGES` that say it, too.
    """
    texts = {word: partial(LANGUAGES[word].write, shown) for word in languages}
    return Picture(partial(drawing.figure, shown), drawing.title(shown), drawing.description(shown), name, texts)


def file_name(kind: str, names: Sequence[str]) -> str:
    """Name a file after what it shows, in characters that every file system takes."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', '-'.join(names)).lstrip('.')[:60]}-{kind}"
