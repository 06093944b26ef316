"""`vggkit.plot`: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import vggkit
from tests import scratch
from tests.cli.test_app import printed
from vggkit.pictures.plot import PICTURE_KINDS, Picture
from vggkit.pictures.style import PICTURE_FORMATS

SMALL = vggkit.loads("{name: small/../<net>, input: 3x8x8, blocks: [[conv3-4, maxpool]], classifier: [FC-3]}")


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_a_picture_is_a_figure_a_title_and_a_description(kind: str) -> None:
    """And it draws itself in a notebook, as the SVG that it is written as."""
    picture = vggkit.plot(SMALL, kind=kind)
    assert isinstance(picture.figure, Figure)
    assert picture.title.startswith("small/../<net>: ")
    assert "small/../<net>" in picture.description
    assert picture._repr_svg_().encode() == picture.to_bytes()


@pytest.mark.parametrize("format", PICTURE_FORMATS)
@pytest.mark.parametrize("kind", ["architecture", "compare"])
def test_the_same_network_is_the_same_file(kind: str, format: str) -> None:
    """To the byte, drawn twice and written twice."""
    first = vggkit.plot(SMALL, kind=kind)
    assert first.to_bytes(format) == vggkit.plot(SMALL, kind=kind).to_bytes(format) == first.to_bytes(format)


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_files_ending_says_its_format(ending: str, start: bytes, tmp_path: Path) -> None:
    """In any letter case."""
    path = tmp_path / f"picture.{ending}"
    vggkit.plot(SMALL).save(path)
    assert path.read_bytes().startswith(start)


def test_another_ending_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    """So is another format."""
    picture = vggkit.plot(SMALL)
    with pytest.raises(vggkit.ArgumentError, match=r"ends in \.svg, \.png, \.pdf, \.tex, \.mmd or \.md, found "):
        picture.save(tmp_path / "x.gif")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(vggkit.ArgumentError, match="format: expected one of svg, png, pdf, tikz, mermaid, found 'gif'"):
        picture.to_bytes("gif")


def test_a_pictures_name_is_one_for_a_file() -> None:
    """After the networks and the kind, short, and without what a file system could misread."""
    assert vggkit.plot(SMALL, kind="cost").name == "small_..__net_-cost"
    assert vggkit.plot("D", flat=True).name == "D-flat"
    assert vggkit.plot("A", "A-LRN", kind="compare").name == "A-A-LRN-compare"
    assert len(vggkit.plot(*["A-LRN"] * 20, kind="compare").name) < 70
    hidden = vggkit.loads("{name: ..hidden, blocks: [[conv3-4]]}")
    assert vggkit.plot(hidden).name == "hidden-architecture"


def test_options_reach_the_figures() -> None:
    """Batch and dtype are in the title, changes in the network."""
    picture = vggkit.plot("A", kind="cost", batch=64, dtype="float16", num_classes=10)
    assert picture.title == "A: 3×224×224, batch 64, float16"
    summary = vggkit.summarize("A", batch=64, dtype="float16", num_classes=10)
    assert f"{summary.totals.parameters:,}" in picture.description
    assert "small/../<net>" in vggkit.plot(SMALL, "A", kind="compare").description


def test_compare_draws_all_six_if_none_is_named() -> None:
    """In the paper's order."""
    assert vggkit.plot(kind="compare").title == "A, A-LRN, B, C, D, E: batch 1, float32, sgd-momentum"


@pytest.mark.parametrize("kind", ["architecture", "cost", "receptive"])
def test_a_network_of_thousands_of_layers_is_not_drawn(kind: str) -> None:
    """A picture of them takes minutes, and nobody can read it."""
    config = vggkit.loads(f"{{name: long, input: 3x8x8, blocks: [[{', '.join(['tanh'] * 1001)}]]}}")
    with pytest.raises(vggkit.ArgumentError, match="long: expected up to 1,000 layers in a picture, found 1,001"):
        vggkit.plot(config, kind=kind)


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        (
            ["D"],
            {"kind": "costs"},
            "kind: expected one of architecture, cost, compare, receptive, found 'costs'. Did you",
        ),
        ([], {}, "kind architecture: expected one network, found 0; kind compare draws several"),
        (["D", "E"], {"kind": "cost"}, "kind cost: expected one network, found 2; kind compare draws several"),
        (["D"] * 21, {"kind": "compare"}, "kind compare: expected up to 20 networks, found 21"),
        (["D"], {"kind": "cost", "flat": True}, "flat: needs kind architecture, found cost"),
        (["D"], {"batch": 2}, "batch: needs kind cost or compare, found architecture"),
        (
            ["D"],
            {"kind": "receptive", "dtype": "float16"},
            "dtype: needs kind cost or compare, found recept",
        ),
        (["D"], {"kind": "cost", "batch": 0}, "batch: expected a whole number from 1"),
        (["D"], {"kind": "compare", "dtype": "int8"}, "dtype: expected one of float32"),
        (["Q"], {}, "unknown configuration 'Q'"),
    ],
)
def test_what_makes_no_sense_is_refused(sources: list[str], options: dict[str, Any], message: str) -> None:
    """With what was found and what was expected."""
    with pytest.raises((vggkit.ArgumentError, vggkit.ConfigError)) as caught:
        vggkit.plot(*sources, **options)
    assert str(caught.value).startswith(message)


def test_a_picture_can_be_made_from_any_figure() -> None:
    """It is no more than its parts."""
    picture = Picture(lambda: Figure(figsize=(1, 1)), "title", "description", "name")
    assert "<title" in picture.to_bytes().decode()


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_the_largest_numbers_can_be_drawn(kind: str) -> None:
    """Counts far beyond what a processor's integers hold."""
    huge = vggkit.loads("{input: 3x1000000000x7, blocks: [[conv3-1000000000000000, conv3-100000000000000000]]}")
    assert vggkit.plot(huge, kind=kind).to_bytes()


def test_the_help_names_every_kind() -> None:
    """So does the message about any other."""
    said = " ".join(printed("plot", "--help").split())
    *first, last = PICTURE_KINDS
    assert f"{', '.join(first)} or {last}." in said


DEPTH = '''"""A line for each layer."""


def figure(summary):
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(2, 2))
    drawn.add_subplot().barh(range(len(summary)), [row.output_shape[0] for row in summary])
    return drawn


def title(summary):
    return summary.title


def description(summary):
    return f"The channels of {len(summary)} rows."
'''

USE = """
import pathlib, vggkit
from click.shell_completion import BashComplete
from vggkit.cli import main
picture = vggkit.plot("D", kind="depth")
assert picture.to_bytes().startswith(b"<?xml") and (picture.name, picture.description[:3]) == ("D-depth", "The")
offered = BashComplete(main, {}, "vggkit", "_").get_completions(["plot", "D", "--kind"], "d")
assert [item.value for item in offered] == ["depth"]
main(["plot", "D", "--kind", "depth", "-o", "drawn.png"], standalone_mode=False)
assert pathlib.Path("drawn.png").read_bytes().startswith(b"\\x89PNG")
"""


def test_a_new_kind_is_a_module_and_its_line_in_the_table(tmp_path: Path) -> None:
    """It is drawn, written, completed and offered by the command."""
    pictures = scratch.package(tmp_path) / "pictures"
    (pictures / "depth.py").write_text(DEPTH, encoding="utf-8")
    scratch.add(pictures / "plot.py", "from vggkit.pictures import architecture", "from vggkit.pictures import depth\n")
    scratch.add(pictures / "plot.py", '    "receptive": PictureKind', '    "depth": PictureKind(depth, _rows),\n')
    scratch.run(tmp_path, USE)
