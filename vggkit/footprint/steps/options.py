"""What a step is like: its options, and which of them each mode has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import msgspec

from vggkit.base.errors import ArgumentError, one_of, shorten
from vggkit.base.numbers import plain, whole
from vggkit.footprint.allocator_settings import Settings
from vggkit.footprint.optimizers import DEFAULT, NONE, OPTIMIZERS, Optimizer, Update, UpdateArguments, check_update
from vggkit.footprint.ranks import AUTO, NO_GROUP, STRATEGIES, Group, GroupArguments, checked_group
from vggkit.footprint.steps.losses import DEFAULT_LOSS, LOSSES, Loss
from vggkit.network import Dtype, Network, check_batch, dtype_name, several
from vggkit.notation.layers import Shape, times

if TYPE_CHECKING:
    from typing_extensions import Unpack

Mode = Literal["training", "inference", "perceptual"]
Device = Literal["cpu", "cuda"]
ZeroGrad = Literal["set_to_none", "zero"]

TAKEN: dict[Mode, tuple[str, ...]] = {
    "training": (
        "loss",
        "optimizer",
        "update",
        "group",
        "freeze",
        "checkpoint",
        "zero_grad",
        "accumulate",
        "ema",
        "clip_grad",
        "step_in_backward",
    ),
    "inference": (),
    "perceptual": ("taps", "cached_target", "trainable", "checkpoint"),
}
"""The options of each mode, beside those that every mode has."""

ABSENT: dict[str, Any] = {
    "loss": DEFAULT_LOSS,
    "optimizer": NONE,
    "update": Update(),
    "group": NO_GROUP,
    "freeze": (),
    "checkpoint": (),
    "taps": (),
    "cached_target": False,
    "trainable": False,
    "zero_grad": "set_to_none",
    "accumulate": 1,
    "ema": False,
    "clip_grad": False,
    "step_in_backward": False,
}
"""The values of those options in a mode that does not have them."""

MODES: tuple[Mode, ...] = tuple(TAKEN)
DEVICES: tuple[Device, ...] = ("cpu", "cuda")
ZERO_GRADS: tuple[ZeroGrad, ...] = ("set_to_none", "zero")

AUTOCAST = "autocast to bfloat16"
"""What titles say."""

MOST_ACCUMULATED = 1000
"""Batches whose gradients may be added up in a step: each is walked through, and played on a card."""


class StepOptions(msgspec.Struct, frozen=True):
    """What a step is like.

    Args:
        batch: number of images.
        mode: "training", "inference" or "perceptual".
        dtype: of parameters, images and activations.
        loss: a key of `LOSSES`, of a training step.
        optimizer: a key of `OPTIMIZERS`; "none" if nothing is trained.
        update: the optimizer's own options.
        group: the ranks that train together.
        device: "cpu" or "cuda".
        freeze: blocks and layers that are not trained; their batch norms use running statistics.
        checkpoint: blocks that are run again in the backward pass.
        taps: layers whose activations a perceptual loss compares.
        cached_target: whether the target's are computed once, before the loop.
        trainable: whether the parameters that a perceptual loss runs through require gradients.
        autocast: whether `torch.autocast` to bfloat16 is on in the forward pass and the loss.
        allocator: settings of torch's CUDA allocator, as in PYTORCH_ALLOC_CONF.
        zero_grad: "set_to_none" if gradients are freed before each step; "zero" if they stay, and new ones are added.
        accumulate: how many batches' gradients are added up before the optimizer steps.
        ema: whether there is a moving average of the parameters: a copy of the model.
        clip_grad: whether `torch.nn.utils.clip_grad_norm_` is called before the optimizer steps.
        step_in_backward: whether each parameter has an optimizer of its own, which steps as soon as the gradient is
            there, and then frees it.
    """

    batch: int = 1
    mode: Mode = "training"
    dtype: str = "float32"
    loss: str = DEFAULT_LOSS
    optimizer: str = DEFAULT
    update: Update = Update()
    group: Group = NO_GROUP
    device: Device = "cpu"
    freeze: tuple[str, ...] = ()
    checkpoint: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    cached_target: bool = False
    trainable: bool = False
    autocast: bool = False
    allocator: str = ""
    zero_grad: ZeroGrad = "set_to_none"
    accumulate: int = 1
    ema: bool = False
    clip_grad: bool = False
    step_in_backward: bool = False

    def takes(self, word: str) -> bool:
        """Tell whether the mode has an option that not every mode has."""
        return word in TAKEN[self.mode]

    @property
    def rules(self) -> Optimizer:
        """The rules of the optimizer."""
        return OPTIMIZERS[self.optimizer]

    @property
    def loss_rules(self) -> Loss:
        """The rules of a training step's loss."""
        return LOSSES[self.loss]

    @property
    def output_dtype(self) -> str:
        """The dtype of the network's output, and of targets that are compared with it value by value."""
        return self.group.param_dtype or self.dtype

    @property
    def early_steps(self) -> int:
        """How many steps of the optimizer differ from all later ones."""
        return self.rules.early_steps(self.update, self.device)

    @property
    def first_steps(self) -> int:
        """How many steps of a loop differ from all later ones."""
        return max(self.early_steps, STRATEGIES[self.group.parallel].early_steps(self.group))

    @property
    def has_backward(self) -> bool:
        """Whether there is a backward pass."""
        return self.mode != "inference"

    @property
    def can_step_in_backward(self) -> bool:
        """Whether each parameter could have an optimizer of its own: nothing needs all gradients at once."""
        return self.takes("step_in_backward") and self.optimizer != NONE and not self.needing_all_gradients

    @property
    def batches(self) -> int:
        """How many batches the ranks have at once."""
        return STRATEGIES[self.group.parallel].batches(self.group)

    @property
    def microbatches(self) -> int:
        """Into how many parts a batch is divided that run one after the other."""
        return STRATEGIES[self.group.parallel].microbatches(self.group, self.batch)

    @property
    def at_once(self) -> int:
        """How many images run at once."""
        return max(1, self.batch // self.microbatches)

    @property
    def has_cuts_to_find(self) -> bool:
        """Whether the layers are divided into stages, and nobody says where."""
        return self.group.cut == AUTO and STRATEGIES[self.group.parallel].stages(self.group) > 1

    def with_at_once(self, images: int) -> StepOptions:
        """Return the same options for a batch of which so many images run at once; the microbatches stay as many."""
        group = STRATEGIES[self.group.parallel].settled(self.group)
        return self.replace(group=group, batch=images * self.replace(group=group).microbatches)

    @property
    def images(self) -> int:
        """Images of a step, of all ranks and all batches whose gradients are added up."""
        return self.batch * self.accumulate * self.batches

    @property
    def needing_all_gradients(self) -> list[str]:
        """The options that are not as usual, and need the gradients of all parameters at once."""
        return [word for word in ("zero_grad", "accumulate", "clip_grad") if getattr(self, word) != ABSENT[word]]

    def replace(self, **changes: Any) -> StepOptions:
        """Return the options with some of them changed, the optimizer's own ones and those of ranks by their names."""
        of_update = {word: changes.pop(word) for word in Update.__struct_fields__ if word in changes}
        of_group = {word: changes.pop(word) for word in Group.__struct_fields__ if word in changes}
        if of_update:
            changes["update"] = msgspec.structs.replace(self.update, **of_update)
        if of_group:
            changes["group"] = msgspec.structs.replace(self.group, **of_group)
        return msgspec.structs.replace(self, **changes)

    def of_rank(self, rank: int) -> StepOptions:
        """Return the same options for the step of a rank."""
        return self.replace(rank=rank)

    def forward_only(self) -> StepOptions:
        """Return the same options for a forward pass without gradients."""
        return self.replace(mode="inference", **ABSENT)

    @property
    def batch_words(self) -> str:
        """The batch in words, with whose it is."""
        each = {self.group.ranks: " on each rank", 1: ""}.get(self.batches, " on each replica")
        return f"batch {self.batch}{each}"

    @property
    def words(self) -> str:
        """The step in words, for a title; the batch is not included."""
        return ", ".join([self.dtype, self.mode, *self.loop_words, self.device, *filter(None, [self.allocator])])

    @property
    def loop_words(self) -> list[str]:
        """The optimizer and what is special about the loop, in words."""
        said: list[str] = []
        if self.takes("optimizer"):
            said += [self.optimizer, *self.update.words]
        if self.loss != DEFAULT_LOSS:
            said.append(self.loss_rules.words)
        if self.taps:
            said.append(f"taps: {', '.join(self.taps)}")
        if self.cached_target:
            said.append("cached target")
        if self.trainable:
            said.append("trainable")
        if self.autocast:
            said.append(AUTOCAST)
        if self.freeze:
            said.append(f"frozen: {', '.join(self.freeze)}")
        if self.checkpoint:
            said.append(f"checkpointed: {', '.join(self.checkpoint)}")
        if self.zero_grad == "zero":
            said.append("gradients set to zero")
        if self.accumulate > 1:
            said.append(f"accumulated {self.accumulate} times")
        if self.ema:
            said.append("moving average")
        if self.clip_grad:
            said.append("gradients clipped")
        if self.step_in_backward:
            said.append("stepped in backward")
        return [*said, *self.group.words]

    def title(self, name: str, image: Shape) -> str:
        """Return one line that describes the step of a network.

        Args:
            name: the network's.
            image: shape of one image.
        """
        return f"{name}: {times(image)}, {self.batch_words}, {self.words}"

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON, with the optimizer's options as they apply."""
        every = msgspec.structs.asdict(self)
        del every["update"], every["group"]
        every["loss"] = self.loss if self.takes("loss") else None
        listed = {word: list(value) if isinstance(value, tuple) else value for word, value in every.items()}
        return {**listed, **self.rules.settled(self.update, self.device), **msgspec.structs.asdict(self.group)}

    def check_names(self, network: Network) -> None:
        """Refuse names of blocks and layers that a network does not have.

        Raises:
            ArgumentError: names the option, what was found and what is allowed.
        """
        network.parts(self.freeze, "freeze")
        network.blocks(self.checkpoint, "checkpoint")
        for name in self.taps:
            _check_layer(network, name, "taps")


class LoopArguments(UpdateArguments, total=False):
    """The keywords of a training step, whatever ranks do, for type checkers; `memory` explains them."""

    loss: str
    optimizer: str | None
    freeze: str | Iterable[str]
    checkpoint: str | Iterable[str]
    autocast: bool
    allocator: str
    zero_grad: str
    accumulate: SupportsIndex
    ema: bool
    clip_grad: bool
    step_in_backward: bool


class TrainingArguments(LoopArguments, GroupArguments, total=False):
    """The keywords of a training step on any device, for type checkers; `memory` explains them."""


class OtherArguments(UpdateArguments, GroupArguments, total=False):
    """The fields of `Update` and `Group` as keywords, for type checkers."""


class StepArguments(TrainingArguments, total=False):
    """The keywords of a step except batch, for type checkers; `memory` explains them."""

    mode: str
    dtype: Dtype
    device: str
    taps: str | Iterable[str]
    cached_target: bool
    trainable: bool


LOOP_KEYWORDS = tuple(LoopArguments.__annotations__)
"""The keywords of a training step, whatever ranks do."""

TRAINING_KEYWORDS = tuple(TrainingArguments.__annotations__)
"""The keywords of a training step on any device."""

OTHERS = tuple(OtherArguments.__annotations__)
"""The keywords that are fields of `Update` and `Group`."""

STEP_KEYWORDS = ("batch", *StepArguments.__annotations__)
"""The keywords of a step."""


def checked_options(network: Network, *, batch: SupportsIndex = 1, **arguments: Unpack[StepArguments]) -> StepOptions:
    """Check arguments of a step of a network; `memory`, `Update` and `Group` explain them.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    options = step_options(batch=batch, **arguments)
    options.check_names(network)
    check_ranks(network, options)
    return options


def check_ranks(network: Network, options: StepOptions) -> None:
    """Refuse what several ranks can't do, where all else has been checked.

    Raises:
        ArgumentError: names the argument, and says why.
    """
    if options.group == NO_GROUP:
        return
    strategy = STRATEGIES[options.group.parallel]
    strategy.check(options.group, options)
    _check_trained(network, options)
    strategy.check_network(options.group, network)
    strategy.check_dtype(options.group, network, options.dtype)


def training_options(*, batch: SupportsIndex, dtype: Dtype, **arguments: Unpack[TrainingArguments]) -> StepOptions:
    """Check arguments of a training step whose figures are of several devices.

    Its tensors are counted on the CPU; `allocator` is for figures of a card. The names of blocks and layers are not
    checked, as they depend on the network, nor whether ranks can run it.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    given: dict[str, Any] = dict(arguments)
    of_group = {word: plain(given.pop(word)) for word in Group.__struct_fields__ if word in given}
    options = step_options(batch=batch, dtype=dtype, device="cuda", **given)
    options = options.replace(device="cpu", group=checked_group(**of_group))
    STRATEGIES[options.group.parallel].check(options.group, options)
    return options


def step_options(
    *,
    batch: SupportsIndex = 1,
    mode: str = "training",
    dtype: Dtype = "float32",
    loss: str = DEFAULT_LOSS,
    optimizer: str | None = None,
    device: str = "cpu",
    freeze: str | Iterable[str] = (),
    checkpoint: str | Iterable[str] = (),
    taps: str | Iterable[str] = (),
    cached_target: bool = False,
    trainable: bool = False,
    autocast: bool = False,
    allocator: str = "",
    zero_grad: str = "set_to_none",
    accumulate: SupportsIndex = 1,
    ema: bool = False,
    clip_grad: bool = False,
    step_in_backward: bool = False,
    **others: Unpack[OtherArguments],
) -> StepOptions:
    """Check arguments of a step, except the names of blocks and layers: those depend on the network.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.
    """
    kind = one_of(MODES, mode, "mode")
    given: dict[str, Any] = {word: plain(value) for word, value in others.items()}
    usual = DEFAULT if "optimizer" in TAKEN[kind] else NONE
    options = StepOptions(
        batch=check_batch(batch),
        mode=kind,
        dtype=dtype_name(dtype),
        loss=one_of(LOSSES, loss, "loss"),
        freeze=_distinct(freeze, "freeze"),
        checkpoint=_distinct(checkpoint, "checkpoint"),
        taps=_distinct(taps, "taps"),
        cached_target=_flag(cached_target, "cached_target"),
        trainable=_flag(trainable, "trainable"),
        optimizer=one_of(OPTIMIZERS, usual if optimizer is None else optimizer, "optimizer"),
        update=Update(**{word: given[word] for word in given if word in Update.__struct_fields__}),
        group=checked_group(**{word: given[word] for word in given if word in Group.__struct_fields__}),
        device=one_of(DEVICES, device, "device"),
        autocast=_flag(autocast, "autocast"),
        allocator=allocator,
        zero_grad=one_of(ZERO_GRADS, zero_grad, "zero_grad"),
        accumulate=whole(accumulate, "accumulate", largest=MOST_ACCUMULATED),
        ema=_flag(ema, "ema"),
        clip_grad=_flag(clip_grad, "clip_grad"),
        step_in_backward=_flag(step_in_backward, "step_in_backward"),
    )
    if options.allocator and options.device != "cuda":
        raise ArgumentError(f"allocator: needs device cuda, found {options.device}")
    Settings.of(options.allocator)  # refuses what is wrong
    if options.autocast and options.dtype != "float32":
        raise ArgumentError(f"autocast: needs dtype float32, found {options.dtype}")
    for word, nothing in ABSENT.items():
        if not options.takes(word) and getattr(options, word) != nothing:
            having = " or ".join(other for other in MODES if word in TAKEN[other])
            named = {"update": next(iter(options.update.given), ""), "group": "parallel"}.get(word, word)
            raise ArgumentError(f"{named}: needs mode {having}, found {options.mode}")
    check_update(options.optimizer, options.update)
    options = options.replace(update=STRATEGIES[options.group.parallel].update_of(options))
    if options.step_in_backward:
        _check_step_in_backward(options)
    STRATEGIES[options.group.parallel].check(options.group, options)
    if options.takes("taps") and not options.taps:
        raise ArgumentError(f"taps: mode {options.mode} needs names of layers, such as relu1_2,relu2_2; found none")
    return options


def _check_step_in_backward(options: StepOptions) -> None:
    """Refuse what needs the gradients of all parameters at once."""
    if options.optimizer == NONE:
        raise ArgumentError(f"step_in_backward: needs an optimizer, found {NONE}")
    for word in options.needing_all_gradients:
        raise ArgumentError(f"{word}: can't be combined with step_in_backward, which frees each gradient at once")


def _check_trained(network: Network, options: StepOptions) -> None:
    """Refuse ranks that train nothing, or what is frozen."""
    frozen = network.parts(options.freeze, "freeze")
    for whose, layers in STRATEGIES[options.group.parallel].models(options.group, network):
        if not any(placed.layer.parameters(placed.input_shape) and placed.name not in frozen for placed in layers):
            parallel = options.group.parallel
            raise ArgumentError(f"parallel: {parallel} needs a parameter that is trained, and {whose} has none")
    STRATEGIES[options.group.parallel].check_frozen(network, frozen)


def _check_layer(network: Network, name: str, argument: str) -> None:
    try:
        network.layer(name)
    except ArgumentError as error:
        raise ArgumentError(f"{argument}: {error}") from None


def _distinct(names: str | Iterable[str], argument: str) -> tuple[str, ...]:
    """Return one name, or several, each once."""
    return tuple(dict.fromkeys(several(names, argument)))


def _flag(given: object, argument: str) -> bool:
    """Return an argument that is on or off; refuse any other."""
    if not isinstance(found := plain(given), bool):
        raise ArgumentError(f"{argument}: expected True or False, found {shorten(given)}")
    return found
