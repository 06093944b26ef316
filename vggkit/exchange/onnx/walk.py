"""The way of one value through a graph: which layers it has passed, and how it lies there now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, prod
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.shapes import Shape, elements, times
from vggkit.exchange.chain import Chain
from vggkit.exchange.messages import inverted, shortest
from vggkit.exchange.onnx.averages import averages_to
from vggkit.exchange.onnx.constants import Constants
from vggkit.exchange.onnx.nodes import Node
from vggkit.exchange.pictures import Preparation
from vggkit.exchange.values import Values, constant
from vggkit.notation.layers import (
    LARGEST,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    GroupNorm,
    Hardtanh,
    Layer,
    Linear,
    ReLU,
    Sigmoid,
    Softmax,
)
from vggkit.notation.preprocess import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_MOVED = 2**21
"""Values of one image that are followed through moves which don't leave them in their order."""

MOST_MOVES = 50
"""One behind the other."""

LAST = (0, 2, 3, 1)
"""The axes of images whose channels are last, by those of a layer's."""

Move = Callable[["NDArray[Any]"], "NDArray[Any]"]
"""Gives values another shape or another order."""


class Padding(NamedTuple):
    """What was added around maps, and belongs to the window that comes next.

    Args:
        mode: ONNX's word for what it holds.
        pads: before the maps in height and width, then behind them.
        value: that it holds if it is constant.
    """

    mode: str
    pads: tuple[int, int, int, int]
    value: float


class Affine(NamedTuple):
    """What was done to each channel so far, one operation after the other.

    Args:
        centre: what was subtracted.
        scale: what it was then multiplied by.
    """

    centre: Values | None = None
    scale: Values | None = None


class Walk:
    """Follows one value.

    Args:
        image: the name of the images.
        shape: theirs, the batch included.
        turned: whether their channels are last.
        constants: the tensors that are known.
        opset: the version of the operations.
    """

    def __init__(self, image: str, shape: Shape, *, turned: bool, constants: Constants, opset: int) -> None:
        self.constants, self.opset = constants, opset
        self.current, self.shape = image, shape
        self.batch = shape[0]
        self.shapes = {image: shape}
        """Of each value that was passed, as the graph has it."""
        self.chain = Chain((shape[3], shape[1], shape[2]) if turned else shape[1:])
        self.axes: tuple[int, ...] | None = (0, 1, 2, 3)
        """The layer's axes, in the order of the graph's; None if the graph's are others."""
        self.moves: list[Move] = []
        self.is_turned = False
        """Whether a move leaves the values in another order."""
        self.mover = ""
        self.padding: Padding | None = None
        self.rows: int | None = None
        """What the height was averaged to, where the width is not yet."""
        self.pictures = Preparation(self.chain.shape[0])
        self.affine_by = ""
        self.affine: Affine | None = None
        if turned:
            self.move(lambda array: array.transpose(LAST), shape, "the image", axes=LAST, turns=True)

    def go_on(self, output: str) -> None:
        """Go on to what an operation makes."""
        self.current = output
        self.shapes[output] = self.shape

    # Moves

    def move(
        self, move: Move, shape: Shape, by: str, *, axes: tuple[int, ...] | None = None, turns: bool = False
    ) -> None:
        """Note a move.

        Args:
            move: what it does.
            shape: what it makes.
            by: who does it, for messages.
            axes: the layer's axes behind it, if they are still the same.
            turns: whether it changes the order of values.
        """
        if axes is None or self.rows is not None:  # else what was begun goes on: its axes are known
            self.finish()
        if len(self.moves) >= MOST_MOVES:
            raise LayerError(f"expected at most {MOST_MOVES} moves of values before a layer, found more")
        self.moves.append(move)
        self.shape, self.mover, self.axes = shape, by, axes
        self.is_turned = self.is_turned or turns

    def is_in_order(self, axes: tuple[int, ...]) -> bool:
        """Tell whether the values are in the order that they have with the layer's axes in some order."""
        x = self.chain.shape
        if self.axes is not None:
            return axes == self.axes
        if not self.is_turned:
            return axes == (0, 1, 2, 3)[: len(axes)]
        if elements(x) > MOST_MOVED:
            raise LayerError(f"more than {MOST_MOVED:,} values are not followed into another order")
        import numpy

        numbers = numpy.arange(self.batch * elements(x)).reshape(self.batch, *x)
        moved = numbers
        for move in self.moves:
            moved = move(moved)
        return numpy.array_equal(moved.reshape(-1), numbers.transpose(axes).reshape(-1))

    def settle(self) -> None:
        """Have the values lie as a layer takes them; a flattening becomes a layer.

        Raises:
            LayerError: if they lie in an order that no layer makes.
        """
        if self.affine:
            self.finish()
        x = self.chain.shape
        if not self.moves:
            return
        plain = tuple(range(len(x) + 1))
        if self.shape == (self.batch, *x) and self.is_in_order(plain):
            self._lie()
            return
        if len(x) == 3 and self.shape == (self.batch, elements(x)):
            order = next((word for word, axes in (("chw", plain), ("hwc", LAST)) if self.is_in_order(axes)), None)
            if order is not None:
                self.chain.add(self.mover, Flatten("hwc") if order == "hwc" else Flatten())
                self._lie()
                return
        raise LayerError(
            f"no layer of a configuration moves values as {self.mover} does, from {times(x)} to"
            f" {times(self.shape[1:]) or 'one number'}"
        )

    def settle_flat(self) -> None:
        """Have flat values lie as a layer takes them; maps may stay as they are."""
        if len(self.shape) == 2 and not self.affine:
            self.settle()

    def _lie(self) -> None:
        """Note that the values lie as the last layer makes them."""
        x = self.chain.shape
        self.moves, self.is_turned, self.mover = [], False, ""
        self.shape = (self.batch, *x)
        self.axes = tuple(range(4)) if len(x) == 3 else None

    # Layers

    def finish(self) -> None:
        """Finish what was begun: what was done to each channel is a layer of its own.

        Raises:
            LayerError: if maps were padded, and it is no window that comes next; or averaged along one side alone.
        """
        if self.padding:
            raise LayerError("no layer of a configuration does what it does to maps that were padded")
        if self.rows is not None:
            raise LayerError("no layer of a configuration averages the height alone")
        if self.affine:
            self.normalize(None)

    def normalize(self, shift: Values | None) -> None:
        """Add the layer that centres, scales and shifts each channel: a normalisation by statistics that are known.

        Args:
            shift: what was added in the end.
        """
        assert self.affine is not None
        (centre, scale), self.affine = self.affine, None
        last, shape = self.last(), self.chain.shape[:1]
        values = {"weight": scale or constant(1.0, shape), "bias": shift or constant(0.0, shape)}
        if isinstance(last, (BatchNorm, GroupNorm)) and not last.affine and centre is None:
            self.changed(replace(last, affine=True), values)
            return
        layer = BatchNorm()
        statistics = {"running_mean": centre or constant(0.0, shape), "running_var": constant(1 - layer.eps, shape)}
        self.chain.add(self.affine_by, layer, {**values, **statistics})

    def take_padding(self) -> Padding | None:
        """Return what was added around the maps, which is now done with."""
        taken, self.padding = self.padding, None
        return taken

    def maps(self) -> Shape:
        """Have the values lie as channels × height × width; return these.

        Raises:
            LayerError: if they don't.
        """
        self.settle()
        return self.chain.maps()

    def flat(self) -> int:
        """Have the values lie one behind the other; return how many.

        Raises:
            LayerError: if they don't.
        """
        self.settle()
        if len(self.chain.shape) != 1:
            raise LayerError(f"its input is {times(self.chain.shape)}; expected flat features")
        return self.chain.shape[0]

    def layer(self, node: Node, layer: Layer, values: Mapping[str, Values] | None = None) -> None:
        """Add a layer that takes its input as layers take it."""
        self.finish()
        self.settle()
        self.chain.add(node.name, layer, values)
        self._lie()

    def pointwise(self, node: Node, layer: Layer) -> None:
        """Add a layer that does the same to each value, wherever it lies."""
        self.finish()
        if self.shape[1:] != self.chain.shape and len(self.shape) == 2:
            self.settle()
        self.chain.add(node.name, layer)

    def tensor(self, name: str) -> Values:
        """Return a layer's tensor.

        Raises:
            LayerError: if it is computed from the image.
        """
        if name not in self.constants:
            raise LayerError(f"its weights are {escaped(shorten(name))}, which is no tensor of the file")
        return self.constants.values[name]

    def held(self, **names: tuple[str, Shape]) -> dict[str, Values]:
        """Return tensors by torch's names.

        Raises:
            LayerError: if one has another shape.
        """
        return {role: self.tensor(name).shaped(shape) for role, (name, shape) in names.items()}

    def changed(self, layer: Layer, values: Mapping[str, Values]) -> None:
        """Give the layer that was added last another form, and more values."""
        part, before = self.chain.parts.pop(), self.chain.values.pop()
        self.chain.shape = part.input_shape
        self.chain.add(part.path, layer, {**values, **before})

    def last(self) -> Layer | None:
        """Return the layer that was added last."""
        return self.chain.parts[-1].layer if self.chain.parts else None

    def is_above_zero(self) -> bool:
        """Tell whether no value is below 0: all come from such an activation, with only pools and dropout behind it."""
        for part in reversed(self.chain.parts):
            layer = part.layer
            if isinstance(layer, (ReLU, Sigmoid, Softmax)) or (isinstance(layer, Hardtanh) and layer.min_val >= 0):
                return True
            if not (layer.is_pool or layer.is_dropout):
                return False
        return False

    def of_channels(self, name: str) -> Values | None:
        """Return known values of each channel of what the last layer makes; None if they are something else."""
        values = self.constants.values.get(name)
        if values is None:
            return None
        channels = self.chain.shape[0]
        sizes = [1] * (len(self.shape) - len(values.shape)) + [*values.shape]
        axis = self.axes.index(1) if self.axes else 1
        wanted = [channels if place == axis else 1 for place in range(len(self.shape))]
        return values.shaped((channels,)) if sizes == wanted else None

    def _is(self, name: str, value: float) -> bool:
        """Tell whether a tensor is this one number, for all channels, which does nothing to them."""
        number = self.constants.small(name)
        return number is not None and number.size == 1 != self.chain.shape[0] and float(number.reshape(-1)[0]) == value

    def _prepares(self, name: str, rescaling: Callable[[float], tuple[float, float]]) -> bool:
        """Read what is done to all values of pictures, before the first layer; tell whether it is that.

        Args:
            name: of a number.
            rescaling: what that is, as what values are multiplied by, and what is then added.
        """
        number = self.constants.small(name)
        if self.chain.parts or self.affine or self.padding or number is None or number.size != 1:
            return False
        scale, offset = rescaling(shortest(float(number.reshape(-1)[0])))
        try:
            self.pictures.rescale(scale, offset)
        except ValueError as error:
            raise LayerError(f"no configuration prepares pictures so: {error}") from None
        return True

    def preprocess(self) -> Preprocess | None:
        """Return what is done to pictures before the first layer.

        Raises:
            LayerError: if no configuration says that.
        """
        try:
            return self.pictures.preprocess()
        except ValueError as error:
            raise LayerError(f"no configuration prepares pictures so: {error}") from None

    def add_shift(self, node: Node, name: str) -> None:
        """Read an addition to each channel: the bias of the layer before it, or the shift of a normalisation.

        Raises:
            LayerError: if it is neither.
        """
        if self._is(name, 0.0) or self._prepares(name, lambda number: (1.0, number)):
            return
        self.settle_flat()
        last, shift = self.last(), self.of_channels(name)
        if shift is None:
            raise LayerError(f"no layer of a configuration adds {escaped(shorten(name))}")
        if self.affine is not None:
            self.normalize(shift)
        elif isinstance(last, (Conv2d, Linear)) and not last.bias:
            self.changed(replace(last, bias=True), {"bias": shift})
        else:
            self.affine, self.affine_by = Affine(), node.name
            self.normalize(shift)

    def subtract(self, node: Node, name: str) -> None:
        """Read a subtraction from each channel.

        Raises:
            LayerError: if it is none.
        """
        if self._is(name, 0.0) or self._prepares(name, lambda number: (1.0, -number)):
            return
        self.finish()
        self.settle_flat()
        centre = self.of_channels(name)
        if centre is None:
            raise LayerError(f"no layer of a configuration subtracts {escaped(shorten(name))}")
        self.affine, self.affine_by = Affine(centre), node.name

    def multiply(self, node: Node, name: str) -> None:
        """Read a multiplication of each channel.

        Raises:
            LayerError: if it is none.
        """
        if self._is(name, 1.0) or self._prepares(name, lambda number: (inverted(number), 0.0)):
            return
        if self.affine is None or self.affine.scale is not None:
            self.finish()
            self.settle_flat()
            self.affine, self.affine_by = Affine(), node.name
        scale = self.of_channels(name)
        if scale is None:
            raise LayerError(f"no layer of a configuration multiplies by {escaped(shorten(name))}")
        self.affine = Affine(self.affine.centre, scale)

    def average_height(self, name: str) -> None:
        """Read a product with a matrix on the left: averages of rows, to which those of columns belong.

        Raises:
            LayerError: if it is none.
        """
        _, height, _ = self.maps()
        self.finish()
        self.rows = averages_to(self.constants.small(name), height)
        if self.rows is None:
            raise LayerError(f"no layer of a configuration multiplies {escaped(shorten(name))} by values")

    def average_width(self, node: Node, name: str) -> None:
        """Read a product with a matrix on the right, behind one on the left: an average to some size.

        Raises:
            LayerError: if it is none.
        """
        assert self.rows is not None
        matrix = self.constants.small(name)
        columns = averages_to(None if matrix is None else matrix.T, self.chain.maps()[2])
        if columns is None:
            raise LayerError(f"no layer of a configuration multiplies values by {escaped(shorten(name))}")
        rows, self.rows = self.rows, None
        self.layer(node, AdaptiveAvgPool2d((rows, columns)))

    def divide(self, name: str) -> bool:
        """Read the divisor of an average pool off a multiplication behind it; tell whether it is one."""
        last, factor = self.last(), self.constants.small(name)
        if not isinstance(last, AvgPool2d) or factor is None or factor.size != 1:
            return False
        size = prod(last.kernel_size)
        if last.divisor_override != size and not _divides_by_size(last, self.chain.parts[-1].input_shape):
            return False
        divisor = size / float(factor.reshape(-1)[0] or inf)
        if not 0.5 <= divisor <= LARGEST or abs(divisor - round(divisor)) > 1e-3:
            return False
        self.changed(replace(last, divisor_override=round(divisor)), {})
        return True


def _divides_by_size(pool: AvgPool2d, x: Shape) -> bool:
    """Tell whether each average is a sum divided by the window's size: none is over fewer values than others."""
    if pool.divisor_override is not None or (any(pool.padding) and not pool.count_include_pad):
        return False
    return all((axis.number - 1) * axis.stride + axis.extent <= axis.size + 2 * axis.padding for axis in pool.places(x))
