"""What other tools print for a network, as formulas over it: which tool, which convention, and what differs.

A convention is a value: who says what, how it is written, and the parts that add up to it. The first part is vggkit's
own figure wherever that makes sense, so that the others are the exact difference. The rules were read in each tool's
source at the version that is named, and tests hold them against the tool itself where it installs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec

from vggkit.base.errors import ConfigError
from vggkit.figures.summary import Summary, summarize
from vggkit.footprint.plan import MemoryPlan, Options, forward_only, memory, refusal
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


class Counted:
    """A network, and what conventions count of it.

    Args:
        network: as it is built; where it ends in soft-max, models hand on the scores.
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

    def gives(self, quantity: Quantity) -> bool:
        """Tell whether torch runs the step that a quantity is of."""
        step = Options(batch=self.batch, dtype=self.dtype)
        steps = {"saved bytes": step, "training bytes": step, "inference bytes": forward_only(step)}
        return quantity not in steps or refusal(self.network, steps[quantity]) is None

    @cached_property
    def layers(self) -> tuple[PlacedLayer, ...]:
        """Its layers that are modules of the model."""
        return self.network.modules()

    @cached_property
    def one_image(self) -> Counted:
        """The same for one image."""
        return Counted(self.network, 1, self.dtype, self.form)

    @cached_property
    def input(self) -> int:
        """Values of the images."""
        return self.batch * elements(self.network.input_shape)

    @cached_property
    def biased(self) -> int:
        """Outputs of convolutions and FC layers with a bias."""
        return sum(BIASES.amount(placed, self.batch) for placed in self.layers)

    @cached_property
    def weighted(self) -> int:
        """Outputs of convolutions and FC layers."""
        return self._outputs(lambda placed: placed.layer.role == "weight")

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

    def ours(self, quantity: Quantity) -> int:
        """Return vggkit's figure."""
        totals = self.summary.totals
        if quantity == "saved bytes":
            return self.training.saved_for_backward_bytes
        if quantity == "training bytes":
            return self.training.peak_bytes
        if quantity == "inference bytes":
            return memory(self.network, batch=self.batch, dtype=self.dtype, mode="inference").peak_bytes
        figures: dict[Quantity, int] = {
            "parameters": totals.parameters,
            "MACs": totals.multiply_accumulates,
            "FLOPs": totals.floating_point_operations,
            "activations": totals.activation_elements,
            "activation bytes": totals.activation_bytes,
            "parameter bytes": totals.parameter_bytes,
            "input bytes": self.input * self.element_bytes,
            "weight layers": totals.weight_layers,
            "receptive field": min(self.network.receptive_field),
        }
        return figures[quantity]


OURS: dict[Quantity, str] = {
    "parameters": "parameters",
    "MACs": "MACs of convolutions and FC layers, without biases",
    "FLOPs": "two for each MAC",
    "activations": "the input and each output once",
    "activation bytes": "the input and each output once",
    "saved bytes": "what is kept for the backward pass, each piece of memory once",
    "parameter bytes": "bytes of the parameters",
    "input bytes": "bytes of the images",
    "inference bytes": "peak of a forward pass without gradients",
    "training bytes": "peak of a training step with momentum, without weight decay",
    "weight layers": "convolutions and FC layers",
    "receptive field": "what an output of the last block sees, its shorter side",
}
"""What vggkit's figure of each quantity is."""


TORCHVISIONS_FORM = "with torchvision's adaptive 7×7 average pool before the FC layers"


def torchvisions_form(network: Network) -> Network | None:
    """Return the network with torchvision's adaptive pool before the FC layers; None if it can't have it."""
    classifier = network.config.classifier
    if not classifier or not isinstance(classifier[0].layer, (Flatten, Linear)):
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
    """Return the rule of a tool that counts so many operations for each value that is normalised.

    Args:
        plain: without scale and shift.
        affine: with them.
        untracked: so many more where the batch's own statistics are computed.
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

TORCHINFO: Rules = {
    Conv2d: BIASES,
    Linear: BIASES,
    **dict.fromkeys((BatchNorm, GroupNorm), Rule("its parameters, for each image", _parameters_once)),
}
_ADAPTIVE = (AdaptiveAvgPool2d, GlobalAvgPool2d)
_POOLS = (MaxPool2d, AvgPool2d, *_ADAPTIVE)
FVCORE: Rules = {
    **dict.fromkeys(_ADAPTIVE, INPUTS),
    BatchNorm: _normalized(1, 2, untracked=3),
    GroupNorm: _normalized(4, 5),
}
FVCORE_TRAINING: Rules = {**FVCORE, BatchNorm: _normalized(4, 5)}
THOP: Rules = {
    BatchNorm: _normalized(2, 4),
    AvgPool2d: OUTPUTS,
    **dict.fromkeys(_ADAPTIVE, Rule("its kernel and one more for each output", _thop_adaptive)),
    Softmax: Rule("three for each value but one", _thop_softmax),
}
ATEN: Rules = {Conv2d: BIASES, Linear: BIASES}
PTFLOPS_MODULES: Rules = {
    **ATEN,
    **dict.fromkeys((ReLU, ELU, LeakyReLU, GELU), OUTPUTS),
    **dict.fromkeys(_POOLS, INPUTS),
    **dict.fromkeys((BatchNorm, GroupNorm), _normalized(1, 2)),
}
PTFLOPS_FUNCTIONS: Rules = {
    **dict.fromkeys((ReLU, ELU, GELU, SiLU, Softmax, *_POOLS), Rule("each of its inputs, counted once more", _inputs)),
    LocalResponseNorm: ONE_LRN,
}
DEEPSPEED: Rules = {
    Conv2d: BIASES,
    **dict.fromkeys((ReLU, ELU, LeakyReLU, GELU, SiLU, Softmax, *_POOLS), INPUTS),
    BatchNorm: _normalized(1, 2, untracked=3),
    GroupNorm: _normalized(4, 5),
    LocalResponseNorm: ONE_LRN,
}


def _added(counted: Counted, *tables: Rules) -> list[Part]:
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
        unit: what stands behind it, with `{}` for the prefix.
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
DECIMAL_MB = Writing(1000, 2, 2, "MB")
MIB_AS_MB = Writing(1024, 2, 2, "MB")


# The conventions


class Convention(msgspec.Struct, frozen=True):
    """A number that a tool prints.

    Args:
        tool: who prints it.
        version: of the tool, where it matters.
        label: what the tool calls it.
        quantity: what it counts, and so which of vggkit's figures it stands beside.
        writing: how the tool writes it.
        parts: what it is made of; an empty list where the tool says nothing of this network.
        why: what the convention is, in a sentence.
        per_image: whether the tool always says it of one image.
        headers: bytes for each stored tensor by which a file may be larger than its values.
    """

    tool: str
    version: str
    label: str
    quantity: Quantity
    writing: Writing
    parts: Callable[[Counted], list[Part]]
    why: str
    per_image: bool = False
    headers: int = 0

    @property
    def source(self) -> str:
        """The tool with its version."""
        return f"{self.tool} {self.version}".rstrip()


def _ours(quantity: Quantity) -> Callable[[Counted], list[Part]]:
    return lambda counted: [Part(f"vggkit: {OURS[quantity]}", counted.ours(quantity))]


def _macs(*tables: Rules) -> Callable[[Counted], list[Part]]:
    return lambda counted: [*_ours("MACs")(counted), *_added(counted, *tables)]


def _flops(*tables: Rules) -> Callable[[Counted], list[Part]]:
    return lambda counted: [*_ours("FLOPs")(counted), *_added(counted, *tables)]


def _thrice(parts: Callable[[Counted], list[Part]]) -> Callable[[Counted], list[Part]]:
    def tripled(counted: Counted) -> list[Part]:
        forward = parts(counted)
        return [*forward, Part("twice as much again for the backward pass", 2 * sum(part.amount for part in forward))]

    return tripled


def _without_biases(counted: Counted) -> list[Part]:
    return [*_ours("parameters")(counted), Part("biases left out", -counted.summary.totals.biases)]


def _stored(counted: Counted) -> list[Part]:
    return [*_ours("parameters")(counted), Part("running statistics", counted.summary.totals.statistics)]


def _stored_bytes(counted: Counted) -> list[Part]:
    return [*_ours("parameter bytes")(counted), Part("running statistics", counted.summary.totals.statistics_bytes)]


def _file_bytes(counted: Counted) -> list[Part]:
    batches = sum(
        shape == () for placed in counted.layers for shape in placed.layer.buffers(placed.input_shape).values()
    )
    return [*_stored_bytes(counted), Part("batch norm's counters, 8 bytes each", 8 * batches)]


def _thop_parameters(counted: Counted) -> list[Part]:
    missed = sum(row.parameters for row in counted.summary if isinstance(row.layer, GroupNorm))
    return [*_ours("parameters")(counted), Part("groupnorm left out", -missed)]


def _weighted_outputs(counted: Counted) -> list[Part]:
    everything = counted.ours("activations")
    return [
        *_ours("activations")(counted),
        Part("the input left out", -counted.input),
        Part(
            "outputs of layers other than convolutions and FC layers left out",
            counted.input + counted.weighted - everything,
        ),
    ]


def _owning_outputs_doubled(counted: Counted) -> list[Part]:
    size, everything = counted.element_bytes, counted.ours("activations")
    return [
        *_ours("activation bytes")(counted),
        Part("the input left out", -size * counted.input),
        Part("outputs of layers without parameters left out", size * (counted.input + counted.owning - everything)),
        Part("doubled, “for gradients”", size * counted.owning),
    ]


def _module_outputs_doubled(counted: Counted) -> list[Part]:
    size, everything, modules = counted.element_bytes, counted.ours("activations"), counted.module_outputs
    return [
        *_ours("activation bytes")(counted),
        Part("the input left out", -size * counted.input),
        Part(
            "outputs without memory of their own (in-place ReLU, flatten, dropout)",
            size * (counted.input + modules - everything),
        ),
        Part("four bytes for each value, whatever the dtype", (FLOAT_BYTES - size) * modules),
        Part("doubled, “for gradients”", FLOAT_BYTES * modules),
    ]


FLOAT_BYTES = 4


def _float_parameters(counted: Counted) -> list[Part]:
    other = (FLOAT_BYTES - counted.element_bytes) * counted.ours("parameters")
    return [*_ours("parameter bytes")(counted), Part("four bytes for each value, whatever the dtype", other)]


def _float_input(counted: Counted) -> list[Part]:
    other = (FLOAT_BYTES - counted.element_bytes) * counted.input
    return [*_ours("input bytes")(counted), Part("four bytes for each value, whatever the dtype", other)]


def _torchinfo_total(counted: Counted) -> list[Part]:
    passes = sum(part.amount for part in _owning_outputs_doubled(counted))
    return [
        Part("input", counted.ours("input bytes")),
        Part("“forward/backward pass”: outputs of layers with parameters, doubled", passes),
        Part("parameters", counted.ours("parameter bytes")),
    ]


def _torchsummary_total(counted: Counted) -> list[Part]:
    return [
        Part("input", FLOAT_BYTES * counted.input),
        Part("“forward/backward pass”: outputs of all modules, doubled", 2 * FLOAT_BYTES * counted.module_outputs),
        Part("parameters", FLOAT_BYTES * counted.ours("parameters")),
    ]


LECTURES_WEIGHTS, LECTURES_VALUES = 138_344_128, 15_237_608
"""What the lines of the lecture's listing of VGGNet add up to."""


def _lecture(quantity: Quantity, figure: int) -> Callable[[Counted], list[Part]]:
    """Return what the lecture says, for its own network only, beside what its lines add up to."""

    def parts(counted: Counted) -> list[Part]:
        totals = counted.summary.totals
        if (totals.weights, totals.activation_elements) != (LECTURES_WEIGHTS, LECTURES_VALUES):
            return []
        ours = _ours(quantity)(counted)
        return [*ours, Part("not in the lecture's own lines", figure - ours[0].amount)]

    return parts


LECTURE = (
    "the lecture's own lines add up to 15,237,608 values, 60.95 MB (its issue 88); what is kept for the backward"
    " pass is not twice that"
)
BOTH = "weights and biases"
AS_HERE = "MACs as vggkit counts them"
OPERATIONS = "two for each MAC; activations, pools, norms and convolutions' biases count, FC layers' do not"
FORWARD_BACKWARD = (
    "no pass holds this: pools are left out, outputs are counted for their gradients too, and indices and masks are not"
)

CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        "vggkit", "", "weight layers", "weight layers", FULL, _ours("weight layers"), "as the paper counts depth"
    ),
    Convention("vggkit", "", "receptive field", "receptive field", FULL, _ours("receptive field"), "in pixels"),
    Convention("vggkit", "", "MACs", "MACs", GIGA, _ours("MACs"), "bias additions are none"),
    Convention("vggkit", "", "FLOPs", "FLOPs", GIGA_FLOPS, _ours("FLOPs"), "two for each MAC"),
    Convention("vggkit", "", "parameters", "parameters", FULL, _ours("parameters"), BOTH),
    Convention(
        "vggkit", "", "activations", "activation bytes", Writing(1000, None, 2, "{}B"), _ours("activation bytes"),
        "the input and each output once",
    ),
    Convention(
        "vggkit", "", "activations", "activations", FULL, _ours("activations"), "the input and each output once"
    ),
    Convention(
        "vggkit", "", "saved for backward", "saved bytes", Writing(1000, None, 2, "{}B"), _ours("saved bytes"),
        "each piece of memory once",
    ),
    Convention(
        "vggkit", "", "inference peak", "inference bytes", Writing(1000, None, 2, "{}B"), _ours("inference bytes"),
        "parameters, and the activations that are alive together",
    ),
    Convention(
        "vggkit", "", "training peak", "training bytes", Writing(1000, None, 2, "{}B"), _ours("training bytes"),
        "parameters, gradients, momentum and all that is alive together",
    ),
    Convention(
        "vggkit", "", "parameters", "parameter bytes", Writing(1000, None, 2, "{}B"), _ours("parameter bytes"),
        "weights and biases, in decimal units",
    ),
    Convention(
        "torchinfo", "1.8.0", "Total mult-adds", "MACs", GIGA, _macs(TORCHINFO),
        "parameters times positions: a bias counts as a multiply-add; its unit “GIGABYTES” is a slip (its issue 350)",
    ),
    Convention("torchinfo", "1.8.0", "Total params", "parameters", FULL, _ours("parameters"), BOTH),
    Convention(
        "torchinfo", "1.8.0", "Input size (MB)", "input bytes", DECIMAL_MB, _ours("input bytes"), "in 10⁶ bytes"
    ),
    Convention(
        "torchinfo", "1.8.0", "Forward/backward pass size (MB)", "activation bytes", DECIMAL_MB,
        _owning_outputs_doubled,
        f"outputs of layers with parameters, doubled, in 10⁶ bytes; {FORWARD_BACKWARD}",
    ),
    Convention(
        "torchinfo", "1.8.0", "Params size (MB)", "parameter bytes", DECIMAL_MB, _ours("parameter bytes"),
        "in 10⁶ bytes",
    ),
    Convention(
        "torchinfo", "1.8.0", "Estimated Total Size (MB)", "training bytes", DECIMAL_MB, _torchinfo_total,
        "in 10⁶ bytes; without gradients of the parameters, optimizer state and temporaries",
    ),
    Convention("torchsummary", "1.5.1", "Total params", "parameters", FULL, _ours("parameters"), BOTH),
    Convention(
        "torchsummary", "1.5.1", "Input size (MB)", "input bytes", MIB_AS_MB, _float_input, "in MiB, called MB"
    ),
    Convention(
        "torchsummary", "1.5.1", "Forward/backward pass size (MB)", "activation bytes", MIB_AS_MB,
        _module_outputs_doubled,
        f"outputs of all modules, doubled, in MiB, called MB; {FORWARD_BACKWARD}",
    ),
    Convention(
        "torchsummary", "1.5.1", "Params size (MB)", "parameter bytes", MIB_AS_MB, _float_parameters,
        "in MiB, called MB",
    ),
    Convention(
        "torchsummary", "1.5.1", "Estimated Total Size (MB)", "training bytes", MIB_AS_MB, _torchsummary_total,
        "in MiB, called MB; without gradients of the parameters, optimizer state and temporaries",
    ),
    Convention(
        "Keras", "3.15.1", "Total params", "parameters", FULL, _stored,
        "weights, biases and running statistics", per_image=True,
    ),
    Convention(
        "Keras", "3.15.1", "Total params (MB)", "parameter bytes", MIB_AS_MB, _stored_bytes,
        "running statistics too, in MiB, called MB", per_image=True,
    ),
    Convention(
        "keras.io", "", "Size (MB)", "parameter bytes", Writing(1024, 2, 0, "MB"), _stored_bytes,
        "the table of keras.applications; in MiB, called MB", per_image=True,
    ),
    Convention(
        "fvcore", "0.1.5", "#flops, model.eval()", "MACs", Writing(1000, None, 3, "{}"), _macs(FVCORE),
        "MACs, called flops; adaptive pools and norms are counted, max pools are skipped",
    ),
    Convention(
        "fvcore", "0.1.5", "#flops, model.train()", "MACs", Writing(1000, None, 3, "{}"), _macs(FVCORE_TRAINING),
        "MACs, called flops; adaptive pools and norms are counted, max pools are skipped",
    ),
    Convention(
        "fvcore", "0.1.5", "#activations", "activations", Writing(1000, None, 3, "{}"), _weighted_outputs,
        "outputs of convolutions and FC layers only",
    ),
    Convention(
        "thop", "0.1.1", "ops", "MACs", GIGA, _macs(THOP), "MACs; average pools and batch norm are counted"
    ),
    Convention(
        "thop", "0.1.1", "params", "parameters", GIGA, _thop_parameters,
        "parameters of the kinds of layers that it knows",
    ),
    Convention(
        "ptflops", "0.7.5", "complexity, the default", "MACs", Writing(1000, None, 2, "{}Mac"),
        _macs(PTFLOPS_MODULES, PTFLOPS_FUNCTIONS),
        "biases, activations, pools and norms are counted, and what is a module and a function is counted twice",
        per_image=True,
    ),
    Convention(
        "ptflops", "0.7.5", "complexity, count_functional=False", "MACs", Writing(1000, None, 2, "{}Mac"),
        _macs(PTFLOPS_MODULES), "biases, activations, pools and norms are counted", per_image=True,
    ),
    Convention(
        "ptflops", "0.7.5", "complexity, backend=\"aten\"", "MACs", Writing(1000, None, 2, "{}Mac"), _macs(ATEN),
        "a bias counts as a multiply-accumulate", per_image=True,
    ),
    Convention("ptflops", "0.7.5", "params", "parameters", GIGA, _ours("parameters"), BOTH, per_image=True),
    Convention("calflops", "0.3.2", "MACs", "MACs", GIGA_MACS, _ours("MACs"), AS_HERE),
    Convention(
        "calflops", "0.3.2", "FLOPs", "FLOPs", GIGA_FLOPS, _flops(DEEPSPEED),
        OPERATIONS,
    ),
    Convention(
        "calflops", "0.3.2", "fwd+bwd MACs", "MACs", GIGA_MACS, _thrice(_ours("MACs")), "three times the forward pass"
    ),
    Convention(
        "calflops", "0.3.2", "fwd+bwd FLOPs", "FLOPs", GIGA_FLOPS, _thrice(_flops(DEEPSPEED)),
        "three times the forward pass",
    ),
    Convention("DeepSpeed", "0.19.8", "fwd MACs", "MACs", GIGA_MACS, _ours("MACs"), AS_HERE),
    Convention(
        "DeepSpeed", "0.19.8", "fwd flops", "FLOPs", GIGA, _flops(DEEPSPEED),
        OPERATIONS,
    ),
    Convention(
        "torch's FlopCounterMode", "2.14", "Total", "FLOPs", Writing(1000, None, 3, "{}FLOPs"), _ours("FLOPs"),
        "two for each MAC, biases not counted",
    ),
    Convention(
        "timm's card", "1.0", "Params (M)", "parameters", Writing(1000, 2, 1, "M"), _ours("parameters"),
        BOTH, per_image=True,
    ),
    Convention(
        "timm's card", "1.0", "GMACs", "MACs", Writing(1000, 3, 1, "GMACs"), _ours("MACs"), AS_HERE, per_image=True
    ),
    Convention(
        "timm's card", "1.0", "Activations (M)", "activations", Writing(1000, 2, 1, "M"), _weighted_outputs,
        "outputs of convolutions and FC layers only", per_image=True,
    ),
    Convention(
        "torchvision's metadata", "0.29.1", "num_params", "parameters", FULL, _ours("parameters"), BOTH,
        per_image=True,
    ),
    Convention(
        "torchvision's metadata", "0.29.1", "_ops (shown as GFLOPS)", "MACs", Writing(1000, 3, 3, "GMACs"),
        _ours("MACs"), "MACs, though its documentation says GFLOPS", per_image=True,
    ),
    Convention(
        "torchvision's metadata", "0.29.1", "_file_size (shown as MB)", "parameter bytes", Writing(1024, 2, 3, "MB"),
        _file_bytes, "the file in MiB, called MB: values, and a little for their names and headers",
        per_image=True, headers=512,
    ),
    Convention(
        "CS231n", "", "TOTAL params", "parameters", Writing(1000, 2, 0, "M"), _without_biases,
        "the lecture's lines count weights and leave biases out", per_image=True,
    ),
    Convention("CS231n", "notes", "24M * 4 bytes ~= 93MB / image", "activation bytes", Writing(1000, 2, 0, "MB"),
               _lecture("activation bytes", 93_000_000), LECTURE, per_image=True),
    Convention("CS231n", "slides", "24M * 4 bytes ~= 96MB / image", "activation bytes", Writing(1000, 2, 0, "MB"),
               _lecture("activation bytes", 96_000_000), LECTURE, per_image=True),
    Convention("CS231n", "", "TOTAL memory: 24M values", "activations", Writing(1000, 2, 0, "M"),
               _lecture("activations", 24_000_000), LECTURE, per_image=True),
    Convention(
        "the paper", "", "Table 2, in millions", "parameters", Writing(1000, 2, 0, "M"), _ours("parameters"),
        BOTH, per_image=True,
    ),
)  # fmt: skip
