"""What every strategy defines: what a rank holds besides the step itself, and when it allocates and frees that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from vggkit.base.eager import GRADIENTS, Eager, Event, GradientHook, Parameter, PlacedRun, Storage, Tensor
from vggkit.footprint.optimizers import Update
from vggkit.footprint.ranks.group import Group
from vggkit.footprint.ranks.traffic import Traffic
from vggkit.network import Network, PlacedLayer


class Placed(NamedTuple):
    """A model that has been built.

    Args:
        trained: the parameters that are trained, in the model's order.
        frozen: the others.
        statistics: the buffers of normalisations in the parameters' dtype, in the model's order.
        counters: those that count batches.
        arrival: returns the trained parameters in the order in which their gradients come.
        gradients_stay: whether gradients stay between steps.
        dtype: of the parameters.
        passes: how many forward and backward passes a step has.
    """

    trained: Sequence[Parameter]
    frozen: Sequence[Parameter]
    statistics: Sequence[Storage]
    counters: Sequence[Storage]
    arrival: Callable[[], Sequence[Parameter]]
    gradients_stay: bool
    dtype: str
    passes: int


Blocks = list[tuple["str | None", list[PlacedRun]]]
"""The layers of each block, and then those outside of blocks."""


class Asked(Protocol):
    """What a step is like, as far as it matters here: `vggkit.footprint.steps.options.StepOptions`."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda"."""

    @property
    def autocast(self) -> bool:
        """Whether `torch.autocast` to bfloat16 is on."""

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""

    @property
    def update(self) -> Update:
        """The optimizer's own options."""

    @property
    def zero_grad(self) -> str:
        """Whether gradients are freed before a step ("set_to_none") or stay ("zero")."""

    @property
    def accumulate(self) -> int:
        """How many batches' gradients are added up in a step."""

    @property
    def clip_grad(self) -> bool:
        """Whether gradients are clipped before the optimizer steps."""

    @property
    def step_in_backward(self) -> bool:
        """Whether each parameter is changed as soon as its gradient is there."""


class Choice(NamedTuple):
    """Options of a strategy that are worth comparing with others.

    Args:
        options: keywords of `memory`.
        changes_result: whether a step computes something else with them.
    """

    options: Mapping[str, Any]
    changes_result: bool = False


class Strategy(ABC):
    """What a rank does besides the step itself, in one walk through a step that is like all later ones.

    Args:
        eager: where the step runs.
        group: the ranks.
        placed: the model, which has just been built on the rank.

    Attributes:
        rebuilt: what is allocated and freed once, at the beginning of the last of the early steps.
    """

    name: ClassVar[str]
    """The word that asks for it."""

    words: ClassVar[str]
    """What it does, in a sentence about each rank."""

    sends: ClassVar[str] = "in rings"
    """How it sends, in a sentence."""

    takes: ClassVar[tuple[str, ...]] = ()
    """Its options, of those in `vggkit.footprint.ranks.group.OPTIONS`."""

    def __init__(self, eager: Eager, group: Group, placed: Placed) -> None:
        self.eager = eager
        self.group = group
        self.placed = placed
        self.rebuilt: list[Event] = []

    @classmethod
    def built(cls, layers: Iterable[PlacedLayer]) -> Iterable[PlacedLayer]:
        """Return a network's layers as a rank's model is built: as they are, unless a strategy needs others."""
        return layers

    @classmethod
    def choices(cls, ranks: int) -> Iterable[Choice]:  # noqa: ARG003  # some depend on it
        """Return what of its options is worth comparing: the defaults, unless a strategy has more."""
        return [Choice({})]

    @classmethod
    def batches(cls, group: Group) -> int:
        """Return how many batches the ranks have at once: one each, unless they share them."""
        return group.ranks

    @classmethod
    def models(cls, group: Group, network: Network) -> Iterable[tuple[str, Sequence[PlacedLayer]]]:  # noqa: ARG003  # stages
        """Return what there is an optimizer for: what it is called, and its layers."""
        return [(network.name, network.layers)]

    @classmethod
    def stages(cls, group: Group) -> int:  # noqa: ARG003  # a pipeline's are its ranks
        """Return into how many stages the layers are divided."""
        return 1

    @classmethod
    def microbatches(cls, group: Group, batch: int) -> int:  # noqa: ARG003  # a pipeline's depend on them
        """Return into how many parts a batch is divided that run one after the other."""
        return 1

    @classmethod
    def settled(cls, group: Group, batch: int | None = None) -> Group:  # noqa: ARG003  # a pipeline's depends on it
        """Return a group whose number of microbatches is decided: for a batch, or whatever the batch."""
        return group

    @classmethod
    def sentences(cls, group: Group, batch: int) -> list[str]:  # noqa: ARG003  # most have said all
        """Return what else there is to say of a plan, in sentences."""
        return []

    @classmethod
    def check_batch(cls, group: Group, batch: int) -> None:  # noqa: ARG003  # most take any
        """Refuse a batch that the ranks can't run.

        Raises:
            ArgumentError: says why, and what would be right.
        """
        return

    @classmethod
    def early_steps(cls, group: Group) -> int:  # noqa: ARG003  # some depend on it
        """Return how many steps differ from all later ones."""
        return 1

    @abstractmethod
    def wrap(self, blocks: Blocks) -> Blocks:
        """Return the model's layers as they run on the rank."""

    def copied(self, built: Sequence[Event]) -> Sequence[Event]:
        """Return what is allocated and freed to make a second model like the rank's.

        Args:
            built: the same of a whole model.
        """
        return built

    @property
    @abstractmethod
    def trained(self) -> Sequence[Parameter]:
        """The parameters that the rank trains, as they are between steps."""

    @property
    @abstractmethod
    def kept(self) -> Iterable[Storage]:
        """What a rank keeps between steps: what holds the model's parameters, and what it has besides."""

    @abstractmethod
    def traffic(self, rank: int) -> Traffic:
        """Return what a rank sends and receives in a step; it may be another one than that which holds all this."""

    @property
    @abstractmethod
    def owned(self) -> Sequence[Parameter]:
        """The parameters that the rank's optimizer changes, in its order."""

    @abstractmethod
    def begin_step(self) -> None:
        """Begin the first forward pass of a step."""

    def first_forward(self, events: Sequence[Event]) -> Iterable[Event]:
        """Return what the first forward pass of all allocates and frees.

        Args:
            events: the same of a later one.
        """
        return events

    @abstractmethod
    def begin_forward(self, images: Tensor) -> Tensor:
        """Return the images as the model runs on them; they live until `end_forward`."""

    @abstractmethod
    def end_forward(self) -> None:
        """Return from the model's forward pass."""

    @abstractmethod
    def end_backward(self) -> None:
        """End a backward pass, when all gradients are there."""

    @abstractmethod
    def engine_hook(self, hook: GradientHook | None) -> GradientHook | None:
        """Return what autograd's engine calls with each parameter that has its gradient.

        Args:
            hook: what is to be called with each parameter of `trained` that has.
        """

    @abstractmethod
    def gradient_ready(self, parameter: Parameter) -> None:
        """Take notice of a gradient that is there, in the last backward pass of a step."""

    def joined_norms(self, norms: Storage) -> Storage:
        """Return the norms of whole gradients, made of those that a rank has, with a reference to them.

        Args:
            norms: those that it has, side by side.
        """
        return self.eager.hold(norms)

    @abstractmethod
    def left_gradient(self, parameter: Parameter) -> Storage:
        """Return what holds a parameter's gradient between steps, with a reference to it."""

    @abstractmethod
    def likeness(self, rank: int) -> Hashable:
        """Return what is equal for ranks that hold the same."""

    @classmethod
    def update_of(cls, step: Asked) -> Update:
        """Return the optimizer's options, with those that nobody has given as the ranks need them."""
        return step.update

    @classmethod
    @abstractmethod
    def check(cls, group: Group, step: Asked) -> None:
        """Refuse what can't be combined with it.

        Args:
            group: the ranks.
            step: what a step is like.

        Raises:
            ArgumentError: names the argument, and says why.
        """

    @classmethod
    @abstractmethod
    def check_network(cls, group: Group, network: Network) -> None:
        """Refuse a network that the ranks can't run.

        Raises:
            ArgumentError: names the argument, and says why.
        """

    @classmethod
    def check_frozen(cls, network: Network, frozen: Container[str]) -> None:  # noqa: ARG003  # most can have any
        """Refuse layers that are frozen, by their names, if the ranks would train them.

        Raises:
            ArgumentError: names the argument, and says why.
        """
        return

    @classmethod
    def check_dtype(cls, group: Group, network: Network, dtype: str) -> None:  # noqa: ARG003  # most run it in any
        """Refuse a network that the ranks can't run in a dtype.

        Raises:
            ArgumentError: names the argument, and says why.
        """
        return


class WholeModel(Strategy):
    """What a rank does that has the whole model."""

    def wrap(self, blocks: Blocks) -> Blocks:
        return blocks

    @property
    def trained(self) -> Sequence[Parameter]:
        return self.placed.trained

    @property
    def kept(self) -> Iterable[Storage]:
        return [parameter.storage for parameter in (*self.trained, *self.placed.frozen)]

    @property
    def owned(self) -> Sequence[Parameter]:
        return self.trained

    def begin_step(self) -> None:
        return

    def begin_forward(self, images: Tensor) -> Tensor:
        return images

    def end_forward(self) -> None:
        return

    def end_backward(self) -> None:
        return

    def engine_hook(self, hook: GradientHook | None) -> GradientHook | None:
        return hook

    def gradient_ready(self, parameter: Parameter) -> None:
        return

    def left_gradient(self, parameter: Parameter) -> Storage:
        return self.eager.new(0, parameter.storage.constant, GRADIENTS)

    def likeness(self, rank: int) -> Hashable:
        return None

    @classmethod
    def check_network(cls, group: Group, network: Network) -> None:  # noqa: ARG003  # it can be any
        return


class Alone(WholeModel):
    """A single process, which does nothing besides."""

    name = "none"
    words = "is alone"

    def traffic(self, rank: int) -> Traffic:
        return Traffic()

    @classmethod
    def check(cls, group: Group, step: Asked) -> None:  # noqa: ARG003  # there is nothing to refuse
        return
