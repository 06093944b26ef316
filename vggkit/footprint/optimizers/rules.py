"""What every optimizer defines, its options, and what torch's implementations of all optimizers have in common.

torch has up to three implementations of an optimizer: a loop over the parameters (`_single_tensor_…`), operations on
lists of all parameters (`_multi_tensor_…`, with the option `foreach`), and a single kernel (`_fused_…`), which
allocates nothing. What they allocate is in the files of torch/optim.

A step is that of torch 2.14 with its default arguments, apart from the options of `Update`: neither `capturable` nor
`differentiable` nor `maximize`. The number that foreach adds to all step counters on the CPU, which dies at once, is
left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

import msgspec
from msgspec.structs import replace

from vggkit.base.eager import Eager, Parameter, Storage
from vggkit.base.sums import PartialSums

NUMBER_BYTES = 4
"""A step counter, or another number that is kept for a parameter: a float32 (torch/optim/optimizer.py,
_get_scalar_dtype)."""


class Update(msgspec.Struct, frozen=True):
    """How an optimizer changes the parameters: those options of torch's optimizers that matter for memory.

    Args:
        weight_decay: only whether it is 0 matters; None for the optimizer's own default.
        foreach: whether all parameters are changed together, by operations on lists; None for torch's own choice, which
            is yes on CUDA and no on the CPU.
        fused: whether a single kernel changes all parameters; None for torch's own choice, which is no. As in torch,
            False also means no foreach, unless that is asked for.
        nesterov: whether SGD looks ahead by its momentum.
        amsgrad: whether Adam keeps the largest second moment.
        momentum: of RMSprop; only whether it is 0 matters.
        centered: whether RMSprop divides by an estimate of the gradient's variance.
    """

    weight_decay: float | None = None
    foreach: bool | None = None
    fused: bool | None = None
    nesterov: bool = False
    amsgrad: bool = False
    momentum: float = 0.0
    centered: bool = False

    NUMBERS: ClassVar[tuple[str, ...]] = ("weight_decay", "momentum")
    """The options that are numbers; the others are on or off."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        defaults = type(self)()
        every = {word: getattr(self, word) for word in self.__struct_fields__}
        return {word: value for word, value in every.items() if value != getattr(defaults, word)}

    @property
    def words(self) -> list[str]:
        """The options that differ from their defaults, in words."""
        return [
            f"{word.replace('_', ' ')} {value:g}" if word in self.NUMBERS else word if value else f"no {word}"
            for word, value in self.given.items()
        ]


class UpdateArguments(TypedDict, total=False):
    """The fields of `Update` as keywords, for type checkers."""

    weight_decay: float | None
    foreach: bool | None
    fused: bool | None
    nesterov: bool
    amsgrad: bool
    momentum: float
    centered: bool


class Call:
    """A call of an optimizer's constructor or of its `step`, on tensors without values.

    A tensor that it makes is held by a variable of torch's function. It lives until the variable is bound to another
    one or deleted, or the function returns.

    Args:
        eager: where it runs.
        parameters: the trained parameters, all of one dtype.
        update: the options.
        number: of the step, counted from 1; 0 is the constructor.
    """

    def __init__(self, eager: Eager, parameters: Sequence[Parameter], update: Update, number: int) -> None:
        self.eager = eager
        self.parameters = parameters
        self.update = update
        self.number = number
        self._variables: dict[str, list[Storage]] = {}

    @property
    def is_first(self) -> bool:
        """Whether the state is made in it, if not before."""
        return self.number <= 1

    @property
    def is_on_cpu(self) -> bool:
        """Whether it runs on the CPU, so that a number on the CPU is beside the parameters."""
        return self.eager.device == "cpu"

    def new(self, name: str, *sizes: int) -> None:
        """Bind a variable to new tensors of so many bytes; what it held before dies when they are there."""
        made = [self.eager.new(0, size) for size in sizes]
        self.eager.note()
        self.delete(name)
        self._variables[name] = made

    def like(self, name: str, group: Sequence[Parameter]) -> None:
        """Bind a variable to a new tensor for each parameter of a group, as large as that."""
        self.new(name, *(size_of(parameter) for parameter in group))

    def holds(self, name: str) -> bool:
        """Tell whether a variable holds tensors that were made in this call."""
        return name in self._variables

    def rename(self, name: str, other: str) -> None:
        """Bind another variable to what a variable holds."""
        held = self._variables.pop(name)
        self.delete(other)
        self._variables[other] = held

    def delete(self, *names: str) -> None:
        """Delete variables, or bind them to something older."""
        for name in names:
            self.eager.release(*self._variables.pop(name, ()))

    def use(self, *sizes: int) -> None:
        """Make tensors that die as soon as an operation has used them."""
        used = [self.eager.new(0, size) for size in sizes]
        self.eager.note()
        self.eager.release(*used)

    def add_up(self, sums: PartialSums | None, rows: int) -> None:
        """Run a reduction over so many rows; on CUDA its kernel may take memory to make it in parts.

        Args:
            sums: in which parts; None if in one.
            rows: how many.
        """
        parts = 0 if sums is None or self.is_on_cpu else sums.split.parts(rows)
        if sums is not None and parts:
            self.use(parts * sums.part_bytes, sums.counter_bytes)

    def keep(self, *sizes: int) -> None:
        """Make tensors of the state, if they aren't there yet."""
        for size in sizes if self.is_first else ():
            self.eager.new(0, size)

    def end(self) -> None:
        """Return from the function."""
        self.delete(*list(self._variables))


class Optimizer(ABC):
    """An optimizer: its options, its state, and what its step allocates and frees."""

    name: ClassVar[str]
    """The word that asks for it."""

    torch_name: ClassVar[str]
    """Its class in `torch.optim`."""

    fixed: ClassVar[dict[str, Any]] = {}
    """Arguments of that class that make it what it is."""

    takes: ClassVar[tuple[str, ...]] = ("weight_decay", "foreach")
    """Its options, of those in `Update`."""

    weight_decay: ClassVar[float] = 0.0
    """Its own default."""

    decays_gradients: ClassVar[bool] = True
    """Whether weight decay is added to a copy of the gradient, as the paper's is, and not to the parameter in place."""

    foreach_on_cuda: ClassVar[bool] = True
    """Whether torch takes foreach on CUDA if nobody says anything."""

    @abstractmethod
    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        """Return the bytes of each tensor that is kept for a parameter on its device, in the order they are made in.

        Args:
            parameter: the parameter.
            update: the options.
            device: "cpu" or "cuda".
        """

    @abstractmethod
    def single(self, group: Sequence[Parameter], call: Call) -> None:
        """Change one parameter as `_single_tensor_…` does, once its gradient has its weight decay.

        Args:
            group: the parameter.
            call: the step.
        """

    @abstractmethod
    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        """Change all parameters as `_multi_tensor_…` does, once their gradients have their weight decay.

        Args:
            group: the parameters.
            call: the step.
        """

    def construct(self, call: Call) -> None:
        """Run the constructor; most make their state in the first step."""
        return

    def prepare(self, call: Call) -> None:
        """Begin a step; in the first one most make their state here (`_init_group`)."""
        self.make_state(call)

    def early_steps(self, update: Update, device: str) -> int:
        """Return how many steps differ from all later ones: the first one makes the state.

        Args:
            update: the options.
            device: "cpu" or "cuda".
        """
        return 1

    def make_state(self, call: Call) -> None:
        """Make the state of each parameter, one after the other."""
        for parameter in call.parameters if call.is_first else ():
            call.keep(*self.state(parameter, call.update, call.eager.device))

    def step(self, call: Call) -> None:
        """Run a step: allocate, note and free what torch does."""
        self.prepare(call)
        call.eager.note()
        if call.update.fused:
            return
        is_foreach = self.is_foreach(call.update, call.eager.device)
        is_decayed = self.decays_gradients and self.decay(call.update) != 0
        change = self.foreach if is_foreach else self.single
        for group in [call.parameters] if is_foreach else [[parameter] for parameter in call.parameters]:
            call.delete("grad")
            if is_decayed:
                call.like("grad", group)  # grad = grad.add(param, alpha=weight_decay)
            change(group, call)
        call.end()

    def decay(self, update: Update) -> float:
        """Return the weight decay."""
        return self.weight_decay if update.weight_decay is None else update.weight_decay

    def is_foreach(self, update: Update, device: str) -> bool:
        """Tell whether torch changes all parameters together (torch/optim/optimizer.py, _default_to_fused_or_foreach).

        Args:
            update: the options.
            device: "cpu" or "cuda".
        """
        if update.foreach is None and update.fused is None:
            return self.foreach_on_cuda and device == "cuda"
        return bool(update.foreach)

    def settled(self, update: Update, device: str) -> dict[str, Any]:
        """Return every option as it applies, None where the optimizer has none such.

        Args:
            update: the options.
            device: "cpu" or "cuda".
        """
        applied = replace(
            update,
            weight_decay=self.decay(update),
            foreach=self.is_foreach(update, device),
            fused=bool(update.fused),
        )
        return {word: getattr(applied, word) if word in self.takes else None for word in update.__struct_fields__}

    def torch_optimizer(self, parameters: Sequence[Any], update: Update, optim: Any) -> Any:
        """Return torch's optimizer, or None if there is no step.

        Args:
            parameters: the trained parameters.
            update: the options.
            optim: the namespace `torch.optim`.
        """
        applied = replace(update, weight_decay=self.decay(update))
        options = {word: getattr(applied, word) for word in self.takes}
        return getattr(optim, self.torch_name)(parameters, **self.fixed, **options)


def size_of(parameter: Parameter) -> int:
    """Return the bytes of a parameter."""
    return parameter.storage.constant


def counters(count: int, update: Update, device: str) -> tuple[int, ...]:
    """Return the bytes of numbers that are kept for a parameter, as far as they are on its device.

    They are on the CPU, except for the fused kernel, which counts its steps itself.

    Args:
        count: how many there are.
        update: the options.
        device: of the parameter: "cpu" or "cuda".
    """
    return (NUMBER_BYTES,) * count if device == "cpu" or update.fused else ()
