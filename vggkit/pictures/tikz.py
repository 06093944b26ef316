r"""A network as a LaTeX document: cuboids that TikZ draws, in the vocabulary of PlotNeuralNet.

PlotNeuralNet (github.com/HarisIqbal88/PlotNeuralNet) calls a row of cuboids `Box`, or `RightBandedBox` where a band
stands for the activation function, and gives both the same keys. The document defines the two itself, so that it needs
TikZ alone, and what is known of PlotNeuralNet's pictures can be done with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from vggkit.base.errors import ArgumentError
from vggkit.base.tables import latex_cell
from vggkit.pictures import style
from vggkit.pictures.architecture import Cuboid, Scale, cuboids_of, makes_channels, scale_of
from vggkit.pictures.parts import COLOURS, Group, category, counted, groups, subtitle, title

if TYPE_CHECKING:
    from vggkit.figures.summary import Summary

__all__ = ["document"]

UNIT = 0.2
"""Centimetres of a width, height or depth of 1: PlotNeuralNet's default of the key `scale`."""

INCH = 2.54
"""Centimetres of an inch."""

DIGIT = 0.19
"""Centimetres of a digit below a cuboid, in LaTeX's usual size."""

LETTER = 0.22
"""Centimetres of a letter of a caption, which is bold."""

GAP = 0.7
"""Centimetres between what belongs to one group and what belongs to the next."""

LABEL = 0.4
"""Centimetres of the size that is written along a cuboid's depth."""

TOWARDS = (0.34, 0.26)
"""Centimetres to the left and downwards for a centimetre towards the eye."""

LONGEST = 450.0
"""Most centimetres of a picture. TeX has no length of more than 575, and a longer picture is drawn narrower."""

MOST_PICS = 400
"""pdflatex as it is installed has memory for twice as many, arrows between all of them included."""

LONGEST_ROW = 10
"""Most cuboids of one pic: pgf reads all their labels again for each."""

FILLS = {
    "input": "InputColor",
    "convolution": "ConvColor",
    "normalization": "NormColor",
    "activation": "ConvReluColor",
    "pooling": "PoolColor",
    "fully connected": "FcColor",
    "soft-max": "SoftmaxColor",
}
"""The command that has the colour of each category of layer: PlotNeuralNet's, and two that it lacks."""

BANDS = {"fully connected": "FcReluColor"}
"""The command with the colour of the activation behind a category, where it is not that of an activation alone."""

PREAMBLE = r"""\documentclass{article}
\usepackage{tikz}
\usetikzlibrary{arrows.meta, backgrounds}

% Box and RightBandedBox: a row of cuboids, one for each width. Their names and keys are PlotNeuralNet's.
\tikzset{
  Box/.pic={\tikzset{/cuboids/.cd, #1}\cuboids{0}},
  RightBandedBox/.pic={\tikzset{/cuboids/.cd, #1}\cuboids{1}},
  /cuboids/.search also={/tikz},
  /cuboids/.cd,
  name/.store in=\itsname, name=,
  caption/.store in=\itscaption, caption=,
  xlabel/.store in=\itsxlabel, xlabel=,
  ylabel/.store in=\itsylabel, ylabel=,
  zlabel/.store in=\itszlabel, zlabel=,
  width/.store in=\itswidth, width=2,
  height/.store in=\itsheight, height=13,
  depth/.store in=\itsdepth, depth=15,
  scale/.store in=\itsscale, scale=0.2,
  fill/.store in=\itsfill, fill=gray,
  opacity/.store in=\itsopacity, opacity=1,
  bandfill/.store in=\itsbandfill, bandfill=darkgray,
  bandopacity/.store in=\itsbandopacity, bandopacity=1,
}
\newcommand{\cuboids}[1]{%
  \pgfmathsetmacro{\itsy}{\itsheight*\itsscale/2}%
  \pgfmathsetmacro{\itsz}{\itsdepth*\itsscale/2}%
  \foreach \w [count=\i from 0, evaluate=\w as \e using \s+\w*\itsscale, remember=\e as \s (initially 0)] in \itswidth {
    \sides{\itsfill}{\itsopacity}{\s}{\e}
    \ifnum#1=1 \sides{\itsbandfill}{\itsbandopacity}{\e-(\e-\s)/3}{\e}\fi
    \ifx\itsxlabel\empty\else
      \pgfmathparse{array({\itsxlabel},\i)}
      \node[anchor=north] at ({(\s+\e)/2},-\itsy,\itsz) {\pgfmathresult};
    \fi
    \xdef\itsend{\e}
  }
  \ifx\itsylabel\empty\else\node[anchor=east] at (0,0,\itsz) {\itsylabel};\fi
  \ifx\itszlabel\empty\else
    \path (\itsend,-\itsy,\itsz) -- node[midway, sloped, below] {\itszlabel} (\itsend,-\itsy,-\itsz);
  \fi
  \ifx\itscaption\empty\else\node[anchor=north, yshift=-15pt] at (\itsend/2,-\itsy,\itsz) {\bfseries\itscaption};\fi
  % coordinates in the middle of the row and of each side, and at each corner
  \foreach \place/\x/\y/\z in
    {anchor/.5/0/0, west/0/0/0, east/1/0/0, north/.5/1/0, south/.5/-1/0, near/.5/0/1, far/.5/0/-1}
    \coordinate (\itsname-\place) at (\x*\itsend,\y*\itsy,\z*\itsz);
  \foreach \far/\z in {near/1, far/-1}
    \foreach \up/\y in {north/1, south/-1}
      \foreach \along/\x in {west/0, east/1}
        \coordinate (\itsname-\far\up\along) at (\x*\itsend,\y*\itsy,\z*\itsz);
}
% The three sides that are seen of a cuboid: #1 its colour, #2 its opacity, from #3 to #4 along the row.
\newcommand{\sides}[4]{%
  \colorlet{itscolour}{#1}%
  \begin{scope}[fill opacity=#2, line join=round]
    \draw[fill=itscolour!80]
      ({#4},-\itsy,\itsz) -- ({#4},-\itsy,-\itsz) -- ({#4},\itsy,-\itsz) -- ({#4},\itsy,\itsz) -- cycle;
    \draw[fill=itscolour!55]
      ({#3},\itsy,\itsz) -- ({#4},\itsy,\itsz) -- ({#4},\itsy,-\itsz) -- ({#3},\itsy,-\itsz) -- cycle;
    \draw[fill=itscolour] ({#3},-\itsy,\itsz) rectangle ({#4},\itsy,\itsz);
  \end{scope}%
}
"""
"""What draws a pic, in words of our own; the words for it are PlotNeuralNet's."""

BEGINNING = r"""
\newcommand{\midarrow}{\tikz \draw[-Stealth, line width=0.8mm, draw=\edgecolor] (-0.3,0) -- (0,0);}
\tikzset{connection/.style={ultra thick, draw=\edgecolor, every node/.style={sloped, allow upside down}}}

\begin{document}
\newsavebox{\drawing}
\begin{lrbox}{\drawing}
"""

ENDING = r"""\end{lrbox}
% a page as large as the picture; LuaTeX has other names for its size
\ifdefined\pagewidth\let\pdfpagewidth\pagewidth\let\pdfpageheight\pageheight\fi
\pdfpagewidth=\dimexpr\wd\drawing+8mm\relax
\pdfpageheight=\dimexpr\ht\drawing+\dp\drawing+8mm\relax
\hoffset=\dimexpr4mm-1in\relax
\voffset=\hoffset
\shipout\box\drawing
\end{document}
"""


class Pic(NamedTuple):
    """A row of cuboids that touch one another. All sizes are in centimetres.

    Args:
        name: in the picture.
        kind: the category of its layers.
        banded: whether an activation function follows each of them.
        labels: what is written below each cuboid; none where the layers have no channels or units of their own.
        widths: of the cuboids.
        height: of all of them.
        depth: of all of them.
        ylabel: what is written beside its height.
        zlabel: what is written along its depth.
    """

    name: str
    kind: str
    banded: bool
    labels: tuple[str, ...]
    widths: tuple[float, ...]
    height: float
    depth: float
    ylabel: str = ""
    zlabel: str = ""

    @property
    def width(self) -> float:
        """The width of the whole row."""
        return sum(self.widths)

    @property
    def towards(self) -> float:
        """How far its front is to the left of its middle, and its back to the right."""
        return self.depth * TOWARDS[0] / 2

    def keys(self, caption: str, shrunk: float) -> list[str]:
        """Return the keys that say what it is.

        Args:
            caption: the text below it; empty for none.
            shrunk: how much narrower it is drawn.
        """
        said = [f"name={self.name}", *([f"caption={latex_cell(caption)}"] if caption else [])]
        if self.labels:  # pgf has no lists of one element
            quoted = [f'"{label}"' for label in (*self.labels, *([""] if len(self.labels) == 1 else []))]
            said.append(f"xlabel={{{{{','.join(quoted)}}}}}")
        said += [f"{word}={label}" for word, label in (("ylabel", self.ylabel), ("zlabel", self.zlabel)) if label]
        said.append(f"fill=\\{FILLS[self.kind]}")
        if self.banded:
            said.append(f"bandfill=\\{BANDS.get(self.kind, FILLS['activation'])}")
        widths = ",".join(units(width * shrunk) for width in self.widths)
        return [*said, f"width={{{widths}}}", f"height={units(self.height)}", f"depth={units(self.depth)}"]


class Part(NamedTuple):
    """A group of layers as it is drawn.

    Args:
        group: the layers.
        pics: each touches the one before it.
    """

    group: Group
    pics: tuple[Pic, ...]

    @property
    def captioned(self) -> Pic:
        """The pic that the group's name is below: the widest."""
        return max(self.pics, key=lambda pic: pic.width)

    @property
    def reach(self) -> tuple[float, float]:
        """How far it reaches to the left of its first pic's beginning, and to the right of its last pic's end."""
        width = sum(pic.width for pic in self.pics)
        start, lefts, rights = 0.0, [], []
        for pic in self.pics:
            end = start + pic.width
            lefts.append(start - pic.towards - DIGIT * len(pic.ylabel))
            rights.append(end + pic.towards + (LABEL if pic.zlabel else 0.0))
            if pic == self.captioned:
                middle, half = (start + end) / 2 - pic.towards, LETTER * len(self.group.name) / 2
                lefts.append(middle - half)
                rights.append(middle + half)
            start = end
        return -min(lefts), max(rights) - width


def units(centimetres: float) -> str:
    """Write a length in PlotNeuralNet's units."""
    return f"{centimetres / UNIT:.4g}"


def document(summary: Summary) -> str:
    """Return a LaTeX document of one page, which pdflatex, lualatex and xelatex take.

    Args:
        summary: with a row for every module.

    Raises:
        ArgumentError: if TeX could not draw so much.
    """
    parts = _parts(summary)
    pics = [pic for part in parts for pic in part.pics]
    if len(pics) > MOST_PICS:
        raise ArgumentError(
            f"{summary.name}: expected up to {MOST_PICS} rows of cuboids in a TikZ picture, since TeX's memory holds no"
            f" more, found {len(pics):,}"
        )
    gaps = [before.reach[1] + GAP + after.reach[0] for before, after in pairwise(parts)]
    total = sum(gaps) + sum(pic.width for pic in pics)
    picture = _picture(parts, gaps, min(1.0, LONGEST / total))
    about = [f"% {style.printable(line)}" for line in (title(summary), subtitle(summary))]
    return "\n".join([*about, PREAMBLE, *_colours(), BEGINNING, *picture, ENDING])


def _parts(summary: Summary) -> list[Part]:
    """Return the groups of a network's layers, each with what is drawn of it."""
    found = groups(summary)
    scale = scale_of([row for group in found for row in group.rows])
    activated = {
        before.name: after.name
        for before, after in pairwise(summary)
        if category(after) == "activation" != category(before) and before.block == after.block and before.layer
    }
    return [Part(group, tuple(_sized(group, list(_pics(group, scale, activated))))) for group in found]


def _pics(group: Group, scale: Scale, activated: Mapping[str, str]) -> Iterator[Pic]:
    """Yield what is drawn of a group.

    Args:
        group: the layers.
        scale: of the picture.
        activated: the name of the activation function behind a layer, by the layer's.
    """
    bands = {activated.get(row.name) for row in group.rows}
    cuboids = cuboids_of([row for row in group.rows if row.name not in bands], scale)

    def alike(cuboid: Cuboid) -> tuple[object, ...]:
        row = cuboid.row
        alone = "" if makes_channels(row) else row.name
        return cuboid.height, cuboid.depth, category(row), row.name in activated, alone

    runs = [list(run) for _, run in groupby(cuboids, key=alike)]
    for run in (long[start : start + LONGEST_ROW] for long in runs for start in range(0, len(long), LONGEST_ROW)):
        first = run[0].row
        labels = [str(cuboid.row.output_shape[0]) for cuboid in run if makes_channels(first)]
        least = [DIGIT * (len(label) + 0.5) for label in labels] or [0.0]
        yield Pic(
            name=first.name,
            kind=category(first),
            banded=first.name in activated,
            labels=tuple(labels),
            widths=tuple(max(INCH * cuboid.thickness, width) for cuboid, width in zip(run, least)),
            height=INCH * run[0].height,
            depth=INCH * run[0].depth,
        )


def _sized(group: Group, pics: Sequence[Pic]) -> list[Pic]:
    """Return pics with the size of their maps: of equal ones, the last says the width and the first the height.

    Labels between them would lie behind the next cuboid, and a height that equals the width is not repeated.
    """
    sides = {row.name: row.output_shape[1:] for row in group.rows}
    found = {pic.name: pic for pic in pics}
    labelled = [pic.name for pic in pics if pic.labels]
    for maps, run in groupby(labelled, key=lambda name: sides[name]):
        if maps:
            height, width = map(str, maps)
            names = list(run)
            first, last = names[0], names[-1]
            found[first] = found[first]._replace(ylabel=height if height != width else "")
            found[last] = found[last]._replace(zlabel=width)
    return list(found.values())


def _colours() -> list[str]:
    """Return the definitions of the colours that pics and arrows have."""
    colours = {FILLS[kind]: colour for kind, colour in COLOURS.items()}
    colours |= {**dict.fromkeys(BANDS.values(), COLOURS["activation"]), "edgecolor": style.FAINT_INK}
    return [f"\\def\\{command}{{rgb,255:{_rgb(colour)}}}" for command, colour in colours.items()]


def _rgb(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"red,{red};green,{green};blue,{blue}"


def _picture(parts: Sequence[Part], gaps: Sequence[float], shrunk: float) -> Iterator[str]:
    """Yield the lines of the picture itself.

    Args:
        parts: from left to right.
        gaps: centimetres from each part to the next.
        shrunk: how much narrower it is drawn.
    """
    yield f"\\begin{{tikzpicture}}[z={{(-{TOWARDS[0]}cm,-{TOWARDS[1]}cm)}}]"
    place, shift = "(0,0,0)", 0.0
    for part, gap in zip(parts, (*gaps, 0.0)):
        yield f"% {part.group.name}: {style.printable(', '.join(counted(part.group.rows)))}"
        for pic in part.pics:
            box = "RightBandedBox" if pic.banded else "Box"
            keys = pic.keys(part.group.name if pic == part.captioned else "", shrunk)
            yield f"\\pic[shift={{({shift * shrunk:.4g},0,0)}}] at {place} {{{box}={{{', '.join(keys)}}}}};"
            place, shift = f"({pic.name}-east)", 0.0
        shift = gap
    yield "\\begin{scope}[on background layer]"
    for (before, after), gap in zip(pairwise(parts), gaps):
        between = (before.reach[1] + GAP / 2) / gap
        start, end = before.pics[-1].name, after.pics[0].name
        yield f"\\draw[connection] ({start}-east) -- node[pos={between:.3g}] {{\\midarrow}} ({end}-west);"
    yield "\\end{scope}"
    yield "\\end{tikzpicture}"
