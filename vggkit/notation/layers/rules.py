"""The rules that every layer kind must define, and abstract kinds that share some of them.

A rule takes the shape of the layer's input, for one image; the batch is multiplied elsewhere, in one place. A count is
a `Product`: the number together with its working. Parameters and buffers have torch's names and shapes, so that the
same values give the counts, are compared with a `state_dict()` and check a checkpoint. Nothing here imports torch:
`module` is given the `torch.nn` namespace, and `run` the operations of `vggkit.base.eager`.

A class is either abstract or final, and no rule has a default in `Layer`: a kind that forgets one can't be made.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import msgspec

from vggkit.base.errors import LayerError
from vggkit.base.shapes import Kept, Pair, Shape, elements

if TYPE_CHECKING:
    from vggkit.base.eager import Eager, Parameter, Tensor

Role = Literal["weight", "norm", "activation", "dropout", "other"]


class Window(msgspec.Struct, frozen=True):
    """The part of the input that one output value depends on, and how far apart the parts of neighbours are.

    Args:
        extent: height and width of the smallest rectangle that holds every input value that it depends on.
        step: distance, in input values, between the rectangles of neighbouring outputs.
    """

    extent: Pair
    step: Pair


POINT = Window((1, 1), (1, 1))


class Working(msgspec.Struct, frozen=True):
    """How a count is worked out, as one would write it on paper.

    Args:
        rule: in symbols, which `vggkit.figures.explain.SYMBOLS` spells out.
        numbers: the same with this layer's numbers put in; its value is the count.
        why: the reason, in words.
    """

    rule: str
    numbers: str
    why: str


class Counted(Protocol):
    """A number with its working."""

    @property
    def number(self) -> int:
        """The number."""

    @property
    def working(self) -> Working:
        """How it is worked out."""


class Factor(msgspec.Struct, frozen=True):
    """A number in a product.

    Args:
        symbol: its symbol.
        number: its value.
        written: how the value is written, if it is itself worked out: `(64/2)`.
    """

    symbol: str
    number: int
    written: str | None = None


class Product(msgspec.Struct, frozen=True):
    """A count that is a product.

    Args:
        why: the reason, in words.
        factors: for a parameter in this order: the sizes of its window, its inputs, its outputs.
    """

    why: str
    factors: tuple[Factor, ...]

    @classmethod
    def of(cls, why: str, *factors: tuple[str, int]) -> Product:
        """Return the product of these symbols and numbers."""
        return cls(why, tuple(Factor(symbol, number) for symbol, number in factors))

    @property
    def number(self) -> int:
        """The count."""
        return elements(tuple(factor.number for factor in self.factors))

    @property
    def shape(self) -> Shape:
        """The shape of a parameter with this number of elements: torch puts the outputs first, the window last."""
        numbers = [factor.number for factor in self.factors]
        return *numbers[-1:], *numbers[-2:-1], *numbers[:-2]

    @property
    def working(self) -> Working:
        """How the count is worked out."""
        numbers = [factor.written or str(factor.number) for factor in self.factors]
        return Working("·".join(factor.symbol for factor in self.factors), "·".join(numbers), self.why)


NOTHING_MULTIPLIED = Product.of(
    "only convolutions and FC layers are counted; the others do a few operations per value", ("0", 0)
)


class LayerMeta(msgspec.StructMeta, ABCMeta):
    """Lets a msgspec struct be abstract."""


class HasRole:
    """Tells whether a kind, or a layer of it, has a role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def __get__(self, layer: Layer | None, kind: type[Layer]) -> bool:
        return kind.role == self.role


class Layer(msgspec.Struct, frozen=True, metaclass=LayerMeta):
    """A layer: the base of every kind, with the rules that a kind must define.

    The names of the fields are torch's; where the notation uses a shorter word, `rename` gives it.
    """

    keyword: ClassVar[str]
    """Its word in the notation, in the paper's spelling."""
    primary: ClassVar[str | None] = None
    """The field that is the keyword's value in the long form: the kernel in `{maxpool: 3}`."""
    stem: ClassVar[str]
    """Its name in a network: `conv` in `block1_conv1`."""
    role: ClassVar[Role]
    """Its role: "weight" for the layers that the paper counts; a norm, activation or dropout can follow a layer."""
    followers: ClassVar[tuple[str, ...]] = ()
    """Which of a configuration's defaults (norm, activation, dropout) follow it in a hidden layer."""

    is_weight_layer = HasRole("weight")
    """Whether it is one of the layers that the paper counts: convolutions and FC layers."""
    is_norm = HasRole("norm")
    """Whether it is a batch or group normalisation. LRN is not: the paper has it as a layer of its own."""
    is_activation = HasRole("activation")
    """Whether it is an activation function."""
    is_dropout = HasRole("dropout")
    """Whether it drops values in training."""
    is_convolution: ClassVar[bool] = False
    """Whether it multiplies the maps by a window of weights."""
    is_pool: ClassVar[bool] = False
    """Whether it pools with a window that steps over the maps."""
    fixes_size: ClassVar[bool] = False
    """Whether its output has a given height and width, whatever those of its input."""
    flattens: ClassVar[bool] = False
    """Whether it makes maps flat."""
    needs_flat: ClassVar[bool] = False
    """Whether it takes only flat features, so that maps are flattened before it."""
    normalizes_scores: ClassVar[bool] = False
    """Whether it turns scores into values that add up to 1, or into their logarithms."""
    gives_probabilities: ClassVar[bool] = False
    """Whether it turns scores into probabilities. A model leaves it out at the end of the classifier."""

    caffe_in_block: ClassVar[str | None] = None
    """Its name in a block of the authors' Caffe models; the numbers of the block and the weight layer are put in."""
    caffe_in_classifier: ClassVar[str | None] = None
    """Its name in their classifier; the number that is put in continues after the blocks."""
    keras_type: ClassVar[str]
    """The class that Keras's summary prints for it."""
    named_in_keras: ClassVar[bool] = False
    """Whether keras.applications has a layer of this kind, with the same name as here."""
    fused_in_keras: ClassVar[bool] = False
    """Whether it is part of the layer before it in keras.applications."""

    @abstractmethod
    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        """Return each size of the output's shape, or raise LayerError if the layer does not fit its input."""

    @abstractmethod
    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        """Return the number of elements of each parameter, by torch's name."""

    @abstractmethod
    def buffers(self, x: Shape) -> dict[str, Shape]:
        """Return the shape of each buffer (state that is not trained), by torch's name."""

    @abstractmethod
    def operation_count(self, x: Shape) -> Product:
        """Return the multiply-accumulates for one image; bias additions are not counted."""

    @abstractmethod
    def window(self, x: Shape) -> Window:
        """Return what one output value sees of the input (of a C×H×W input; flat ones have one position)."""

    @abstractmethod
    def storage(self) -> Literal["new", "in place", "view"]:
        """Return where the output lives: in memory of its own, in the input's place, or as a view of the input."""

    @abstractmethod
    def kept(self, x: Shape) -> tuple[Kept, ...]:
        """Return the tensors that are kept for the backward pass, without parameters and running statistics."""

    @abstractmethod
    def settled(self, x: Shape, *, writable: bool) -> Layer:
        """Return the layer as it runs at its place, with every choice made that depends on its input.

        Args:
            x: the shape of its input.
            writable: whether the layer may overwrite its input, because nothing else needs the values.
        """

    @abstractmethod
    def in_inference(self, x: Shape) -> Layer | None:
        """Return the simplest layer that computes the same in inference; None if its output is its input.

        So two layers that return equal values here have equal outputs, given equal parameters. Options that only matter
        in training (a momentum, working in place) get a fixed value, and so do options without effect (the padding's
        mode where nothing is padded).
        """

    @abstractmethod
    def module(self, x: Shape, nn: Any) -> Any:
        """Return the torch module, built from the `torch.nn` namespace that is passed in."""

    @abstractmethod
    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it on a tensor without values, with the operations that torch's own code calls.

        Args:
            x: its input.
            parameters: by torch's names.
            eager: has the operations.

        Returns:
            The output, with a reference to it.
        """

    @property
    def kind(self) -> str:
        """The keyword in lower case, as data formats print it."""
        return self.keyword.lower()

    @property
    def sort(self) -> str:
        """The group of layers that it belongs to: its role, or its stem if the role is "other"."""
        return self.stem if self.role == "other" else self.role

    def output_shape(self, x: Shape) -> Shape:
        """Return the output's shape, or raise LayerError if the layer does not fit its input."""
        return tuple(size.number for size in self.output_sizes(x))

    def parameters(self, x: Shape) -> dict[str, Shape]:
        """Return the shape of each parameter, by torch's name."""
        return {name: count.shape for name, count in self.parameter_counts(x).items()}

    def multiply_accumulates(self, x: Shape) -> int:
        """Return the multiply-accumulates for one image; bias additions are not counted."""
        return self.operation_count(x).number

    def maps(self, x: Shape) -> tuple[int, int, int]:
        """Return channels, height and width of the input, or raise LayerError if it is flat."""
        if len(x) != 3:
            raise LayerError(f"{self.keyword} needs channels × height × width, but its input is flat ({x[0]} features)")
        return x[0], x[1], x[2]

    def as_one_operation(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run it as one operation, as the other rules describe it."""
        in_place = self.storage() == "in place"
        return eager.apply(x, parameters, shape=self.output_shape(x.shape), keeps=self.kept(x.shape), in_place=in_place)


class Untrained(Layer, frozen=True):
    """Abstract: a layer that is one operation with an output of its own, no parameters and no counted MACs."""

    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        return {}

    def buffers(self, x: Shape) -> dict[str, Shape]:
        return {}

    def operation_count(self, x: Shape) -> Product:
        return NOTHING_MULTIPLIED

    def storage(self) -> Literal["new", "in place", "view"]:
        return "new"

    def settled(self, x: Shape, *, writable: bool) -> Layer:
        return self

    def in_inference(self, x: Shape) -> Layer | None:
        return self

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        return self.as_one_operation(x, parameters, eager)


class ElementWise(Untrained, frozen=True):
    """Abstract: a layer whose output has the input's shape, each position computed from the same position."""

    def output_sizes(self, x: Shape) -> tuple[Counted, ...]:
        return unchanged(x)

    def window(self, x: Shape) -> Window:
        return POINT


def unchanged(x: Shape) -> tuple[Counted, ...]:
    """Return the sizes of an output that has the input's shape."""
    symbols = "chw" if len(x) == 3 else "n"
    return tuple(Product.of("as the input", (symbol, size)) for symbol, size in zip(symbols, x))
