"""ONNX's operations, one by one: what layer each is. Windows and moves have files of their own.

Source: docs/Operators.md and docs/Changelog.md in onnx/onnx, from opset 1 on.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod

from vggkit.base.errors import LayerError, shorten
from vggkit.base.shapes import Shape, times
from vggkit.exchange.layers import dropout
from vggkit.exchange.onnx import moves, windows  # noqa: F401 # what they read is in READERS, then
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.readers import READERS, reads
from vggkit.exchange.onnx.schema import DTYPES
from vggkit.exchange.onnx.walk import Walk
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


def read(node: Node, walk: Walk) -> None:
    """Read an operation on the current value alone.

    Raises:
        LayerError: if no layer does what it does.
    """
    reader = READERS.get(node.op)
    if reader is None:
        raise LayerError(f"no layer of a configuration does that for an input of {times(walk.chain.shape)}")
    if node.inputs[0] != walk.current and node.op not in EITHER:
        raise LayerError("it takes its input as something else than values; a network here is a chain")
    reader(node, walk)


EITHER = ("Add", "Mul", "MatMul")
"""What may take the value as either of its inputs."""


# Layers with weights


@reads("Gemm")
def _(node: Node, walk: Walk) -> None:
    node.check(alpha=1.0, transA=0)
    inputs = walk.flat()
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2])
    if has_bias:
        node.check(beta=1.0)
    _linear(node, walk, inputs, turned=not node.integer("transB", 0), bias=node.inputs[2] if has_bias else None)


@reads("MatMul")
def _(node: Node, walk: Walk) -> None:
    first, second = node.inputs
    if second == walk.current:
        walk.average_height(first)
    elif walk.rows is not None:
        walk.average_width(node, second)
    else:
        _linear(node, walk, walk.flat(), turned=True, bias=None)


def _linear(node: Node, walk: Walk, inputs: int, *, turned: bool, bias: str | None) -> None:
    values = walk.tensor(node.inputs[1])
    values = values.turned() if turned else values
    if len(values.shape) != 2 or values.shape[1] != inputs:
        raise LayerError(f"expected weights for {inputs} inputs, found {times(values.shape)}")
    units = values.shape[0]
    held = {"weight": values} | ({} if bias is None else walk.held(bias=(bias, (units,))))
    walk.layer(node, notation.Linear(units, bias=bias is not None), held)


@reads("Add")
def _(node: Node, walk: Walk) -> None:
    walk.add_shift(node, next(name for name in node.inputs if name != walk.current))


@reads("Mul")
def _(node: Node, walk: Walk) -> None:
    factor = next(name for name in node.inputs if name != walk.current)
    if not walk.divide(factor):
        walk.multiply(node, factor)


@reads("Div")
def _(node: Node, walk: Walk) -> None:
    walk.multiply(node, walk.constants.inverted(node.inputs[1]))


@reads("Sub")
def _(node: Node, walk: Walk) -> None:
    walk.subtract(node, node.inputs[1])


# Normalisations


def _maps_or_flat(walk: Walk) -> Shape:
    walk.settle()
    return walk.chain.shape


@reads("BatchNormalization")
def _(node: Node, walk: Walk) -> None:
    node.check(training_mode=0, spatial=1)
    channels = _maps_or_flat(walk)[:1]
    names = zip(("weight", "bias", "running_mean", "running_var"), node.inputs[1:5])
    values = walk.held(**{role: (name, channels) for role, name in names})
    walk.layer(node, notation.BatchNorm(eps=node.number("epsilon", 1e-5)), values)


@reads("InstanceNormalization")
def _(node: Node, walk: Walk) -> None:
    x = walk.chain.shape
    groups = walk.shape[1]
    if walk.is_turned or len(walk.shape) < 3 or walk.shape[0] != walk.batch or x[0] % groups:
        raise LayerError(f"it normalises {times(walk.shape[1:])}; expected groups of channels")
    weight, bias = (walk.constants.small(name) for name in node.inputs[1:3])
    eps = node.number("epsilon", 1e-5)
    if weight is None or bias is None:
        raise LayerError("expected a scale and a shift that are known")
    if (weight == 1).all() and (bias == 0).all():
        walk.pointwise(node, notation.GroupNorm(groups, eps=eps, affine=False))
    elif groups == x[0]:
        layer = notation.GroupNorm(groups, eps=eps)
        walk.layer(node, layer, walk.held(weight=(node.inputs[1], x[:1]), bias=(node.inputs[2], x[:1])))
    else:
        raise LayerError("expected a scale and a shift of each channel")


@reads("GroupNormalization")
def _(node: Node, walk: Walk) -> None:
    if walk.opset < 21:
        raise LayerError("before opset 21 it has a scale of each group; expected one of each channel")
    channels = _maps_or_flat(walk)[:1]
    layer = notation.GroupNorm(node.integer("num_groups", 0), eps=node.number("epsilon", 1e-5))
    if layer.num_groups == 0:
        raise LayerError("expected num_groups")
    walk.layer(node, layer, walk.held(weight=(node.inputs[1], channels), bias=(node.inputs[2], channels)))


@reads("LRN")
def _(node: Node, walk: Walk) -> None:
    walk.maps()
    size = node.integer("size", 0)
    if size < 1 or size % 2 == 0:
        raise LayerError(f"size: expected an odd number, found {size}")
    layer = notation.LocalResponseNorm(
        size, alpha=node.number("alpha", 1e-4), beta=node.number("beta", 0.75), k=node.number("bias", 1.0)
    )
    walk.layer(node, layer)


# What each value has for itself

POINTWISE: dict[str, Callable[[Node], Layer]] = {
    "Relu": lambda _: notation.ReLU(),
    "Sigmoid": lambda _: notation.Sigmoid(),
    "Tanh": lambda _: notation.Tanh(),
    "LeakyRelu": lambda node: notation.LeakyReLU(negative_slope=node.number("alpha", 0.01)),
    "Elu": lambda node: notation.ELU(alpha=node.number("alpha", 1.0)),
    "Gelu": lambda node: notation.GELU(node.text("approximate", "none")),  # type: ignore[arg-type] # checked below
}
"""Activations, by the operation."""


@reads(*POINTWISE)
def _(node: Node, walk: Walk) -> None:
    if node.op == "Gelu" and node.text("approximate", "none") not in ("none", "tanh"):
        raise LayerError(f"approximate: expected none or tanh, found {shorten(node.text('approximate', ''))}")
    walk.pointwise(node, POINTWISE[node.op](node))


@reads("Swish")
def _(node: Node, walk: Walk) -> None:
    node.check(alpha=1.0)
    walk.pointwise(node, notation.SiLU())


@reads("Clip")
def _(node: Node, walk: Walk) -> None:
    bounds = [node.number("min", -inf), node.number("max", inf)]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            bounds[place] = walk.constants.number(name)
    low, high = bounds
    if (low, high) == (0, inf):
        walk.pointwise(node, notation.ReLU())
        return
    if -inf in bounds or inf in bounds:
        raise LayerError(f"expected two bounds, found {low:g} and {high:g}")
    walk.pointwise(node, notation.Hardtanh(min_val=low, max_val=high))


@reads("Dropout")
def _(node: Node, walk: Walk) -> None:
    rate = node.number("ratio", 0.5)
    if len(node.inputs) > 1 and node.inputs[1]:
        rate = walk.constants.number(node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2] and walk.constants.number(node.inputs[2]):
        raise LayerError("it drops values when it runs; expected training_mode false")
    walk.pointwise(node, dropout(rate, "ratio"))


@reads("Identity")
def _(*_: object) -> None:
    """Nothing is done."""


@reads("Cast")
def _(node: Node, _: Walk) -> None:
    found = DTYPES.get(node.integer("to", 0), "")
    if found != "float32":
        raise LayerError(f"it changes values to {found or 'an unknown type'}; expected float32")


@reads("Softmax", "LogSoftmax")
def _(node: Node, walk: Walk) -> None:
    layer = notation.Softmax() if node.op == "Softmax" else notation.LogSoftmax()
    rank = len(walk.shape)
    axis = node.integer("axis", -1 if walk.opset >= 13 else 1) % rank
    if walk.opset < 13 and rank != 2 and prod(walk.shape[axis + 1 :]) != 1:
        raise LayerError("before opset 13 it is over all values; expected one over the channels")
    if rank == 4 and walk.axes is not None:
        if walk.axes[axis] != 1:
            raise LayerError("expected it over the channels")
        walk.pointwise(node, layer)
        return
    walk.settle()
    if axis != 1:
        raise LayerError("expected it over the channels")
    walk.layer(node, layer)
