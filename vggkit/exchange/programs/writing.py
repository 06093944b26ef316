"""A network → operations of torch's: those that the layers' own modules call, so that the outputs are theirs."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Shape
from vggkit.exchange.files import Written
from vggkit.exchange.programs.graph import IMAGE, Of, ProgramWriter
from vggkit.exchange.programs.schema import SCHEMA_VERSION
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer


def program_of(written: Written) -> ProgramWriter:
    """Return a network as an exported program says it.

    Raises:
        LayerError: if torch has no operation for a layer.
    """
    program = ProgramWriter(written)
    for placed in written.network.layers:
        program.begin(placed)
        add(placed.layer, program, placed.output_shape)
        program.end()
    return program


def interface(program: ProgramWriter) -> str:
    """Return the version of the schema and the names of the input and the output of a program."""
    return f"schema {'.'.join(map(str, SCHEMA_VERSION))}, input {IMAGE}, output {program.current.name}"


@singledispatch
def add(layer: Layer, program: ProgramWriter, y: Shape) -> Of:  # noqa: ARG001  # `y` is of those for each kind
    """Add the operations of a layer to a program.

    Args:
        layer: the layer.
        program: where to; its `current` is the layer's input.
        y: the shape of the layer's output.

    Returns:
        What the last of them makes.

    Raises:
        LayerError: if torch has none.
    """
    raise LayerError(f"an exported program has no operation for {program.placed.name} ({layer.keyword})")


@add.register
def _(layer: notation.Conv2d, program: ProgramWriter, y: Shape) -> Of:
    channels, *sizes = program.placed.input_shape
    source, pads = program.current, layer.pads()
    if layer.padding_mode != "zeros" and any(pads):
        (height, width), pads = pads, (0, 0)
        shape = (channels, sizes[0] + 2 * height, sizes[1] + 2 * width)
        sides = [width, width, height, height]
        source = program.add("pad.default", shape, self_=source, pad=sides, mode=layer.padding_mode)
    return program.add(
        "conv2d.default",
        y,
        input=source,
        weight=program.tensor("weight"),
        bias=program.tensor("bias") if layer.bias else None,
        stride=layer.stride,
        padding=pads,
        dilation=layer.dilation,
        groups=layer.groups,
    )


@add.register
def _(layer: notation.Linear, program: ProgramWriter, y: Shape) -> Of:
    bias = program.tensor("bias") if layer.bias else None
    return program.add("linear.default", y, input=program.current, weight=program.tensor("weight"), bias=bias)


@add.register
def _(layer: notation.MaxPool2d, program: ProgramWriter, y: Shape) -> Of:
    return program.add(
        "max_pool2d.default",
        y,
        self_=program.current,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        ceil_mode=layer.ceil_mode,
    )


@add.register
def _(layer: notation.AvgPool2d, program: ProgramWriter, y: Shape) -> Of:
    return program.add(
        "avg_pool2d.default",
        y,
        self_=program.current,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        ceil_mode=layer.ceil_mode,
        count_include_pad=layer.count_include_pad,
        divisor_override=layer.divisor_override,
    )


@add.register(notation.GlobalAvgPool2d)
@add.register(notation.AdaptiveAvgPool2d)
def _(_: Layer, program: ProgramWriter, y: Shape) -> Of:
    return program.add("adaptive_avg_pool2d.default", y, self_=program.current, output_size=y[1:])


@add.register
def _(layer: notation.LocalResponseNorm, program: ProgramWriter, y: Shape) -> Of:
    channels, height, width = y
    batch, size = program.batch(), layer.size
    before, behind = size // 2, (size - 1) // 2
    layered = (1, channels, height, width)
    squares = program.add("mul.Tensor", y, self_=program.current, other=program.current)
    turned = program.add("view.default", layered, self_=squares, size=[batch, *layered])
    padded = program.add(
        "pad.default", (1, channels + size - 1, height, width), self_=turned, pad=[0, 0, 0, 0, before, behind]
    )
    means = program.add("avg_pool3d.default", layered, self_=padded, kernel_size=[size, 1, 1], stride=[1, 1, 1])
    flat = program.add("squeeze.dim", y, self_=means, dim=1)
    back = program.add("view.default", y, self_=flat, size=[batch, *y])
    scaled = program.add("mul.Tensor", y, self_=back, other=layer.alpha)
    base = program.add("add.Tensor", y, self_=scaled, other=layer.k)
    power = program.add("pow.Tensor_Scalar", y, self_=base, exponent=layer.beta)
    return program.add("div.Tensor", y, self_=program.current, other=power)


@add.register
def _(layer: notation.BatchNorm, program: ProgramWriter, y: Shape) -> Of:
    tensors = {role: program.tensor(role) for role in ("weight", "bias") if layer.affine}
    if layer.track_running_stats:
        tensors |= {role: program.tensor(role) for role in ("running_mean", "running_var")}
    return program.add(
        "batch_norm.default",
        y,
        input=program.current,
        **{role: tensors.get(role) for role in ("weight", "bias", "running_mean", "running_var")},
        training=not layer.track_running_stats,
        momentum=layer.momentum or 0.0,
        eps=layer.eps,
        cudnn_enabled=True,
    )


@add.register
def _(layer: notation.GroupNorm, program: ProgramWriter, y: Shape) -> Of:
    tensors = {role: program.tensor(role) if layer.affine else None for role in ("weight", "bias")}
    return program.add(
        "group_norm.default", y, input=program.current, num_groups=layer.num_groups, **tensors, eps=layer.eps
    )


def _on_each(op: str, layer: Layer, program: ProgramWriter, y: Shape, **options: Any) -> Of:
    """Add an operation on each value by itself, in place if the layer works so."""
    in_place = "_" if getattr(layer, "inplace", False) else ""
    return program.add(f"{op}{in_place}.default", y, self_=program.current, **options)


PLAIN: dict[type[Layer], str] = {
    notation.ReLU: "relu",
    notation.SiLU: "silu",
    notation.Sigmoid: "sigmoid",
    notation.Tanh: "tanh",
}
"""What is one operation without options."""


@add.register(notation.ReLU)
@add.register(notation.SiLU)
@add.register(notation.Sigmoid)
@add.register(notation.Tanh)
def _(layer: Layer, program: ProgramWriter, y: Shape) -> Of:
    return _on_each(PLAIN[type(layer)], layer, program, y)


@add.register
def _(layer: notation.LeakyReLU, program: ProgramWriter, y: Shape) -> Of:
    return _on_each("leaky_relu", layer, program, y, negative_slope=layer.negative_slope)


@add.register
def _(layer: notation.ELU, program: ProgramWriter, y: Shape) -> Of:
    return _on_each("elu", layer, program, y, alpha=layer.alpha)


@add.register
def _(layer: notation.Hardtanh, program: ProgramWriter, y: Shape) -> Of:
    return _on_each("hardtanh", layer, program, y, min_val=layer.min_val, max_val=layer.max_val)


@add.register
def _(layer: notation.GELU, program: ProgramWriter, y: Shape) -> Of:
    return _on_each("gelu", layer, program, y, approximate=layer.approximate)


@add.register
def _(layer: notation.Dropout, program: ProgramWriter, y: Shape) -> Of:
    return program.add("dropout.default", y, input=program.current, p=layer.p, train=False)


@add.register
def _(layer: notation.Flatten, program: ProgramWriter, y: Shape) -> Of:
    x = program.placed.input_shape
    source = program.current
    if layer.order == "hwc" and len(x) == 3:
        source = program.add("permute.default", (x[1], x[2], x[0]), self_=source, dims=[0, 2, 3, 1])
    return program.add("flatten.using_ints", y, self_=source, start_dim=1)


@add.register(notation.Softmax)
@add.register(notation.LogSoftmax)
def _(layer: Layer, program: ProgramWriter, y: Shape) -> Of:
    op = "softmax.int" if layer.gives_probabilities else "log_softmax.int"
    return program.add(op, y, self_=program.current, dim=1)
