"""The network as cuboids: every layer is drawn, to scale, apart from the others and named."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from matplotlib.patches import Polygon

import vggkit
from tests import drawn
from tests.pictures.drawings import FAMILY, ODD, SIX, extents, figure, network, outlines, shown
from tests.pictures.written import texts, words
from vggkit.pictures.parts import wrapped


def rising(pairs: Sequence[tuple[float, float]]) -> bool:
    """Tell whether what is larger in the first is larger in the second, down to a smallest size, and equal is equal."""
    smallest = min((size for _, size in pairs), default=0.0) + 1e-9
    return all(
        (a[0] < b[0]) <= (a[1] + 1e-9 < b[1] or b[1] <= smallest) and (a[0] == b[0]) <= (abs(a[1] - b[1]) < 1e-9)
        for one, other in combinations(pairs, 2)
        for a, b in ((one, other), (other, one))
    )


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
