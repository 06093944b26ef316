"""Networks that are drawn in tests, and what is looked up in their pictures."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

import vggkit

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


FAMILY = (
    "cifar_vgg16_gn",
    "ssd300_vgg16_base",
    "slim_vgg19_p0.4",
    "panns_cnn14_trunk",
    "repvgg_a0_deploy",
    "cnn_f",
    "allcnn_c",
)


NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
