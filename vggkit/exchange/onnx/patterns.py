"""Operations that are one layer together: each takes a value with what another one made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base.errors import LayerError
from vggkit.exchange.messages import shortest
from vggkit.exchange.onnx.constants import axes_of, fold
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.onnx.walk import Padding, Walk
from vggkit.notation import layers as notation
from vggkit.notation.layers import Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_TOGETHER = 200
"""Operations of one layer, with those that compute from its shape."""


class Formula(NamedTuple):
    """What an operation makes, in terms of the value that came in.

    Args:
        node: the operation.
        inputs: what it takes: the value (None), formulas, and names of known tensors.
        values: what it makes of some values, if it computes each by itself.
    """

    node: Node
    inputs: tuple[Formula | str | None, ...]
    values: NDArray[Any] | None


def joined(nodes: Sequence[Node], start: int, walk: Walk, uses: Mapping[str, int]) -> int:
    """Read the layer that operations are together.

    Args:
        nodes: all operations.
        start: the place of the first.
        walk: follows the value that they take.
        uses: how many operations take each value.

    Returns:
        The place of the last.

    Raises:
        LayerError: if they are no layer.
    """
    known: dict[str, Formula | None] = {walk.current: None}
    left = {walk.current: uses.get(walk.current, 0)}
    told: list[str] = []
    together = ""
    for place in range(start, min(start + MOST_TOGETHER, len(nodes))):
        node = nodes[place]
        taken = [name for name in dict.fromkeys(node.inputs) if name in known]
        if not taken or not node.outputs:
            fold(node, walk.constants)
            continue
        if node.op == "Shape":
            note_shape(node, walk)
            continue
        output = node.outputs[0]
        formula = _formula(node, known, walk)
        told.append(node.told)
        for name in taken:
            left[name] -= 1
        known[output], left[output] = formula, uses.get(output, 0)
        if [name for name, count in left.items() if count] == [output]:
            if any(add(formula, walk) for add in TOGETHER):
                walk.go_on(output)
                return place
            together = together or " and ".join([*told[:3], *(["others"] if len(told) > 3 else [])])
    if together:
        raise LayerError(f"no layer of a configuration does what {together} do together")
    raise LayerError("it is one of several that take the same value; a network here is a chain")


def _formula(node: Node, known: Mapping[str, Formula | None], walk: Walk) -> Formula:
    import numpy

    values: list[Any] = []
    for name in node.inputs:
        formula = known.get(name)
        if name in known:
            values.append(_sample() if formula is None else formula.values)
        else:
            array = walk.constants.small(name)
            values.append(float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None)
    computes = ELEMENTWISE.get(node.op)
    whole = None
    if computes is not None and all(value is not None for value in values):
        with numpy.errstate(all="ignore"):  # of what is no activation
            whole = computes(*values)
    return Formula(node, tuple(known.get(name, name) for name in node.inputs), whole)


def note_shape(node: Node, walk: Walk) -> None:
    """Note the shape of a value, which an operation asks for, if it is known."""
    import numpy

    if node.inputs[0] not in walk.shapes:
        return
    sizes = walk.shapes[node.inputs[0]][slice(node.integer("start", 0), node.integer("end", 8))]
    walk.constants.set(node.outputs[0], numpy.array(sizes, numpy.int64))


# Activations: by what they compute


def _gelu(x: NDArray[Any]) -> Any:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def _gelu_by_tanh(x: NDArray[Any]) -> Any:
    import numpy

    return x * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _sigmoid(x: NDArray[Any]) -> Any:
    import numpy

    return 1 / (1 + numpy.exp(-x))


def _tanh(x: NDArray[Any]) -> Any:
    import numpy

    return numpy.tanh(x)


def _erf(x: NDArray[Any]) -> Any:
    import numpy

    return numpy.vectorize(math.erf)(x)


CANDIDATES: list[tuple[Layer, Callable[[NDArray[Any]], Any]]] = [
    (notation.SiLU(), lambda x: x * _sigmoid(x)),
    (notation.GELU(), _gelu),
    (notation.GELU("tanh"), _gelu_by_tanh),
]

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: a**b,
    "Neg": lambda a: -a,
    "Erf": _erf,
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "Identity": lambda a: a,
}
"""What is computed of each value by itself."""


def _sample() -> NDArray[Any]:
    """Return values over the range that matters."""
    import numpy

    return numpy.linspace(-8.0, 8.0, 161)


def _activation(formula: Formula, walk: Walk) -> bool:
    """Add the activation that has the same values as a formula."""
    import numpy

    x, y = _sample(), formula.values
    if y is None:
        return False
    # the formula's constants have seven digits
    fitting = (layer for layer, function in CANDIDATES if numpy.allclose(y, function(x), rtol=1e-6, atol=1e-6))
    layer = next(fitting, None)
    if layer is not None:
        walk.pointwise(formula.node, layer)
    return layer is not None


# Local response normalisation, as torch computes it


def _response_norm(formula: Formula, walk: Walk) -> bool:
    """Add the layer of x / (k + alpha · mean of the padded squares) ** beta."""
    divisor = _operands(formula, "Div")
    if divisor is None or divisor[0] is not None:
        return False
    power = _operands(divisor[1], "Pow")
    base = _operands(power[0], "Add") if power else None
    scaled = _operands(base[0], "Mul") if base else None
    if not power or not base or not scaled or not all(isinstance(part[1], str) for part in (power, base, scaled)):
        return False
    size, source = 0, scaled[0]
    pads: tuple[int, ...] = ()
    while isinstance(source, Formula) and source.node.op in ("Reshape", "Squeeze", "Unsqueeze", "AveragePool", "Pad"):
        node = source.node
        if node.op == "AveragePool":
            window = node.integers("kernel_shape", ())
            node.check(ceil_mode=0)
            if window[1:] != (1,) * (len(window) - 1) or any(node.integers("pads", ())):
                return False
            size = window[0]
        if node.op == "Pad":
            pads = node.integers("pads", ()) or walk.constants.numbers(node.inputs[1])
        source = source.inputs[0]
    squares = _operands(source, "Mul")
    half = len(pads) // 2
    if squares != (None, None) or not size or half not in (4, 5):
        return False
    wanted = [0] * len(pads)
    wanted[2], wanted[half + 2] = size // 2, (size - 1) // 2
    if list(pads) != wanted:
        return False
    walk.maps()
    alpha, k, beta = (walk.constants.number(str(part[1])) for part in (scaled, base, power))
    layer = notation.LocalResponseNorm(size, alpha=shortest(alpha), beta=shortest(beta), k=shortest(k))
    walk.pointwise(formula.node, layer)
    return True


def _operands(part: Any, op: str) -> tuple[Any, Any] | None:
    """Return the two inputs of an operation; None if it is another one."""
    if not isinstance(part, Formula) or part.node.op != op or len(part.inputs) != 2:
        return None
    return part.inputs[0], part.inputs[1]


# Batch normalisation by the batch's own statistics, as torch's exporter writes it and as it is written here


def _batch_norm(formula: Formula, walk: Walk) -> bool:
    """Add the layer of (x - mean) / sqrt(variance + eps), written out or with an operation that is given both."""
    node, inputs = formula.node, formula.inputs
    if node.op == "BatchNormalization" and len(inputs) == 5 and inputs[0] is None:
        _, weight, bias, mean, variance = inputs
        if not (_is_mean(mean, walk) and _is_variance(variance, walk)):
            return False
        layer = notation.BatchNorm(eps=node.number("epsilon", 1e-5), track_running_stats=False)
        channels = walk.chain.shape[:1]
        walk.layer(node, layer, walk.held(weight=(str(weight), channels), bias=(str(bias), channels)))
        return True
    centred, deviation = _operands(formula, "Div") or (None, None)
    root = deviation.inputs[0] if isinstance(deviation, Formula) and deviation.node.op == "Sqrt" else None
    variance, eps = _operands(root, "Add") or (None, None)
    if not (_is_centred(centred, walk) and _is_variance(variance, walk) and isinstance(eps, str)):
        return False
    number = shortest(walk.constants.number(eps))
    walk.layer(node, notation.BatchNorm(eps=number, affine=False, track_running_stats=False))
    return True


def _is_mean(part: Any, walk: Walk, of: Any = None) -> bool:
    """Tell whether a value is the mean of each channel over the batch: of the value that came in, or of another."""
    if not isinstance(part, Formula) or part.node.op != "ReduceMean" or part.inputs[0] is not of:
        return False
    rank = len(walk.shape)
    axes = axes_of(part.node, walk.constants) or ()
    return sorted(axis % rank for axis in axes) == [0, *range(2, rank)]


def _is_centred(part: Any, walk: Walk) -> bool:
    """Tell whether a value is the distance from the mean."""
    value, mean = _operands(part, "Sub") or (part, None)
    return value is None and _is_mean(mean, walk)


def _is_variance(part: Any, walk: Walk) -> bool:
    """Tell whether a value is the mean of the squared distances from the mean."""
    source = part.inputs[0] if isinstance(part, Formula) else None
    first, second = _operands(source, "Mul") or (None, None)
    return first is second and _is_centred(first, walk) and _is_mean(part, walk, of=source)


# Circular padding, as torch's older exporter writes it


def _wrapped(formula: Formula, walk: Walk) -> bool:
    """Note a padding of maps along one axis with what lies at their other side."""
    node, inputs = formula.node, formula.inputs
    axis = node.integer("axis", 0)
    places = [place for place, one in enumerate(inputs) if one is None]
    if node.op != "Concat" or axis not in (2, 3) or len(places) != 1 or len(walk.shape) != 4:
        return False
    size, (place,) = walk.maps()[axis - 1], places
    before, behind = (_cut(part, walk, axis, size) for part in (inputs[:place], inputs[place + 1 :]))
    if before is None or behind is None or before != range(size - len(before), size) or behind != range(len(behind)):
        return False
    held = walk.take_padding() or Padding("wrap", (0, 0, 0, 0), 0.0)
    if held.mode != "wrap":
        return False
    pads = [*held.pads]
    pads[axis - 2], pads[axis] = len(before), len(behind)
    walk.padding = Padding("wrap", (pads[0], pads[1], pads[2], pads[3]), 0.0)
    return True


def _cut(parts: Sequence[Any], walk: Walk, axis: int, size: int) -> range | None:
    """Return which rows or columns are cut out of the value that came in; None if something else is done."""
    if not parts:
        return range(0)
    (part, *others) = parts
    if others or not isinstance(part, Formula) or part.node.op != "Slice" or part.inputs[0] is not None:
        return None
    numbers = [walk.constants.numbers(name) for name in part.node.inputs[1:]]
    if len(numbers) < 3 or not all(len(one) == 1 for one in numbers) or numbers[3:] not in ([], [(1,)]):
        return None
    start, end, where = (one[0] for one in numbers[:3])
    return range(*slice(start, end).indices(size)) if where % 4 == axis else None


TOGETHER: tuple[Callable[[Formula, Walk], bool], ...] = (_response_norm, _activation, _batch_norm, _wrapped)
"""What adds a layer or notes a padding, if operations are that together, and tells whether they are."""
