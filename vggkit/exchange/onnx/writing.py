"""A network → ONNX's operations.

Source: docs/Operators.md in onnx/onnx, in the opset below. Where it has no operation that does the same as a layer, the
layer is several of them.
"""

from __future__ import annotations

from functools import singledispatch
from itertools import chain
from math import inf

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Pair, Shape, elements
from vggkit.base.version import __version__
from vggkit.exchange.files import Written
from vggkit.exchange.layers import with_windows
from vggkit.exchange.messages import Message
from vggkit.exchange.onnx.averages import averages
from vggkit.exchange.onnx.graph import BATCH, IMAGE, STATEMENT, GraphWriter, value_info
from vggkit.exchange.onnx.schema import ENTRY, MODEL, OPSET
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer
from vggkit.notation.layers.windows import SteppingPool

OPSET_VERSION = 20
IR_VERSION = 9
"""The first that has this opset."""


def model_of(written: Written) -> Message:
    """Return a network as ONNX says it.

    Raises:
        LayerError: if it has no word for a layer.
    """
    graph = GraphWriter(written)
    layers = written.network.layers
    for placed in layers:
        graph.begin(placed, last=placed is layers[-1])
        add(placed.layer, graph)
        graph.end()
    graph.message.add("output", value_info(graph.current, [BATCH, *layers[-1].output_shape]))
    return Message(
        MODEL,
        ir_version=IR_VERSION,
        opset_import=Message(OPSET, domain="", version=OPSET_VERSION),
        producer_name="vggkit",
        producer_version=__version__,
        graph=graph.message,
        metadata_props=Message(ENTRY, key=STATEMENT, value=str(written.network.config)),
    )


def interface(model: Message) -> str:
    """Return the opset and the names of the input and the output of a model."""
    graph = model.message("graph")
    return f"opset {OPSET_VERSION}, input {IMAGE}, output {graph.messages('output')[-1].get('name')}"


@singledispatch
def add(layer: Layer, graph: GraphWriter) -> str:
    """Add the operations of a layer to a graph.

    Args:
        layer: the layer.
        graph: where to; its `current` is the layer's input.

    Returns:
        The name of the output.

    Raises:
        LayerError: if ONNX has none.
    """
    raise LayerError(f"ONNX has no operation for {graph.placed.name} ({layer.keyword})")


def _both(pads: Pair) -> tuple[int, ...]:
    """Return a padding on both sides as ONNX has it: all beginnings, then all ends."""
    return (*pads, *pads)


def _padded(graph: GraphWriter, pads: Pair, mode: str) -> str:
    sizes = graph.integers("pads", 0, 0, *pads, 0, 0, *pads)
    return graph.add("Pad", graph.current, sizes, mode=mode)


PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""ONNX's words for torch's, but for zeros."""


@add.register
def _(layer: notation.Conv2d, graph: GraphWriter) -> str:
    x = graph.placed.input_shape
    pads, source = layer.pads(), graph.current
    if layer.padding_mode in PAD_MODES and any(pads):
        source, pads = _padded(graph, pads, PAD_MODES[layer.padding_mode]), (0, 0)
    tensors = [graph.tensor(role) for role in layer.parameters(x)]
    return graph.add(
        "Conv",
        source,
        *tensors,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=_both(pads),
        dilations=layer.dilation,
        group=layer.groups,
    )


def _ends(layer: SteppingPool, x: Shape) -> Pair:
    """Return the padding behind the maps: longer than before them where a last window only partly fits.

    ONNX's own `ceil_mode` counts a window that starts in the padding, which torch's does not.
    """
    height, width = (
        max(axis.padding, (axis.number - 1) * axis.stride + axis.extent - axis.size - axis.padding)
        if axis.ceil
        else axis.padding
        for axis in layer.places(x)
    )
    return height, width


@add.register
def _(layer: notation.MaxPool2d, graph: GraphWriter) -> str:
    pads, source = layer.padding, graph.current
    ends = _ends(layer, graph.placed.input_shape)
    if any(end >= kernel for end, kernel in zip(ends, layer.kernel_size)):  # which runtimes refuse
        both = graph.integers("pads", 0, 0, *pads, 0, 0, *ends)
        source = graph.add("Pad", source, both, graph.floats("least", (), [-inf]))
        pads = ends = (0, 0)
    return graph.add(
        "MaxPool",
        source,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*pads, *ends),
        dilations=layer.dilation,
    )


@add.register
def _(layer: notation.AvgPool2d, graph: GraphWriter) -> str:
    pads, source = layer.padding, graph.current
    ends = _ends(layer, graph.placed.input_shape)
    counted = layer.count_include_pad or not any(pads)
    if layer.divisor_override is not None:  # the sum over the window is its average times its size
        both = graph.integers("pads", 0, 0, *pads, 0, 0, *ends)
        source = graph.add("Pad", source, both, mode="constant") if any((*pads, *ends)) else source
        average = graph.add("AveragePool", source, kernel_shape=layer.kernel_size, strides=layer.stride)
        size = layer.kernel_size[0] * layer.kernel_size[1]
        return graph.add("Mul", average, graph.floats("scale", (), [size / layer.divisor_override]))
    if counted and any(pads) and ends != pads:  # the padding counts, and what a last window needs beyond it does not
        source, ends = _padded(graph, pads, "constant"), (ends[0] - pads[0], ends[1] - pads[1])
        counted, pads = False, (0, 0)
    return graph.add(
        "AveragePool",
        source,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=(*pads, *ends),
        count_include_pad=int(counted and any(pads)),
    )


@add.register(notation.GlobalAvgPool2d)
def _(_: Layer, graph: GraphWriter) -> str:
    return graph.add("GlobalAveragePool", graph.current)


@add.register
def _(layer: notation.AdaptiveAvgPool2d, graph: GraphWriter) -> str:
    x = graph.placed.input_shape
    _, height, width = x
    rows, columns = layer.output_size
    if (same := with_windows(layer, x)) is not None:
        return add(same, graph)
    # windows of different sizes: each row of a matrix averages one, along the height and then along the width
    above = graph.floats("rows", (rows, height), [*chain(*averages(height, rows))])
    averaged = graph.add("MatMul", above, graph.current)
    beside = graph.floats("columns", (width, columns), [*chain(*zip(*averages(width, columns)))])
    return graph.add("MatMul", averaged, beside)


@add.register
def _(layer: notation.LocalResponseNorm, graph: GraphWriter) -> str:
    if layer.size % 2:
        return graph.add(
            "LRN",
            graph.current,
            size=layer.size,
            alpha=float(layer.alpha),
            beta=float(layer.beta),
            bias=float(layer.k),
        )
    # of an even window torch has one channel more before than behind, ONNX the other way round
    before, behind = layer.size // 2, (layer.size - 1) // 2
    squares = graph.add("Mul", graph.current, graph.current)
    layered = graph.add("Unsqueeze", squares, graph.integers("axes", 1))
    padded = graph.add("Pad", layered, graph.integers("pads", 0, 0, before, 0, 0, 0, 0, behind, 0, 0))
    means = graph.add("AveragePool", padded, kernel_shape=(layer.size, 1, 1))
    flat = graph.add("Squeeze", means, graph.integers("axes_again", 1))
    scaled = graph.add("Mul", flat, graph.floats("alpha", (), [layer.alpha]))
    base = graph.add("Add", scaled, graph.floats("k", (), [layer.k]))
    return graph.add("Div", graph.current, graph.add("Pow", base, graph.floats("beta", (), [layer.beta])))


@add.register
def _(layer: notation.BatchNorm, graph: GraphWriter) -> str:
    x = graph.placed.input_shape
    channels = x[0]
    shape = (1, channels, *([1] * (len(x) - 1)))
    if layer.track_running_stats:
        scale = (
            [graph.tensor("weight"), graph.tensor("bias")]
            if layer.affine
            else [
                graph.floats("ones", (channels,), [1.0] * channels),
                graph.floats("zeros", (channels,), [0.0] * channels),
            ]
        )
        held = [graph.tensor("running_mean"), graph.tensor("running_var")]
        return graph.add("BatchNormalization", graph.current, *scale, *held, epsilon=float(layer.eps))
    axes = graph.integers("axes", 0, *range(2, len(x) + 1))  # of the batch itself
    centred = graph.add("Sub", graph.current, graph.add("ReduceMean", graph.current, axes))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes)
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.floats("eps", (), [layer.eps])))
    normed = graph.add("Div", centred, deviation)
    return _scaled(graph, normed, shape) if layer.affine else normed


def _scaled(graph: GraphWriter, source: str, shape: Shape) -> str:
    """Return what a scale and a shift of each channel make of a value."""
    sizes = graph.integers("shape", *shape)
    scale = graph.add("Reshape", graph.tensor("weight"), sizes)
    shift = graph.add("Reshape", graph.tensor("bias"), sizes)
    return graph.add("Add", graph.add("Mul", source, scale), shift)


@add.register
def _(layer: notation.GroupNorm, graph: GraphWriter) -> str:
    x = graph.placed.input_shape
    assert isinstance(layer.num_groups, int)  # as it is at its place
    groups = layer.num_groups
    grouped = graph.add("Reshape", graph.current, graph.integers("groups", 0, groups, elements(x) // groups))
    ones, zeros = (graph.floats(word, (groups,), [value] * groups) for word, value in (("ones", 1.0), ("zeros", 0.0)))
    normed = graph.add("InstanceNormalization", grouped, ones, zeros, epsilon=float(layer.eps))
    back = graph.add("Reshape", normed, graph.integers("back", 0, *x))
    return _scaled(graph, back, (1, x[0], *([1] * (len(x) - 1)))) if layer.affine else back


OPERATIONS: dict[type[Layer], str] = {
    notation.ReLU: "Relu",
    notation.Tanh: "Tanh",
    notation.Sigmoid: "Sigmoid",
}
"""What is one operation without options."""


@add.register(notation.ReLU)
@add.register(notation.Tanh)
@add.register(notation.Sigmoid)
def _(layer: Layer, graph: GraphWriter) -> str:
    return graph.add(OPERATIONS[type(layer)], graph.current)


@add.register
def _(layer: notation.LeakyReLU, graph: GraphWriter) -> str:
    return graph.add("LeakyRelu", graph.current, alpha=float(layer.negative_slope))


@add.register
def _(layer: notation.ELU, graph: GraphWriter) -> str:
    return graph.add("Elu", graph.current, alpha=float(layer.alpha))


@add.register(notation.SiLU)
def _(_: Layer, graph: GraphWriter) -> str:
    return graph.add("Mul", graph.current, graph.add("Sigmoid", graph.current))


@add.register
def _(layer: notation.Hardtanh, graph: GraphWriter) -> str:
    low, high = graph.floats("min", (), [layer.min_val]), graph.floats("max", (), [layer.max_val])
    return graph.add("Clip", graph.current, low, high)


@add.register
def _(layer: notation.GELU, graph: GraphWriter) -> str:
    return graph.add("Gelu", graph.current, approximate=layer.approximate)


@add.register
def _(layer: notation.Dropout, graph: GraphWriter) -> str:
    return graph.add("Dropout", graph.current, graph.floats("ratio", (), [layer.p]))


@add.register
def _(layer: notation.Flatten, graph: GraphWriter) -> str:
    x = graph.placed.input_shape
    if layer.order == "hwc" and len(x) == 3:
        return graph.add("Flatten", graph.add("Transpose", graph.current, perm=(0, 2, 3, 1)), axis=1)
    return graph.add("Flatten", graph.current, axis=1)


@add.register
def _(layer: notation.Linear, graph: GraphWriter) -> str:
    x = graph.placed.input_shape
    tensors = [graph.tensor(role) for role in layer.parameters(x)]
    return graph.add("Gemm", graph.current, *tensors, transB=1)


@add.register(notation.Softmax)
@add.register(notation.LogSoftmax)
def _(layer: Layer, graph: GraphWriter) -> str:
    return graph.add("Softmax" if layer.gives_probabilities else "LogSoftmax", graph.current, axis=1)
