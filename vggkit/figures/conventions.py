"""What other tools print for a network, as formulas over it: which tool, which convention, and what differs.

A convention is one value in `CONVENTIONS`: who says what, how it is written, and the parts that add up to it. The first
part is vggkit's own figure wherever that makes sense, so that the others are the exact difference. The rules were read
in each tool's source at the version that is named, and tests compare them with the tool itself where it installs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec

from vggkit.base.errors import ConfigError
from vggkit.figures.summary import Summary, summarize
from vggkit.footprint.plan import MemoryPlan, memory
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import refusal
from vggkit.network import ELEMENT_BYTES, Network, PlacedLayer, place
from vggkit.notation.config import Entry
from vggkit.notation.layers import (
    ELU,
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    SiLU,
    Softmax,
    elements,
)

Quantity = Literal[
    "parameters",
    "MACs",
    "FLOPs",
    "activations",
    "activation bytes",
    "saved bytes",
    "parameter bytes",
    "input bytes",
    "inference bytes",
    "training bytes",
    "weight layers",
    "receptive field",
]
"""What a number counts. One MAC is two FLOPs; activations are values."""


class Part(NamedTuple):
    """A summand of a figure.

    Args:
        what: what it counts.
        amount: how much; negative where the tool leaves something out.
    """

    what: str
    amount: int


# What is counted


class CountedNetwork:
    """A network, and everything in it that conventions count.

    Args:
        network: as it is built; if it ends in soft-max, models return the scores.
        batch: number of images.
        dtype: torch's name of the numbers' type.
        form: how the network is built, in words.
    """

    def __init__(self, network: Network, batch: int, dtype: str, form: str = "") -> None:
        self.network = network
        self.batch = batch
        self.dtype = dtype
        self.form = form
        self.element_bytes = ELEMENT_BYTES[dtype]

    @cached_property
    def summary(self) -> Summary:
        """Its summary."""
        return summarize(self.network, batch=self.batch, dtype=self.dtype)

    @cached_property
    def training(self) -> MemoryPlan:
        """A training step of it."""
        return memory(self.network, batch=self.batch, dtype=self.dtype)

    @cached_property
    def inference(self) -> MemoryPlan:
        """A forward pass of it."""
        return memory(self.network, batch=self.batch, dtype=self.dtype, mode="inference")

    def ours(self, quantity: Quantity) -> int:
        """Return vggkit's figure."""
        return OURS[quantity].figure(self)

    def gives(self, quantity: Quantity) -> bool:
        """Tell whether a quantity exists: it does not if torch can't run the step that it belongs to."""
        step = OURS[quantity].step
        if step is None:
            return True
        training = StepOptions(batch=self.batch, dtype=self.dtype)
        return refusal(self.network, training if step == "training" else training.forward_only()) is None

    @cached_property
    def layers(self) -> tuple[PlacedLayer, ...]:
        """Its layers that are modules of the model."""
        return self.network.modules()

    @cached_property
    def one_image(self) -> CountedNetwork:
        """The same for one image."""
        return CountedNetwork(self.network, 1, self.dtype, self.form)

    @cached_property
    def input(self) -> int:
        """Number of values of the images."""
        return self.batch * elements(self.network.input_shape)

    @cached_property
    def biased(self) -> int:
        """Outputs of convolutions and FC layers with a bias."""
        return sum(BIASES.amount(placed, self.batch) for placed in self.layers)

    @cached_property
    def weighted(self) -> int:
        """Outputs of convolutions and FC layers."""
        return self._outputs(lambda placed: placed.layer.is_weight_layer)

    @cached_property
    def owning(self) -> int:
        """Outputs of layers that have parameters."""
        return self._outputs(lambda placed: bool(placed.layer.parameters(placed.input_shape)))

    def _outputs(self, belongs: Callable[[PlacedLayer], bool]) -> int:
        return self.batch * sum(elements(placed.output_shape) for placed in self.layers if belongs(placed))

    @cached_property
    def module_outputs(self) -> int:
        """Outputs of all modules, those without memory of their own too; Keras's flatten is four modules in torch."""
        return self.batch * sum(
            elements(placed.output_shape) * (4 if placed.layer == Flatten("hwc") else 1) for placed in self.layers
        )


class Ours(NamedTuple):
    """vggkit's own figure of a quantity.

    Args:
        words: what it counts.
        figure: the figure itself.
        step: the step that it belongs to, which torch may refuse to run; None if it needs no step.
    """

    words: str
    figure: Callable[[CountedNetwork], int]
    step: Literal["training", "inference"] | None = None


OURS: dict[Quantity, Ours] = {
    "parameters": Ours("parameters", lambda counted: counted.summary.totals.parameters),
    "MACs": Ours(
        "MACs of convolutions and FC layers, without biases",
        lambda counted: counted.summary.totals.multiply_accumulates,
    ),
    "FLOPs": Ours("two for each MAC", lambda counted: counted.summary.totals.floating_point_operations),
    "activations": Ours("the input and each output once", lambda counted: counted.summary.totals.activation_elements),
    "activation bytes": Ours("the input and each output once", lambda counted: counted.summary.totals.activation_bytes),
    "saved bytes": Ours(
        "what is kept for the backward pass, each piece of memory once",
        lambda counted: counted.training.saved_for_backward_bytes,
        "training",
    ),
    "parameter bytes": Ours("bytes of the parameters", lambda counted: counted.summary.totals.parameter_bytes),
    "input bytes": Ours("bytes of the images", lambda counted: counted.input * counted.element_bytes),
    "inference bytes": Ours(
        "peak of a forward pass without gradients", lambda counted: counted.inference.peak_bytes, "inference"
    ),
    "training bytes": Ours(
        "peak of a training step with momentum, without weight decay",
        lambda counted: counted.training.peak_bytes,
        "training",
    ),
    "weight layers": Ours("convolutions and FC layers", lambda counted: counted.summary.totals.weight_layers),
    "receptive field": Ours(
        "what an output of the last block sees, its shorter side", lambda counted: min(counted.network.receptive_field)
    ),
}


TORCHVISIONS_FORM = "with torchvision's adaptive 7×7 average pool before the FC layers"


def torchvisions_form(network: Network) -> Network | None:
    """Return the network with torchvision's adaptive pool before the FC layers; None if it can't have it."""
    classifier = network.config.classifier
    if not classifier or not (classifier[0].layer.flattens or classifier[0].layer.needs_flat):
        return None
    pool = Entry(AdaptiveAvgPool2d((7, 7)))
    try:
        return place(msgspec.structs.replace(network.config, classifier=(pool, *classifier)))
    except ConfigError:  # its maps are flat already, or a layer has the pool's name
        return None


# What a tool adds for a layer


class Rule(NamedTuple):
    """What a tool counts for a layer of one kind, beside its multiply-accumulates.

    Args:
        words: what it is.
        amount: counts it, for a batch.
    """

    words: str
    amount: Callable[[PlacedLayer, int], int]


Rules = Mapping[type[Layer], Rule]


def _inputs(placed: PlacedLayer, batch: int) -> int:
    return batch * elements(placed.input_shape)


def _outputs(placed: PlacedLayer, batch: int) -> int:
    return batch * elements(placed.output_shape)


def _biased(placed: PlacedLayer, batch: int) -> int:
    return _outputs(placed, batch) if "bias" in placed.layer.parameters(placed.input_shape) else 0


def _normalized(plain: int, affine: int, untracked: int = 0) -> Rule:
    """Return the rule of a tool that counts a few operations for each normalized value.

    Args:
        plain: how many without scale and shift.
        affine: how many with them.
        untracked: how many more if the batch's own statistics are computed.
    """

    def count(placed: PlacedLayer, batch: int) -> int:
        layer: Any = placed.layer
        own_statistics = not getattr(layer, "track_running_stats", True)
        each = (affine if layer.affine else plain) + (untracked if own_statistics else 0)
        return each * _inputs(placed, batch)

    return Rule(f"{plain} for each value, {affine} if affine", count)


def _parameters_once(placed: PlacedLayer, batch: int) -> int:
    return batch * sum(map(elements, placed.layer.parameters(placed.input_shape).values()))


def _lrn(placed: PlacedLayer, batch: int) -> int:
    channels, height, width = placed.input_shape
    layer: Any = placed.layer
    padding: int = layer.size - 1
    return 3 * _inputs(placed, batch) + batch * (channels + padding) * height * width


def _thop_adaptive(placed: PlacedLayer, batch: int) -> int:
    _, *sizes = placed.input_shape
    _, *counts = placed.output_shape
    kernel = sizes[0] / counts[0] * (sizes[1] / counts[1])
    return int((kernel + 1) * _outputs(placed, batch))  # in floating point, and cut off, as thop does


def _thop_softmax(placed: PlacedLayer, batch: int) -> int:
    features = placed.input_shape[0]
    return _inputs(placed, batch) // features * (3 * features - 1)


BIASES = Rule("one addition for each output with a bias", _biased)
INPUTS = Rule("each of its inputs", _inputs)
OUTPUTS = Rule("each of its outputs", _outputs)
ONE_LRN = Rule("three for each value, one for each padded square", _lrn)

TORCHINFO_RULES: Rules = {
    Conv2d: BIASES,
    Linear: BIASES,
    **dict.fromkeys((BatchNorm, GroupNorm), Rule("its parameters, for each image", _parameters_once)),
}
_ADAPTIVE = (AdaptiveAvgPool2d, GlobalAvgPool2d)
_POOLS = (MaxPool2d, AvgPool2d, *_ADAPTIVE)
FVCORE_RULES: Rules = {
    **dict.fromkeys(_ADAPTIVE, INPUTS),
    BatchNorm: _normalized(1, 2, untracked=3),
    GroupNorm: _normalized(4, 5),
}
FVCORE_TRAINING_RULES: Rules = {**FVCORE_RULES, BatchNorm: _normalized(4, 5)}
THOP_RULES: Rules = {
    BatchNorm: _normalized(2, 4),
    AvgPool2d: OUTPUTS,
    **dict.fromkeys(_ADAPTIVE, Rule("its kernel and one more for each output", _thop_adaptive)),
    Softmax: Rule("three for each value but one", _thop_softmax),
}
ATEN_RULES: Rules = {Conv2d: BIASES, Linear: BIASES}
PTFLOPS_MODULES_RULES: Rules = {
    **ATEN_RULES,
    **dict.fromkeys((ReLU, ELU, LeakyReLU, GELU), OUTPUTS),
    **dict.fromkeys(_POOLS, INPUTS),
    **dict.fromkeys((BatchNorm, GroupNorm), _normalized(1, 2)),
}
PTFLOPS_FUNCTIONS_RULES: Rules = {
    **dict.fromkeys((ReLU, ELU, GELU, SiLU, Softmax, *_POOLS), Rule("each of its inputs, counted once more", _inputs)),
    LocalResponseNorm: ONE_LRN,
}
DEEPSPEED_RULES: Rules = {
    Conv2d: BIASES,
    **dict.fromkeys((ReLU, ELU, LeakyReLU, GELU, SiLU, Softmax, *_POOLS), INPUTS),
    BatchNorm: _normalized(1, 2, untracked=3),
    GroupNorm: _normalized(4, 5),
    LocalResponseNorm: ONE_LRN,
}


def _added(counted: CountedNetwork, *tables: Rules) -> list[Part]:
    """Sum up what a tool counts beside MACs: a part for each kind of layer and rule."""
    amounts: dict[str, int] = {}
    for rules in tables:
        for placed in counted.layers:
            rule = rules.get(type(placed.layer))
            if rule is not None:
                what = f"{placed.layer.keyword}: {rule.words}"
                amounts[what] = amounts.get(what, 0) + rule.amount(placed, counted.batch)
    return [Part(what, amount) for what, amount in amounts.items()]


# How a figure is written


class Writing(NamedTuple):
    """How a tool writes a number.

    Args:
        base: what a prefix stands for: 1000, or 1024 where MiB are meant.
        power: of the base that it is divided by; None for the largest that leaves a number from 1.
        decimals: how many are written.
        unit: what follows the number, with `{}` for the prefix.
    """

    base: int
    power: int | None
    decimals: int
    unit: str

    def power_of(self, number: int) -> int:
        """Return the power of the base that a number is divided by."""
        if self.power is not None:
            return self.power
        return max([0, *(power for power in range(1, 6) if abs(number) >= self.base**power)])

    def write(self, number: int) -> str:
        """Write a number.

        >>> GIGA.write(15483821032), MIB_AS_MB.write(229408576), FULL.write(138357544)
        ('15.48 G', '218.78 MB', '138,357,544')
        """
        power = self.power_of(number)
        decimals = self.decimals if power else 0
        prefix = ("", "k", "M", "G", "T", "P")[power] if "{}" in self.unit else ""
        return f"{number / self.base**power:,.{decimals}f} {self.unit.format(prefix)}".rstrip()


FULL = Writing(1000, 0, 0, "")
GIGA = Writing(1000, None, 2, "{}")
GIGA_MACS = Writing(1000, None, 2, "{}MACs")
GIGA_FLOPS = Writing(1000, None, 2, "{}FLOPs")
GIGA_MAC = Writing(1000, None, 2, "{}Mac")
GIGA_BYTES = Writing(1000, None, 2, "{}B")
THREE_DECIMALS = Writing(1000, None, 3, "{}")
MILLIONS = Writing(1000, 2, 1, "M")
WHOLE_MILLIONS = Writing(1000, 2, 0, "M")
WHOLE_MB = Writing(1000, 2, 0, "MB")
DECIMAL_MB = Writing(1000, 2, 2, "MB")
MIB_AS_MB = Writing(1024, 2, 2, "MB")


# The conventions


class Tool(NamedTuple):
    """Who prints numbers: a program, a card, a lecture, a paper.

    Args:
        name: what it is called.
        version: the one whose source its rules were read in; empty if it has none.
        per_image: whether it always counts one image, whatever the batch.
        has_pool: whether its networks may have torchvision's pool.
    """

    name: str
    version: str = ""
    per_image: bool = False
    has_pool: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


Parts = Callable[[CountedNetwork], list[Part]]


class Convention(msgspec.Struct, frozen=True):
    """A number that a tool prints.

    Args:
        tool: who prints it.
        label: what the tool calls it.
        quantity: what it counts. It is compared with vggkit's figure of the same quantity.
        writing: how the tool writes it.
        why: what the convention is, in a sentence.
        made_of: returns its parts; None if it is vggkit's own figure. No parts mean that the tool says nothing about
            this network.
        headers: bytes for each stored tensor by which a file may be larger than its values.
    """

    tool: Tool
    label: str
    quantity: Quantity
    writing: Writing
    why: str
    made_of: Parts | None = None
    headers: int = 0

    def counted(self, network: CountedNetwork) -> CountedNetwork:
        """Return what the tool counts: the network's batch, or one image of it."""
        return network.one_image if self.tool.per_image else network

    def parts(self, counted: CountedNetwork) -> list[Part]:
        """Return what the figure is made of."""
        return (self.made_of or _ours(self.quantity))(counted)


def _ours(quantity: Quantity) -> Parts:
    return lambda counted: [Part(f"vggkit: {OURS[quantity].words}", counted.ours(quantity))]


def _and(quantity: Quantity, what: str, amount: Callable[[CountedNetwork], int]) -> Parts:
    """Return vggkit's figure, and one thing that a tool adds to it or leaves out."""
    return lambda counted: [*_ours(quantity)(counted), Part(what, amount(counted))]


def _macs(*tables: Rules) -> Parts:
    return lambda counted: [*_ours("MACs")(counted), *_added(counted, *tables)]


def _flops(*tables: Rules) -> Parts:
    return lambda counted: [*_ours("FLOPs")(counted), *_added(counted, *tables)]


def _thrice(parts: Parts) -> Parts:
    def tripled(counted: CountedNetwork) -> list[Part]:
        forward = parts(counted)
        return [*forward, Part("twice as much again for the backward pass", 2 * sum(part.amount for part in forward))]

    return tripled


FLOAT_BYTES = 4
_FOUR_BYTES = "four bytes for each value, whatever the dtype"

_without_biases = _and("parameters", "biases left out", lambda counted: -counted.summary.totals.biases)
_stored = _and("parameters", "running statistics", lambda counted: counted.summary.totals.statistics)
_stored_bytes = _and("parameter bytes", "running statistics", lambda counted: counted.summary.totals.statistics_bytes)
_float_parameters = _and(
    "parameter bytes",
    _FOUR_BYTES,
    lambda counted: (FLOAT_BYTES - counted.element_bytes) * counted.ours("parameters"),
)
_float_input = _and("input bytes", _FOUR_BYTES, lambda counted: (FLOAT_BYTES - counted.element_bytes) * counted.input)
_thop_parameters = _and(
    "parameters",
    "groupnorm left out",
    lambda counted: -sum(row.parameters for row in counted.summary if isinstance(row.layer, GroupNorm)),
)


def _file_bytes(counted: CountedNetwork) -> list[Part]:
    counters = [
        name
        for placed in counted.layers
        for name, shape in placed.layer.buffers(placed.input_shape).items()
        if not shape
    ]
    return [*_stored_bytes(counted), Part("batch norm's counters, 8 bytes each", 8 * len(counters))]


def _weighted_outputs(counted: CountedNetwork) -> list[Part]:
    everything = counted.ours("activations")
    return [
        *_ours("activations")(counted),
        Part("the input left out", -counted.input),
        Part(
            "outputs of layers other than convolutions and FC layers left out",
            counted.input + counted.weighted - everything,
        ),
    ]


def _owning_outputs_doubled(counted: CountedNetwork) -> list[Part]:
    size, everything = counted.element_bytes, counted.ours("activations")
    return [
        *_ours("activation bytes")(counted),
        Part("the input left out", -size * counted.input),
        Part("outputs of layers without parameters left out", size * (counted.input + counted.owning - everything)),
        Part("doubled, “for gradients”", size * counted.owning),
    ]


def _module_outputs_doubled(counted: CountedNetwork) -> list[Part]:
    size, everything, modules = counted.element_bytes, counted.ours("activations"), counted.module_outputs
    return [
        *_ours("activation bytes")(counted),
        Part("the input left out", -size * counted.input),
        Part(
            "outputs without memory of their own (in-place ReLU, flatten, dropout)",
            size * (counted.input + modules - everything),
        ),
        Part(_FOUR_BYTES, (FLOAT_BYTES - size) * modules),
        Part("doubled, “for gradients”", FLOAT_BYTES * modules),
    ]


def _torchinfo_total(counted: CountedNetwork) -> list[Part]:
    passes = sum(part.amount for part in _owning_outputs_doubled(counted))
    return [
        Part("input", counted.ours("input bytes")),
        Part("“forward/backward pass”: outputs of layers with parameters, doubled", passes),
        Part("parameters", counted.ours("parameter bytes")),
    ]


def _torchsummary_total(counted: CountedNetwork) -> list[Part]:
    return [
        Part("input", FLOAT_BYTES * counted.input),
        Part("“forward/backward pass”: outputs of all modules, doubled", 2 * FLOAT_BYTES * counted.module_outputs),
        Part("parameters", FLOAT_BYTES * counted.ours("parameters")),
    ]


LECTURES_WEIGHTS, LECTURES_VALUES = 138_344_128, 15_237_608
"""What the lines of the lecture's listing of VGGNet add up to."""


def _lecture(quantity: Quantity, figure: int) -> Parts:
    """Return what the lecture says, for its own network only, beside what its lines add up to."""

    def parts(counted: CountedNetwork) -> list[Part]:
        totals = counted.summary.totals
        if (totals.weights, totals.activation_elements) != (LECTURES_WEIGHTS, LECTURES_VALUES):
            return []
        ours = _ours(quantity)(counted)
        return [*ours, Part("not in the lecture's own lines", figure - ours[0].amount)]

    return parts


LECTURES_LINES = (
    "the lecture's own lines add up to 15,237,608 values, 60.95 MB (its issue 88); what is kept for the backward"
    " pass is not twice that"
)
BOTH = "weights and biases"
AS_HERE = "MACs as vggkit counts them"
FVCORES_FLOPS = "MACs, called flops; adaptive pools and norms are counted, max pools are skipped"
WEIGHTED_OUTPUTS = "outputs of convolutions and FC layers only"
OPERATIONS = "two for each MAC; activations, pools, norms and convolutions' biases count, FC layers' do not"
FORWARD_BACKWARD = (
    "no pass holds this: pools are left out, outputs are counted for their gradients too, and indices and masks are not"
)

VGGKIT = Tool("vggkit", has_pool=False)
TORCHINFO = Tool("torchinfo", "1.8.0")
TORCHSUMMARY = Tool("torchsummary", "1.5.1")
KERAS = Tool("Keras", "3.15.1", per_image=True, has_pool=False)
KERAS_IO = Tool("keras.io", per_image=True, has_pool=False)
FVCORE = Tool("fvcore", "0.1.5")
THOP = Tool("thop", "0.1.1")
PTFLOPS = Tool("ptflops", "0.7.5", per_image=True)
CALFLOPS = Tool("calflops", "0.3.2")
DEEPSPEED = Tool("DeepSpeed", "0.19.8")
TORCH = Tool("torch's FlopCounterMode", "2.14")
TIMM = Tool("timm's card", "1.0", per_image=True, has_pool=False)
TORCHVISION = Tool("torchvision's metadata", "0.29.1", per_image=True)
LECTURE = Tool("CS231n", per_image=True, has_pool=False)
LECTURE_NOTES = Tool("CS231n", "notes", per_image=True, has_pool=False)
LECTURE_SLIDES = Tool("CS231n", "slides", per_image=True, has_pool=False)
PAPER = Tool("the paper", per_image=True, has_pool=False)

CONVENTIONS = (
    Convention(VGGKIT, "weight layers", "weight layers", FULL, "as the paper counts depth"),
    Convention(VGGKIT, "receptive field", "receptive field", FULL, "in pixels"),
    Convention(VGGKIT, "MACs", "MACs", GIGA, "bias additions are none"),
    Convention(VGGKIT, "FLOPs", "FLOPs", GIGA_FLOPS, "two for each MAC"),
    Convention(VGGKIT, "parameters", "parameters", FULL, BOTH),
    Convention(VGGKIT, "activations", "activation bytes", GIGA_BYTES, "the input and each output once"),
    Convention(VGGKIT, "activations", "activations", FULL, "the input and each output once"),
    Convention(VGGKIT, "saved for backward", "saved bytes", GIGA_BYTES, "each piece of memory once"),
    Convention(
        VGGKIT,
        "inference peak",
        "inference bytes",
        GIGA_BYTES,
        "parameters, and the activations that are alive together",
    ),
    Convention(
        VGGKIT,
        "training peak",
        "training bytes",
        GIGA_BYTES,
        "parameters, gradients, momentum and all that is alive together",
    ),
    Convention(VGGKIT, "parameters", "parameter bytes", GIGA_BYTES, "weights and biases, in decimal units"),
    Convention(
        TORCHINFO,
        "Total mult-adds",
        "MACs",
        GIGA,
        "parameters times positions: a bias counts as a multiply-add; its unit “GIGABYTES” is a slip (its issue 350)",
        _macs(TORCHINFO_RULES),
    ),
    Convention(TORCHINFO, "Total params", "parameters", FULL, BOTH),
    Convention(TORCHINFO, "Input size (MB)", "input bytes", DECIMAL_MB, "in 10⁶ bytes"),
    Convention(
        TORCHINFO,
        "Forward/backward pass size (MB)",
        "activation bytes",
        DECIMAL_MB,
        f"outputs of layers with parameters, doubled, in 10⁶ bytes; {FORWARD_BACKWARD}",
        _owning_outputs_doubled,
    ),
    Convention(TORCHINFO, "Params size (MB)", "parameter bytes", DECIMAL_MB, "in 10⁶ bytes"),
    Convention(
        TORCHINFO,
        "Estimated Total Size (MB)",
        "training bytes",
        DECIMAL_MB,
        "in 10⁶ bytes; without gradients of the parameters, optimizer state and temporaries",
        _torchinfo_total,
    ),
    Convention(TORCHSUMMARY, "Total params", "parameters", FULL, BOTH),
    Convention(TORCHSUMMARY, "Input size (MB)", "input bytes", MIB_AS_MB, "in MiB, called MB", _float_input),
    Convention(
        TORCHSUMMARY,
        "Forward/backward pass size (MB)",
        "activation bytes",
        MIB_AS_MB,
        f"outputs of all modules, doubled, in MiB, called MB; {FORWARD_BACKWARD}",
        _module_outputs_doubled,
    ),
    Convention(TORCHSUMMARY, "Params size (MB)", "parameter bytes", MIB_AS_MB, "in MiB, called MB", _float_parameters),
    Convention(
        TORCHSUMMARY,
        "Estimated Total Size (MB)",
        "training bytes",
        MIB_AS_MB,
        "in MiB, called MB; without gradients of the parameters, optimizer state and temporaries",
        _torchsummary_total,
    ),
    Convention(KERAS, "Total params", "parameters", FULL, "weights, biases and running statistics", _stored),
    Convention(
        KERAS,
        "Total params (MB)",
        "parameter bytes",
        MIB_AS_MB,
        "running statistics too, in MiB, called MB",
        _stored_bytes,
    ),
    Convention(
        KERAS_IO,
        "Size (MB)",
        "parameter bytes",
        Writing(1024, 2, 0, "MB"),
        "the table of keras.applications; in MiB, called MB",
        _stored_bytes,
    ),
    Convention(FVCORE, "#flops, model.eval()", "MACs", THREE_DECIMALS, FVCORES_FLOPS, _macs(FVCORE_RULES)),
    Convention(FVCORE, "#flops, model.train()", "MACs", THREE_DECIMALS, FVCORES_FLOPS, _macs(FVCORE_TRAINING_RULES)),
    Convention(FVCORE, "#activations", "activations", THREE_DECIMALS, WEIGHTED_OUTPUTS, _weighted_outputs),
    Convention(THOP, "ops", "MACs", GIGA, "MACs; average pools and batch norm are counted", _macs(THOP_RULES)),
    Convention(THOP, "params", "parameters", GIGA, "parameters of the layer kinds that it knows", _thop_parameters),
    Convention(
        PTFLOPS,
        "complexity, the default",
        "MACs",
        GIGA_MAC,
        "biases, activations, pools and norms are counted; what is both a module and a function is counted twice",
        _macs(PTFLOPS_MODULES_RULES, PTFLOPS_FUNCTIONS_RULES),
    ),
    Convention(
        PTFLOPS,
        "complexity, count_functional=False",
        "MACs",
        GIGA_MAC,
        "biases, activations, pools and norms are counted",
        _macs(PTFLOPS_MODULES_RULES),
    ),
    Convention(
        PTFLOPS,
        'complexity, backend="aten"',
        "MACs",
        GIGA_MAC,
        "a bias counts as a multiply-accumulate",
        _macs(ATEN_RULES),
    ),
    Convention(PTFLOPS, "params", "parameters", GIGA, BOTH),
    Convention(CALFLOPS, "MACs", "MACs", GIGA_MACS, AS_HERE),
    Convention(CALFLOPS, "FLOPs", "FLOPs", GIGA_FLOPS, OPERATIONS, _flops(DEEPSPEED_RULES)),
    Convention(CALFLOPS, "fwd+bwd MACs", "MACs", GIGA_MACS, "three times the forward pass", _thrice(_ours("MACs"))),
    Convention(
        CALFLOPS, "fwd+bwd FLOPs", "FLOPs", GIGA_FLOPS, "three times the forward pass", _thrice(_flops(DEEPSPEED_RULES))
    ),
    Convention(DEEPSPEED, "fwd MACs", "MACs", GIGA_MACS, AS_HERE),
    Convention(DEEPSPEED, "fwd flops", "FLOPs", GIGA, OPERATIONS, _flops(DEEPSPEED_RULES)),
    Convention(TORCH, "Total", "FLOPs", Writing(1000, None, 3, "{}FLOPs"), "two for each MAC, biases not counted"),
    Convention(TIMM, "Params (M)", "parameters", MILLIONS, BOTH),
    Convention(TIMM, "GMACs", "MACs", Writing(1000, 3, 1, "GMACs"), AS_HERE),
    Convention(TIMM, "Activations (M)", "activations", MILLIONS, WEIGHTED_OUTPUTS, _weighted_outputs),
    Convention(TORCHVISION, "num_params", "parameters", FULL, BOTH),
    Convention(
        TORCHVISION,
        "_ops (shown as GFLOPS)",
        "MACs",
        Writing(1000, 3, 3, "GMACs"),
        "MACs, though its documentation says GFLOPS",
    ),
    Convention(
        TORCHVISION,
        "_file_size (shown as MB)",
        "parameter bytes",
        Writing(1024, 2, 3, "MB"),
        "the file in MiB, called MB: values, and a little for their names and headers",
        _file_bytes,
        headers=512,
    ),
    Convention(
        LECTURE,
        "TOTAL params",
        "parameters",
        WHOLE_MILLIONS,
        "the lecture's lines count weights and leave biases out",
        _without_biases,
    ),
    Convention(
        LECTURE_NOTES,
        "24M * 4 bytes ~= 93MB / image",
        "activation bytes",
        WHOLE_MB,
        LECTURES_LINES,
        _lecture("activation bytes", 93_000_000),
    ),
    Convention(
        LECTURE_SLIDES,
        "24M * 4 bytes ~= 96MB / image",
        "activation bytes",
        WHOLE_MB,
        LECTURES_LINES,
        _lecture("activation bytes", 96_000_000),
    ),
    Convention(
        LECTURE,
        "TOTAL memory: 24M values",
        "activations",
        WHOLE_MILLIONS,
        LECTURES_LINES,
        _lecture("activations", 24_000_000),
    ),
    Convention(PAPER, "Table 2, in millions", "parameters", WHOLE_MILLIONS, BOTH),
)
