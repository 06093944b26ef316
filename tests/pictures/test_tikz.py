"""The architecture as TikZ: what pdflatex makes of it, and that PlotNeuralNet's words are used."""

from __future__ import annotations

import re
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import vggkit
from tests import drawn, judges
from tests.conftest import sample
from tests.pictures.drawings import ODD, SIX, network, shown
from vggkit.pictures.parts import category, groups

PLOT_NEURAL_NET = {
    "name", "caption", "xlabel", "ylabel", "zlabel", "width", "height", "depth", "scale", "fill", "opacity", "bandfill",
    "bandopacity",
}  # fmt: skip
"""The keys of its pics `Box` and `RightBandedBox`, by layers/Box.sty and layers/RightBandedBox.sty there."""

PIC = re.compile(r"^\\pic\[shift=\{\((.*),0,0\)\}\] at (\S+) \{(Box|RightBandedBox)=\{(.*)\}\};$", re.MULTILINE)
KEY = re.compile(r"(\w+)=(\{\{.*?\}\}|\{.*?\}|[^,]*)")


def tikz(source: Any) -> str:
    """Return a network's document."""
    return vggkit.plot(source).to_bytes("tikz").decode()


def pics(text: str) -> list[dict[str, str]]:
    """Return the keys of each pic of a document, with the word for it and its place."""
    return [
        {"pic": word, "shift": shift, "at": place, **dict(KEY.findall(keys))}
        for shift, place, word, keys in PIC.findall(text)
    ]


def compiled(text: str, folder: Path) -> bytes:
    """Return what pdflatex makes of a document."""
    pdflatex = judges.program("pdflatex")
    if subprocess.run(["kpsewhich", "tikz.sty"], capture_output=True, check=False).returncode:
        judges.missing("LaTeX's package tikz is not installed")
    (folder / "picture.tex").write_text(text, encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "picture.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = (folder / "picture.log").read_bytes()
    assert done.returncode == 0, log.decode(errors="replace")[-2000:]
    assert b"Missing character" not in log
    assert b"Overfull" not in log
    return (folder / "picture.pdf").read_bytes()


def streams(pdf: bytes) -> list[bytes]:
    """Return the content of a PDF's streams: its pages, and what it says of them."""
    return [
        zlib.decompressobj().decompress(stream)
        for stream in re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    ]


LIGATURES = {"013": "ff", "014": "fi", "015": "fl", "016": "ffi", "017": "ffl"}
"""What TeX's fonts have as one letter, by its octal number (encoding OT1)."""


def words(pdf: bytes) -> Counter[str]:
    """Return the texts of a PDF's pages, each as often as it is set: TeX sets each node's in one piece."""
    found: Counter[str] = Counter()
    for stream in streams(pdf):
        for pieces in re.findall(rb"\[((?:\([^)]*\)|[-\d.]+)+)\]TJ", stream):
            text = b"".join(re.findall(rb"\(([^)]*)\)", pieces)).decode("latin-1")
            found[re.sub(r"\\(01[3-7])", lambda code: LIGATURES[code[1]], text)] += 1
    return found


def together(texts: Sequence[str]) -> str:
    """Return one document with a page for each of several, which begin alike."""
    start, end = "\\begin{lrbox}", "\\end{document}"
    pages = [text[text.index(start) : text.index(end)] for text in texts]
    return "\n".join([texts[0][: texts[0].index(start)], *pages, end])


def check_words(said: Counter[str], nets: Sequence[vggkit.Network]) -> None:
    """Hold that channels, units and names are written once each, and beside them sides of maps alone."""
    labels: Counter[str] = Counter()
    sides: set[str] = set()
    for net in nets:
        rows = shown(net)
        labels.update(str(row.output_shape[0]) for row in rows if category(row) in OWN)
        labels.update(names(net))
        sides.update(str(side) for row in rows for side in row.output_shape[1:])
    assert labels - said == Counter()
    assert set(said - labels) <= sides


OWN = ("input", "convolution", "fully connected", "soft-max")
"""The categories whose layers have channels or units of their own."""


def names(net: vggkit.Network) -> list[str]:
    """Return what is written below each group."""
    return [group.name for group in groups(vggkit.summarize(net, expand=True))]


COMPILED = {name: network(name) for name in (*SIX, *ODD) if name != "twenty blocks"}


@pytest.mark.parametrize("name", sample([*COMPILED], ["D", "batch norm", "named", "trunk"]))
def test_pdflatex_draws_one_page_that_says_what_each_layer_is(name: str, tmp_path: Path) -> None:
    """In a page as large as the picture. Nothing but LaTeX and TikZ is asked for."""
    text = tikz(COMPILED[name])
    assert re.findall(r"^\\usepackage.*", text, re.MULTILINE) == ["\\usepackage{tikz}"]
    pdf = compiled(text, tmp_path)
    assert len(re.findall(rb"/Type\s*/Page\b", b"".join(streams(pdf)))) == 1
    check_words(words(pdf), [COMPILED[name]])


@pytest.mark.parametrize("examples", sample([3, 12], [3]))
def test_pdflatex_draws_whatever_can_be_written(examples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Drawn networks, several in a document; the first that hypothesis draws are its simplest."""

    @given(st.lists(drawn.networks(), min_size=4, max_size=4))
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def check(nets: list[vggkit.Network]) -> None:
        folder = tmp_path_factory.mktemp("drawn")
        check_words(words(compiled(together([*map(tikz, nets)]), folder)), nets)

    check()


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_the_words_are_plot_neural_nets(name: str) -> None:
    """Its two pics with its keys, its names of colours, and its arrows; so its own styles draw the picture, too."""
    text = tikz(network(name))
    for pic in pics(text):
        assert {*pic} - {"pic", "shift", "at"} <= PLOT_NEURAL_NET
        assert ("bandfill" in pic) == (pic["pic"] == "RightBandedBox")
        assert re.fullmatch(r"\\(Input|Conv|Norm|ConvRelu|Pool|Fc|Softmax)Color", pic["fill"])
    assert text.count("\\draw[connection]") == len(names(network(name))) - 1


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_every_layer_is_a_cuboid_or_the_band_of_one(name: str) -> None:
    """In order: a pic's name is its first layer's, and it has a width for each of its layers."""
    rows = shown(network(name))
    first = {row.name: place for place, row in enumerate(rows)}
    starts = [first[pic["name"]] for pic in pics(tikz(network(name)))]
    assert starts == sorted(starts)
    for pic, start, end in zip(pics(tikz(network(name))), starts, [*starts[1:], len(rows)]):
        bands = [row for row in rows[start:end] if category(row) == "activation" and row is not rows[start]]
        assert len(pic["width"].split(",")) == end - start - len(bands)


def test_an_activation_with_memory_of_its_own_is_a_band_too() -> None:
    """Behind a layer; where it stands alone, behind the input or a dropout, it is a box."""
    net = "{input: 3x8x8, blocks: [[gelu, {conv: 4, activation: gelu}, {dropout: 0.5}, gelu]]}"
    found = {pic["name"]: (pic["pic"], pic["fill"]) for pic in pics(tikz(vggkit.loads(net)))}
    alone = ("Box", r"\ConvReluColor")
    assert found == {
        "input": ("Box", r"\InputColor"),
        "block1_gelu": alone,
        "block1_conv1": ("RightBandedBox", r"\ConvColor"),
        "block1_gelu1_2": alone,
    }


def test_a_larger_map_is_a_larger_cuboid() -> None:
    """And as PlotNeuralNet draws them, layers of a block touch, and blocks stand apart."""
    found = {pic["name"]: pic for pic in pics(tikz("D"))}
    names = ["block1_conv1", "block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool"]
    heights = [float(found[name]["height"]) for name in names]
    assert heights == sorted(heights, reverse=True)
    # a side's root, written with four digits
    assert heights[0] == pytest.approx(2 * float(found["block3_conv1"]["height"]), rel=1e-3)
    assert found["block1_conv1"]["xlabel"] == '{{"64","64"}}'
    assert found["block1_pool"]["at"] == "(block1_conv1-east)"
    assert found["block1_pool"]["shift"] == "0"
    assert float(found["block2_conv1"]["shift"]) > 1


@pytest.mark.parametrize(
    "name",
    [r"\undefined ^^M \end{document}", "a\n\\undefined", "\u2028\\undefined\x85\\undefined", "\udcff%", "x" * 10_000],
    ids=["commands", "a line", "other lines", "half a character", "long"],
)
def test_a_name_is_no_command(name: str, tmp_path: Path) -> None:
    """It stands in a comment, on one line."""
    config = msgspec.structs.replace(vggkit.loads("blocks: [[{conv: 4, name: a_b}]]"), name=name)
    text = tikz(config)
    assert text.splitlines()[2].startswith("\\documentclass")
    assert "caption=block1" in text
    compiled(text, tmp_path)


def test_a_layers_name_is_typeset(tmp_path: Path) -> None:
    """An underscore is no index."""
    text = tikz(vggkit.loads("classifier: [{fc: 4, name: my_first_fc}]"))
    assert r"caption=my\_first\_fc" in text
    assert words(compiled(text, tmp_path))["4"] == 1


def test_what_tex_has_no_memory_for_is_refused(tmp_path: Path) -> None:
    """Ten layers of equal maps are one pic, and count once; nothing is written."""
    long = ", ".join(["tanh"] * 401)
    with pytest.raises(vggkit.ArgumentError, match=r"^long: expected up to 400 rows of cuboids in a TikZ picture,"):
        vggkit.plot(vggkit.loads(f"{{name: long, blocks: [[{long}]]}}")).save(tmp_path / "long.tex")
    assert list(tmp_path.iterdir()) == []
    assert tikz(vggkit.loads(f"{{input: 3x8x8, blocks: [[{', '.join(['conv3-4'] * 499)}]]}}"))


def test_a_long_picture_is_narrower_than_texs_longest_length() -> None:
    """575 centimetres; the gaps between blocks shrink with the widths."""
    blocks = ", ".join(["[conv1-1000000]"] * 150)
    text = tikz(vggkit.loads(f"{{input: 3x8x8, blocks: [{blocks}]}}"))
    lengths = [float(pic["shift"]) + 0.2 * float(pic["width"].strip("{}")) for pic in pics(text)]
    assert 440 < sum(lengths) < 460


def test_the_document_of_d(golden: Callable[[str, str], None]) -> None:
    """To read, and to see what changes."""
    golden("plot-D.tex", tikz("D"))
