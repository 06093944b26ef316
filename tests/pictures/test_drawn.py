"""Pictures of networks: every layer is drawn, each number is in the data, sizes are to scale, no text is in the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle, Wedge
from matplotlib.text import Text

import vggkit
from tests import drawn
from tests.pictures.written import check_texts, texts, words
from vggkit.base.numbers import grouped, megabytes, percent, shortened
from vggkit.notation.zoo import family_names
from vggkit.pictures import scatter
from vggkit.pictures.parts import wrapped
from vggkit.pictures.style import printable

SIX = ("A", "A-LRN", "B", "C", "D", "E")
KINDS = ("architecture", "flat", "cost", "receptive")

THIRTY = ", ".join(
    f"[{', '.join([f'conv3-{channels}'] * count)}, maxpool]"
    for channels, count in ((4, 6), (64, 7), (512, 7), (4096, 8))
)
ODD = {
    "CIFAR": "{extends: D, input: 3x32x32, overrides: {num_classes: 10}}",
    "batch norm": "{extends: E, overrides: {batch_norm: true}}",
    "gap": "{extends: D, overrides: {head: gap}, input: 3x1080x1920}",
    "trunk": "{input: 1x20x90, blocks: [[conv3-4, {maxpool: 2x1}], [{conv: 4, kernel: 1x5, padding: 0, stride: 1x2}]]}",
    "five layers": "{input: 1x28x28, blocks: [[conv3-8, maxpool], [conv3-16, maxpool]], classifier: [FC-32, FC-10]}",
    "thirty layers": f"{{input: 3x64x64, blocks: [{THIRTY}], classifier: [FC-4096, FC-10, soft-max]}}",
    "one block": f"{{input: 3x8x8, blocks: [[{', '.join(['conv3-64'] * 30)}]]}}",
    "twenty blocks": f"{{input: 3x8x8, blocks: [{', '.join(['[conv1-4, gelu]'] * 20)}], classifier: [FC-4096]}}",
    "one layer": "{input: 3x8x8, classifier: [FC-3]}",
    "wide": "{input: 1x9x9, blocks: [[{conv: 1000000, norm: group, activation: tanh}]], classifier: [FC-100000]}",
    "named": "{name: 'a long name, $x^2$ $\\foo$ \\u0001 <&> 网络', input: 3x8x8, blocks: [[{conv: 4, name: first}]]}",
}


EACH_KIND = [
    pytest.param(name, kind, marks=[] if number % len(KINDS) == place or name == "D" else pytest.mark.slow)
    for number, name in enumerate([*SIX, *ODD])
    for place, kind in enumerate(KINDS)
]
"""All of them in every kind; but for D's, all but one picture of each are slow."""


@cache
def network(name: str) -> vggkit.Network:
    """Return one of the six, or an odd one."""
    return vggkit.Network.of(vggkit.loads(ODD[name]) if name in ODD else name)


def figure(source: Any, kind: str, **options: Any) -> Figure:
    """Draw one network, if it is not drawn yet."""
    return kept(source, kind) if isinstance(source, str) and not options else draw(source, kind, **options)


@cache
def kept(name: str, kind: str) -> Figure:
    """Draw one of the six, or an odd one, once for all tests."""
    return draw(network(name), kind)


def draw(source: Any, kind: str, **options: Any) -> Figure:
    """Draw one network."""
    return vggkit.plot(source, kind="architecture" if kind == "flat" else kind, flat=kind == "flat", **options).figure


def shown(source: Any) -> list[Any]:
    """Return the rows that must be in a picture of the layers: those of the summary, and what ends in probabilities."""
    of_summary = {row.name for row in vggkit.summarize(source)}
    rows = vggkit.summarize(source, expand=True)
    return [row for row in rows if row.name in of_summary or "soft-max" in row.kind]


def outlines(figure: Figure, ending: str) -> dict[str, Any]:
    """Return the outlines whose label ends so, by the rest of the label: their corners in inches."""
    found: dict[str, Any] = {}
    for patch in figure.findobj(Polygon):
        name = str(patch.get_label()).removesuffix(ending)
        if name and str(patch.get_label()).endswith(ending) and not name.startswith("_"):
            assert name not in found
            found[name] = patch.get_xy()
    return found


def extents(corners: Any) -> tuple[float, float]:
    """Return width and height of an outline."""
    width, height = corners.max(axis=0) - corners.min(axis=0)
    return float(width), float(height)


def bars(figure: Figure, panel: int) -> list[float]:
    """Return the lengths of a panel's bars."""
    axes = [axes for axes in figure.axes if any(isinstance(patch, Rectangle) for patch in axes.patches)][panel]
    return [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]


def rising(pairs: Sequence[tuple[float, float]]) -> bool:
    """Tell whether what is larger in the first is larger in the second, down to a smallest size, and equal is equal."""
    smallest = min((size for _, size in pairs), default=0.0) + 1e-9
    return all(
        (a[0] < b[0]) <= (a[1] + 1e-9 < b[1] or b[1] <= smallest) and (a[0] == b[0]) <= (abs(a[1] - b[1]) < 1e-9)
        for one, other in combinations(pairs, 2)
        for a, b in ((one, other), (other, one))
    )


# Texts


@pytest.mark.parametrize(("name", "kind"), EACH_KIND)
def test_no_text_leaves_the_canvas_or_covers_another(name: str, kind: str) -> None:
    """By the boxes that the renderer gives."""
    check_texts(figure(name, kind))


@given(drawn.networks(), st.sampled_from(KINDS))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_of_any_network_is_in_the_way(net: vggkit.Network, kind: str) -> None:
    """The same for whatever can be written."""
    check_texts(figure(net, kind))


def formatted(numbers: set[int]) -> set[str]:
    """Return every way in which a count, or an amount of bytes, may be written."""
    spelt = {spell(number) for number in numbers for spell in (str, grouped, shortened, megabytes)}
    return {match for text in spelt for match in NUMBER.findall(text)}


NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")


@pytest.mark.parametrize(("name", "kind"), EACH_KIND)
def test_every_number_is_in_the_data(name: str, kind: str) -> None:
    """What is left of the texts without names and notations are numbers of the summary's rows and totals."""
    net = network(name)
    rows = vggkit.summarize(net, expand=True).rows
    totals = vggkit.summarize(net).totals
    counts = [totals.parameters, totals.multiply_accumulates, totals.activation_bytes]
    figures = set(totals.to_dict()["layers_by_kind"].values()) | {totals.weight_layers, *counts}
    for row in rows:
        figures |= {*row.output_shape, *row.receptive_field, *row.stride}
        figures |= {row.parameters, row.multiply_accumulates, row.activation_bytes}
    shares = {
        percent(value, whole).removesuffix(" %")
        for row in rows
        for value, whole in zip((row.parameters, row.multiply_accumulates, row.activation_bytes), counts)
        if whole
    }
    allowed = formatted(figures) | (shares if kind == "cost" else set())
    allowed |= set(re.findall(r"[0-9]+", "float32")) | ({"1"} if kind == "cost" else set())  # batch 1
    known = {row.notation for row in rows[1:]} | {row.name for row in rows[1:]}
    blocks = {row.block for row in rows if row.block}
    for text in words(figure(name, kind)):
        part = text in blocks or any(text.startswith(word[:29]) or text in word for word in known)
        if part and not text[0].isdigit():
            assert text.partition(" ×")[2] in {"", *map(str, range(2, len(rows)))}
            continue
        text = text.removeprefix(printable(net.name))
        text = re.sub("most (parameters|MACs|activations): [^,·]*,", "", text)  # a layer's name, and how many tie
        assert set(NUMBER.findall(text)) <= allowed, text


# Architecture


@pytest.mark.parametrize("kind", ["architecture", "flat"])
@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_every_layer_is_drawn_once_and_in_order(name: str, kind: str) -> None:
    """The input, whatever has parameters or an output of its own, and soft-max."""
    net = network(name)
    drawn_layers = list(outlines(figure(name, kind), " front" if kind == "architecture" else ""))
    assert drawn_layers == [row.name for row in shown(net)]


def check_sizes(net: vggkit.Network) -> None:
    """Hold that what is larger is drawn larger."""
    rows = shown(net)
    drawing = figure(net, "architecture")
    fronts, tops = outlines(drawing, " front"), outlines(drawing, " top")
    maps = [row for row in rows if len(row.output_shape) == 3]
    weights = [row for row in rows if row.kind in ("input", "conv", "fc", "soft-max")]
    assert rising([(row.output_shape[0], extents(fronts[row.name])[0]) for row in weights])
    assert rising([(row.output_shape[1], extents(fronts[row.name])[1]) for row in maps])
    assert rising([(row.output_shape[2], extents(tops[row.name])[1]) for row in maps])


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_cuboids_are_as_thick_high_and_deep_as_their_layers(name: str) -> None:
    """More channels are thicker, more rows higher, more columns deeper; equal ones are equal."""
    check_sizes(network(name))


@given(drawn.networks())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_networks_cuboids_are_as_large_as_its_layers(net: vggkit.Network) -> None:
    """The same for whatever can be written."""
    check_sizes(net)


def test_cuboids_grow_with_the_square_root() -> None:
    """In D a side of 224 pixels is four times as high as one of 14, and 512 channels twice as thick as 128."""
    fronts = outlines(figure("D", "architecture"), " front")
    # approximately, here and below: places on a canvas are in floating point
    assert extents(fronts["block1_conv1"])[1] == pytest.approx(4 * extents(fronts["block5_conv1"])[1])
    assert extents(fronts["block4_conv1"])[0] == pytest.approx(2 * extents(fronts["block2_conv1"])[0])


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_cuboids_of_different_blocks_stay_apart(name: str) -> None:
    """From left to right; none hides the one before it."""
    net = network(name)
    drawing = figure(name, "architecture")
    fronts, sides = outlines(drawing, " front"), outlines(drawing, " side")
    rows = shown(net)
    for before, after in pairwise(rows):
        if before.block != after.block:
            same = [row.name for row in rows if row.block == before.block and before.block] or [before.name]
            assert max(sides[name][:, 0].max() for name in same) < fronts[after.name][:, 0].min() + 1e-9


FAMILY = (
    "cifar_vgg16_gn",
    "ssd300_vgg16_base",
    "slim_vgg19_p0.4",
    "panns_cnn14_trunk",
    "repvgg_a0_deploy",
    "cnn_f",
    "allcnn_c",
)


@pytest.mark.parametrize("name", [*SIX, *ODD, *FAMILY])
def test_what_a_layer_makes_smaller_stands_on_the_face_before_it(name: str) -> None:
    """A pool's plate, with what stands on it, is seen inside the volume's side; it hangs over no edge."""
    drawing = figure(name, "architecture")
    sides = outlines(drawing, " side")
    parts = {ending: outlines(drawing, f" {ending}") for ending in ("front", "top", "side")}
    face = None
    plates = 0
    for row in shown(network(name)):
        if len(row.output_shape) < 3 or row.layer is None:
            continue
        slim = row.layer.role != "weight"
        if slim and face and row.block and row.block == face.block and smaller(sides[row.name], sides[face.name]):
            corners = [corner for part in parts.values() for corner in part[row.name]]
            assert all(inside(corner, sides[face.name]) for corner in corners), row.name
            plates += 1
        else:
            face = row
    assert plates or name not in (*SIX, *FAMILY[:2])


def smaller(side: Any, other: Any) -> bool:
    """Tell whether a cuboid's side is lower and less deep than another's."""
    (depth, _), (other_depth, _) = extents(side), extents(other)
    return depth < other_depth - 1e-9 and bool(side[2][1] - side[1][1] < other[2][1] - other[1][1] - 1e-9)


def inside(point: Any, outline: Any) -> bool:
    """Tell whether a point is in a convex outline whose corners go around to the left."""
    return all(
        (end[0] - start[0]) * (point[1] - start[1]) >= (end[1] - start[1]) * (point[0] - start[0]) - 1e-9
        for start, end in pairwise(outline)
    )


@pytest.mark.parametrize("name", SIX)
def test_gaps_are_even(name: str) -> None:
    """From one block to the next, and from one FC layer to the next."""
    fronts, sides = (outlines(figure(name, "architecture"), ending) for ending in (" front", " side"))
    rows = shown(network(name))
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for before, after in pairwise(rows):
        if before.block is None or before.block != after.block:
            same = [row.name for row in rows if row.block == before.block and before.block] or [before.name]
            end = max(sides[name][:, 0].max() for name in same)
            gaps[after.block is not None].append(fronts[after.name][:, 0].min() - end)
    for found in gaps.values():
        assert min(found) > 0.1
        assert found == pytest.approx([found[0]] * len(found))  # places on a canvas are in floating point


@pytest.mark.parametrize("name", [*SIX, *FAMILY])
def test_every_volume_has_its_size_above_it(name: str) -> None:
    """Height and width of its maps, channels if all have as many; where a second volume has no room, it is below."""
    drawing = figure(name, "architecture")
    tops = outlines(drawing, " top")
    said = [(text.get_text(), text.get_position()) for text in texts(drawing)]
    for row in shown(network(name)):
        if row.kind in ("input", "conv") and len(row.output_shape) == 3:
            size = "×".join(map(str, row.output_shape))
            sizes = (size, size.partition("×")[2])
            high = tops[row.name][:, 1].max()
            above = any(word in sizes and high < y < high + 0.2 for word, (_, y) in said)
            assert above or f"→ {size}" in words(drawing), row.name


@pytest.mark.parametrize("name", [*SIX, *ODD, *FAMILY])
def test_no_text_lies_on_a_volume(name: str) -> None:
    """Names, sizes and layers are read against the paper."""
    drawing = figure(name, "architecture")
    cuboids = [patch for patch in drawing.findobj(Polygon) if not str(patch.get_label()).startswith("_")]
    paths = [patch.get_transform().transform_path(patch.get_path()) for patch in cuboids]
    for text, box in texts(drawing).items():
        assert not any(path.intersects_bbox(box) for path in paths), text


def test_a_notation_breaks_behind_its_commas() -> None:
    """SSD's dilated convolution is not torn between a word and its number."""
    said = words(figure("ssd300_vgg16_base", "architecture"))
    start = said.index("block6")
    assert said[start : start + 5] == ["block6", "conv3-1024,", "dilation 6", "conv1-1024", "→ 1024×19×19"]
    assert wrapped("maxpool 3, stride 1, padding 1", 20) == ["maxpool 3, stride 1,", "padding 1"]
    assert wrapped("a word that, however one turns it, is long", 9) == [
        "a word", "that,", "however", "one turns", "it,", "is long",
    ]  # fmt: skip


def test_a_block_is_labelled_with_its_layers_and_its_output() -> None:
    """As in the paper's words; equal layers are counted."""
    said = words(figure("C", "architecture"))
    start = said.index("block3")
    assert said[start : start + 5] == ["block3", "conv3-256 ×2", "conv1-256", "maxpool", "→ 256×28×28"]
    assert said[said.index("fc1") :][:3] == ["fc1", "FC-4096", "→ 4096"]
    assert "138,357,544 parameters" in " ".join(words(figure("D", "architecture")))


class Outputs(torch.nn.Module):
    """Runs a model and remembers the shape that comes out of each layer of some types."""

    TYPES = (
        torch.nn.Conv2d, torch.nn.MaxPool2d, torch.nn.Linear, torch.nn.BatchNorm2d, torch.nn.LocalResponseNorm,
    )  # fmt: skip

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.shapes: list[str] = []
        for module in model.modules():
            if isinstance(module, self.TYPES):
                module.register_forward_hook(self.remember)
        model(torch.zeros(1, 3, 224, 224, device="meta"))

    def remember(self, module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        """Note a shape."""
        self.shapes.append("×".join(map(str, output.shape[1:])))


@pytest.mark.parametrize("name", ["A-LRN", "C", "D", "vgg19_bn"])
def test_the_shapes_in_the_boxes_are_those_of_the_built_model(name: str) -> None:
    """Torch's own tensors, layer by layer; the input stands before them and soft-max behind them."""
    boxes = [text for text in words(figure(name, "flat")) if re.fullmatch("[0-9]+(×[0-9]+×[0-9]+)?", text)]
    assert boxes[1:-1] == Outputs(vggkit.build(name, device="meta")).shapes


# Cost


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_the_costs_bars_are_as_long_as_the_figures(name: str) -> None:
    """In each panel, a bar per row of the summary, in their order."""
    net = network(name)
    rows = vggkit.summarize(net, batch=3, dtype="float16").rows
    drawing = figure(net, "cost", batch=3, dtype="float16")
    assert bars(drawing, 0) == [row.parameters for row in rows]
    assert bars(drawing, 1) == [row.multiply_accumulates for row in rows]
    assert bars(drawing, 2) == [row.activation_bytes for row in rows]


def test_the_largest_costs_are_written_with_their_shares() -> None:
    """The first FC layer holds three quarters of D's parameters, the first convolutions two fifths of its memory."""
    said = words(figure("D", "cost"))
    assert {"102.76 M (74.3 %)", "16.78 M (12.1 %)", "4.10 M (3.0 %)"} <= set(said)
    assert said.count("12.85 MB (21.1 %)") == 2
    assert any("most parameters: fc1, 74.3 %" in text for text in said)


@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_what_ties_for_the_most_is_bold_alike(name: str) -> None:
    """Every layer that has most, and none where all that have any have as much; the subtitle counts them."""
    rows = vggkit.summarize(network(name)).rows
    drawing = figure(name, "cost")
    subtitle = next((text for text in words(drawing) if "most " in text), "")
    panels = [axes for axes in drawing.axes if any(isinstance(patch, Rectangle) for patch in axes.patches)]
    for axes, what, word in zip(
        panels, ("parameters", "multiply_accumulates", "activation_bytes"), ("parameters", "MACs", "activations")
    ):
        values = [getattr(row, what) for row in rows]
        most = [number for number, value in enumerate(values) if value and value == max(values)]
        alike = len(most) > 1 and len(most) == sum(map(bool, values))
        bold = [round(text.xy[1] - 0.2) for text in axes.texts if text.get_weight() == "bold"]
        assert bold == ([] if alike else most)
        [said] = re.findall(f"most {word}: ([^·]*)", subtitle) or [""]
        others = f" and {len(most) - 1} other" if len(most) > 1 else ""
        assert bool(most) == bool(said)
        assert others in said
        assert (" each" in said) == (len(most) > 1)


def test_the_subtitle_says_how_many_tie() -> None:
    """Six convolutions of D do as much work, and the first two make as large maps."""
    assert "most MACs: block1_conv2 and 5 others, 12.0 % each" in " ".join(words(figure("D", "cost")))
    description = vggkit.plot("D", kind="cost").description
    assert "most in block1_conv1 and 1 other, 12.85 MB (21.1 %) each" in description


@pytest.mark.parametrize("kind", ["cost", "receptive"])
@pytest.mark.parametrize("name", [*SIX, *ODD])
def test_bars_end_inside_their_panels(name: str, kind: str) -> None:
    """No bar is cut off."""
    for axes in figure(name, kind).axes:
        assert all(
            0 <= patch.get_width() <= axes.get_xlim()[1] for patch in axes.patches if isinstance(patch, Rectangle)
        )


# Receptive field


def test_the_receptive_fields_bars_are_as_long_as_the_fields() -> None:
    """Field and stride of each row, in their order, each written, too; the input's size is a line."""
    rows = vggkit.summarize("E").rows
    drawing = figure("E", "receptive")
    assert bars(drawing, 0) == [row.receptive_field[0] for row in rows]
    assert bars(drawing, 1) == [row.stride[0] for row in rows]
    said = words(drawing)
    assert [text for text in said if text.isdigit()] == [
        str(value) for values in zip(*((row.receptive_field[0], row.stride[0]) for row in rows)) for value in values
    ]
    assert [list(line.get_xdata()) for axes in drawing.axes for line in axes.lines] == [[224, 224]]


def test_height_and_width_are_told_apart_where_they_differ() -> None:
    """Two bars per layer, both numbers, both sizes of the input."""
    rows = vggkit.summarize(network("trunk")).rows
    drawing = figure("trunk", "receptive")
    for panel, what in enumerate(("receptive_field", "stride")):
        pairs = [getattr(row, what) for row in rows]
        assert bars(drawing, panel) == [*(height for height, _ in pairs), *(width for _, width in pairs)]
    written = {
        str(height) if height == width else f"{height}×{width}"
        for row in rows
        for height, width in (row.receptive_field, row.stride)
    }
    assert {"height", "width", *written} <= set(words(drawing))
    assert [list(line.get_xdata()) for axes in drawing.axes for line in axes.lines] == [[20, 20], [90, 90]]


@pytest.mark.parametrize("name", [*SIX, *ODD, *FAMILY])
def test_no_line_runs_through_a_number(name: str) -> None:
    """Where the input's dashed line would, the number stands behind it."""
    drawing = figure(name, "receptive")
    boxes = texts(drawing)
    for axes in drawing.axes:
        for line in axes.lines:
            [(x, low), (_, high)] = line.get_transform().transform(line.get_xydata())
            width = line.get_linewidth() * drawing.dpi / 72
            for text, box in boxes.items():
                crossed = box.x0 < x + width / 2 and x - width / 2 < box.x1 and box.y0 < high and low < box.y1
                assert not crossed, text


# Compare


def bubbles(figure: Figure) -> dict[str, Wedge]:
    """Return the bubbles by their labels."""
    return {str(patch.get_label()): patch for patch in figure.findobj(Wedge)}


def test_bubbles_stand_at_their_figures_and_are_as_large_as_their_memory() -> None:
    """Position in the axes' own coordinates; area by peak of a training step."""
    drawing = vggkit.plot(kind="compare", batch=8).figure
    axes = drawing.axes[1]
    found = {name.split(",")[0]: patch for name, patch in bubbles(drawing).items()}
    assert set(found) == set(SIX)
    areas = set()
    for name, patch in found.items():
        x, y = axes.transData.inverted().transform(patch.get_data_transform().transform(patch.center))
        totals = vggkit.summarize(name, batch=8).totals
        # from pixels back to figures, in floating point
        assert (x, y) == pytest.approx((totals.parameters, totals.multiply_accumulates))
        areas.add(round(patch.r**2 / vggkit.memory(name, batch=8).peak_bytes * 1e15))
    assert len(areas) == 1


def sector(patch: Wedge) -> tuple[float, float]:
    """Return what is drawn of a circle, in degrees."""
    return patch.theta1, patch.theta2


def test_networks_at_one_place_share_a_circle() -> None:
    """A-LRN has A's parameters and MACs: half of the circle is A's, with its colour and its label on its side."""
    drawing = vggkit.plot(kind="compare").figure
    found = bubbles(drawing)
    assert sector(found["A, 10.4 %"]) == (90, 270)
    assert sector(found["A-LRN, 10.5 %"]) == (270, 450)
    assert {sector(found[name]) for name in found if not name.startswith("A")} == {(0, 360)}
    assert found["A, 10.4 %"].get_facecolor() != found["A-LRN, 10.5 %"].get_facecolor()
    middle = found["A, 10.4 %"].get_data_transform().transform(found["A, 10.4 %"].center)[0]
    boxes = {text.get_text(): box for text, box in texts(drawing).items()}
    assert boxes["A, 10.4 %"].x1 < middle < boxes["A-LRN, 10.5 %"].x0
    three = vggkit.plot("D", "D", "D", "A", kind="compare").figure
    assert sorted(map(sector, three.findobj(Wedge))) == [(0, 360), (90, 210), (210, 330), (330, 450)]


def test_the_legend_has_one_bubble_for_sizes_that_look_alike() -> None:
    """The six train in 1.64 to 1.79 GB; against cnn_f the difference is seen, and two are drawn."""
    alike = vggkit.plot(kind="compare").figure
    assert len(legend_of_sizes(alike)) == 1
    assert "1.64 GB\nto 1.79 GB" in words(alike)
    apart = vggkit.plot("D", "cnn_f", kind="compare").figure
    small, large = legend_of_sizes(apart)
    assert small / large == pytest.approx((739_949_136 / 1_719_651_084) ** 0.5, abs=1e-3)  # of sizes in three digits
    assert {"739.95 MB", "1.72 GB"} <= set(words(apart))


def legend_of_sizes(figure: Figure) -> list[float]:
    """Return the radii of the circles in the legend."""
    return [patch.radius for patch in figure.findobj(Circle)]


def luminance(colour: Sequence[float]) -> float:
    """Return how light a colour is."""
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def test_the_error_is_the_papers_and_darker_where_it_is_lower() -> None:
    """Table 3, trained and tested at 256, which all six have; the colours' bar goes from the best to the worst."""
    paper = {"A": 10.4, "A-LRN": 10.5, "B": 9.9, "C": 9.4, "D": 8.8, "E": 9.0}
    drawing = vggkit.plot(kind="compare").figure
    found = bubbles(drawing)
    assert set(found) == {f"{name}, {error} %" for name, error in paper.items()}
    light = sorted(found, key=lambda label: luminance(found[label].get_facecolor()))
    assert light == sorted(found, key=lambda label: paper[label.split(",")[0]])
    assert {"8.8", "10.5", "trained at 256, tested at 256"} <= set(words(drawing))
    assert len(drawing.findobj(QuadMesh)) == 1


def test_what_has_no_reported_error_is_hollow() -> None:
    """And the picture says so; without any error there is no bar of colours."""
    drawing = vggkit.plot("D", "vgg16_bn", kind="compare").figure
    found = bubbles(drawing)
    assert found["D-BN"].get_facecolor()[3] == 0
    assert found["D, 8.8 %"].get_facecolor()[3] == 1
    assert scatter.HOLLOW in words(drawing)
    plain = vggkit.plot("D", "A", kind="compare", num_classes=7).figure
    assert plain.findobj(QuadMesh) == []
    assert "top-5 error (%)" not in words(plain)
    assert scatter.HOLLOW not in words(vggkit.plot("D", kind="compare").figure)


LINE_UP = [
    list(SIX),
    ["D"],
    ["D", "D", "D"],
    ["A", "A-LRN"],
    [*SIX, *ODD],
    [*ODD],
    ["five layers", "E"],
    family_names()[::4],
]


@pytest.mark.parametrize("names", LINE_UP, ids=lambda names: f"{len(names)} from {names[0]}")
def test_labels_cover_neither_one_another_nor_a_bubble(names: list[str]) -> None:
    """Nor does any other text of the picture leave the canvas."""
    drawing = vggkit.plot(*map(network, names), kind="compare", batch=2).figure  # what torch can train
    check_texts(drawing)
    check_labels(drawing)


def check_labels(drawing: Figure) -> None:
    """Hold that no bubble's own square is under a label."""
    renderer: Any = drawing.canvas.get_renderer()
    circles = list(bubbles(drawing).values())
    labels = [text for text in texts(drawing) if text.get_text() in bubbles(drawing)]
    assert {label.get_text() for label in labels} == set(bubbles(drawing))
    for label in labels:
        box = Text.get_window_extent(label, renderer)
        assert not any(box.overlaps(circle.get_window_extent()) for circle in circles), label


@given(st.lists(st.one_of(drawn.networks(), st.sampled_from(SIX)), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_networks_can_be_compared(sources: list[Any]) -> None:
    """Also those without parameters or multiply-accumulates."""
    check_texts(vggkit.plot(*sources, kind="compare", batch=2).figure)


def test_every_number_of_a_comparison_is_in_the_data() -> None:
    """Ticks stand where they say; what else is written are the paper's errors, memory, and the options."""
    drawing = vggkit.plot(*SIX, kind="compare", batch=16, dtype="float64").figure
    said = words(drawing)
    axes = drawing.axes[1]
    ticks = list(ticks_of(axes.xaxis, 1e6)) + list(ticks_of(axes.yaxis, 1e9))
    assert all(float(text.replace("−", "-")) == value for text, value in ticks)
    peaks = {megabytes(vggkit.memory(name, batch=16, dtype="float64").peak_bytes).split()[0] for name in SIX}
    errors = {"10.4", "10.5", "9.9", "9.4", "8.8", "9.0", "5"}  # top-5
    allowed = peaks | errors | {"16", "64", "256"} | {text for text, _ in ticks}
    assert {number for text in said for number in NUMBER.findall(text)} <= allowed


def test_changes_stand_behind_a_name_as_in_compare() -> None:
    """And in the label of their bubble; what was changed has no reported error."""
    found = bubbles(vggkit.plot("D", "D:width=0.5", kind="compare").figure)
    assert set(found) == {"D, 8.8 %", "D:width=0.5"}


def ticks_of(axis: Any, unit: float) -> Iterator[tuple[str, float]]:
    """Return what stands at an axis, and where in its unit."""
    for tick in axis.get_major_ticks():
        if tick.label1.get_text():
            yield tick.label1.get_text(), pytest.approx(tick.get_loc() / unit)  # the axis is in floating point


# Files


@pytest.mark.parametrize("kind", [*KINDS, "compare"])
@pytest.mark.parametrize("name", ["A", "batch norm", "named"])
def test_an_svg_has_real_text_a_title_and_a_description(name: str, kind: str) -> None:
    """It is well-formed, a screen reader is told what it is, and everything written in it can be searched."""
    flat = kind == "flat"
    picture = vggkit.plot(network(name), kind="architecture" if flat else kind, flat=flat)
    root = ElementTree.fromstring(picture.to_bytes("svg"))
    space = "{http://www.w3.org/2000/svg}"
    title, description = root[0], root[1]
    assert (title.tag, description.tag) == (f"{space}title", f"{space}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert "\ufffd" in (title.text or "") or title.text == picture.title
    assert len(description.text or "") > 80
    said = ["".join(text.itertext()) for text in root.iter(f"{space}text")]
    assert sorted(said) == sorted(words(picture.figure))
