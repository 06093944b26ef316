"""Network → Explanation: how the figures of one layer, or of the whole network, are computed, with the numbers put in.

A layer kind explains its own counts, in `notation/layers`. This module explains what holds for all kinds. The
results come from `Summary` and `MemoryPlan`; the tests evaluate the workings and compare.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, SupportsIndex

import msgspec

from vggkit.base.numbers import grouped, mebibytes, megabytes, percent
from vggkit.base.tables import Column, DrawnTable, Shown, Table, grid, latex_cell, markdown_cell
from vggkit.figures.conventions import LECTURES_VALUES, LECTURES_WEIGHTS
from vggkit.figures.summary import Row, Summary, summarize
from vggkit.footprint.plan import MemoryPlan, plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import refusal
from vggkit.network import ELEMENT_BYTES, Dtype, Network, PlacedLayer, check_batch, dtype_name
from vggkit.notation.layers import Kept, Working, elements
from vggkit.notation.overrides import Overrides, check_keywords
from vggkit.notation.spelling import describe

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from vggkit.notation.config import Config

SYMBOLS = {
    "N": "images",
    "c": "input channels",
    "h": "input height",
    "w": "input width",
    "n": "inputs",
    "f": "filters, and so output channels",
    "m": "units",
    "k": "kernel",
    "k_h": "kernel height",
    "k_w": "kernel width",
    "s": "stride",
    "p": "padding on each side",
    "d": "dilation",
    "g": "groups",
    "H": "output height",
    "W": "output width",
    "e": "extent of the window",
    "r": "receptive field of the input",
    "j": "distance of neighbouring inputs in the image",
    "v": "values",
    "b": "bytes of a value",
}
"""What the symbols of the rules stand for."""


class Step(msgspec.Struct, frozen=True):
    """How one figure is computed.

    Args:
        quantity: what it is.
        rule: in symbols; see `SYMBOLS`.
        working: the same with the numbers put in; its value is the result.
        result: the figure.
        unit: what it counts; empty for a plain number.
        why: the reason, in words.
    """

    quantity: str
    rule: str
    working: str
    result: int
    unit: str
    why: str

    def equation(self) -> list[str]:
        """Return the rule, the numbers and the result, each once.

        >>> explain("D", "conv3_1").steps[5].equation()
        ['k·k·c·f + f', '3·3·128·256 + 256', '295,168']
        """
        return list(dict.fromkeys((self.rule, self.working, grouped(self.result))))


class Explanation(Shown, msgspec.Struct, frozen=True):
    """How the figures of a layer or of a network are computed. Iterating gives its steps.

    Args:
        network: its name.
        layer: the layer's name here; None for the whole network.
        title: what is explained, for people.
        batch: number of images.
        dtype: torch's name of the numbers' type.
        steps: in the order in which one would write them.
    """

    network: str
    layer: str | None
    title: str
    batch: int
    dtype: str
    steps: tuple[Step, ...]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def symbols(self) -> dict[str, str]:
        """What the symbols that occur in the rules stand for."""
        used = {
            word
            for step in self.steps
            for word in re.findall(r"(?<![A-Za-z_])[A-Za-z](?:_[hw])?(?![A-Za-z_])", step.rule)
        }
        return {symbol: meaning for symbol, meaning in SYMBOLS.items() if symbol in used}

    def to_dict(self) -> dict[str, Any]:
        """Return the documented JSON."""
        return {
            "network": self.network,
            "layer": self.layer,
            "batch": self.batch,
            "dtype": self.dtype,
            "steps": list(map(msgspec.structs.asdict, self.steps)),
            "symbols": self.symbols,
        }

    def table(self) -> Table:
        """Return the steps: as equations in the terminal and in LaTeX, as rows elsewhere."""
        return ExplanationTable(self)


def explain(
    source: str | os.PathLike[str] | Config | Network,
    layer: str | None = None,
    *,
    batch: SupportsIndex = 1,
    dtype: Dtype = "float32",
    **overrides: Unpack[Overrides],
) -> Explanation:
    """Explain how the figures of a layer, or of a whole network, are computed.

    Args:
        source: a name, a path, a Config, a Network or a torch module.
        layer: a layer's name here, in the authors' Caffe model or in torchvision; None for the totals.
        batch: number of images.
        dtype: float32, float16, bfloat16 or float64.
        overrides: changes to make, as for `load`.

    Returns:
        The explanation: steps, each with its rule, the numbers put in, the result and the reason. Where torch can't run
        a training step of this batch, the steps of its memory are missing, and the title says why.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if there is no such layer, or an argument is outside its allowed values.

    >>> next(step.working for step in explain("D", "conv3_1") if step.quantity == "parameters")
    '3·3·128·256 + 256'
    """
    check_keywords(explain, overrides)
    batch, dtype = check_batch(batch), dtype_name(dtype)
    network = Network.of(source, **overrides)
    summary = summarize(network, batch=batch, dtype=dtype, expand=True)
    step = StepOptions(batch=batch, dtype=dtype)
    refused = refusal(network, step)
    plan = None if refused else plan_step(network, step)
    of = "×".join(map(str, network.input_shape))
    about = f"{network.name} at {of}, batch {batch}, {dtype}"
    if refused:
        about += f", without its memory ({refused})"
    if layer is None:
        steps = _totals(network, summary, plan)
        return Explanation(network.name, None, about, batch, dtype, tuple(steps))
    placed = network.layer(layer)
    title = f"{placed.name} ({describe(placed.layer)}) of {about}"
    return Explanation(network.name, placed.name, title, batch, dtype, tuple(_of_layer(network, placed, summary, plan)))


# One layer


def _of_layer(network: Network, placed: PlacedLayer, summary: Summary, plan: MemoryPlan | None) -> list[Step]:
    row = next(row for row in summary if row.name == placed.name)
    return [
        *_shape(placed),
        *_parameters(placed, row),
        *_operations(placed, row, summary.batch),
        *_field(network, placed),
        *_activations(placed, row, summary),
        *([_saved(network, placed, plan)] if plan else []),
    ]


def _step(quantity: str, working: Working, result: int, unit: str = "") -> Step:
    return Step(quantity, working.rule, working.numbers, result, unit, working.why)


def _shape(placed: PlacedLayer) -> list[Step]:
    sizes = placed.layer.output_sizes(placed.input_shape)
    words = ("channels", "height", "width") if len(sizes) == 3 else ("features",)
    return [_step(f"output {word}", size.working, size.number) for word, size in zip(words, sizes)]


def _parameters(placed: PlacedLayer, row: Row) -> list[Step]:
    words = {"weight": "weights", "bias": "biases"}
    counts = {words[name]: count for name, count in placed.layer.parameter_counts(placed.input_shape).items()}
    steps = [_step(word, count.working, count.number) for word, count in counts.items()]
    rule = " + ".join(step.rule for step in steps) or "0"
    working = " + ".join(step.working for step in steps) or "0"
    why = " and ".join(counts) or "it has nothing to train"
    steps.append(Step("parameters", rule, working, row.parameters, "", why))
    if row.statistics:
        statistics = [shape for shape in placed.layer.buffers(placed.input_shape).values() if shape]
        rule, working = " + ".join("c" for _ in statistics), " + ".join(str(elements(shape)) for shape in statistics)
        why = "a mean and a variance for each channel, kept but not trained"
        steps.append(Step("running statistics", rule, working, row.statistics, "", why))
    return steps


def _operations(placed: PlacedLayer, row: Row, batch: int) -> list[Step]:
    working = placed.layer.operation_count(placed.input_shape).working
    if not row.multiply_accumulates:
        return [_step("MACs", working, 0)]
    macs = Working(f"N·{working.rule}", f"{batch}·{working.numbers}", working.why) if batch > 1 else working
    flops = Working("2·MACs", f"2·{row.multiply_accumulates:,}", "a multiplication and an addition each")
    return [_step("MACs", macs, row.multiply_accumulates), _step("FLOPs", flops, row.multiply_accumulates * 2)]


def _field(network: Network, placed: PlacedLayer) -> list[Step]:
    index = network.layers.index(placed)
    before = network.layers[index - 1] if index else None
    fields, strides = (before.receptive_field, before.stride) if before else ((1, 1), (1, 1))
    window = placed.layer.window(placed.input_shape)
    wide = "the window's e values lie j pixels apart in the image, and each sees r pixels"
    grown, apart = [], []
    for r, j, e, s, field, stride in zip(
        fields, strides, window.extent, window.step, placed.receptive_field, placed.stride
    ):
        why = "it looks at one position" if e == 1 else wide
        grown.append(Step("receptive field", "r + (e − 1)·j", f"{r} + ({e} − 1)·{j}", field, "pixels", why))
        apart.append(
            Step("stride", "j·s", f"{j}·{s}", stride, "pixels", "neighbouring outputs are this many pixels apart")
        )
    same = [step.working for step, _ in (grown, apart)] == [step.working for _, step in (grown, apart)]
    return [step for both in (grown, apart) for step in ([both[0]] if same else _told_apart(both))]


def _told_apart(both: list[Step]) -> list[Step]:
    """Name two steps after the height and the width that they are for."""
    return [
        msgspec.structs.replace(step, quantity=f"{step.quantity}, {word}")
        for step, word in zip(both, ("height", "width"))
    ]


ELSEWHERE = {
    "in place": "it works in place: its output takes the place of its input",
    "view": "its output is a view of its input's memory",
}
"""Why an output has no memory of its own."""

NOT_RUN = "a model leaves it out and returns the scores"


def _activations(placed: PlacedLayer, row: Row, summary: Summary) -> list[Step]:
    if not row.activation_elements:
        nothing = Working("0", "0", ELSEWHERE.get(placed.layer.storage(), NOT_RUN))
        return [_step("activations", nothing, 0, "values"), _step("activation bytes", nothing, 0, "bytes")]
    channels = "f" if placed.layer.is_weight_layer else "c"
    rule = f"{channels}·H·W" if len(row.output_shape) == 3 else "m"
    values = Working(rule, "·".join(map(str, row.output_shape)), "its output, once")
    if summary.batch > 1:
        values = Working(f"N·{values.rule}", f"{summary.batch}·{values.numbers}", values.why)
    size = ELEMENT_BYTES[summary.dtype]
    in_bytes = Working("v·b", f"{row.activation_elements:,}·{size}", f"{summary.dtype} takes {size} bytes a value")
    return [
        _step("activations", values, row.activation_elements, "values"),
        _step("activation bytes", in_bytes, row.activation_bytes, "bytes"),
    ]


NEEDED = {
    "input": "its input, from which the gradient is computed",
    "output": "its output, from which the gradient is computed",
    "indices": "which input of each window was the largest, 8 bytes each",
    "mask": "which values it dropped",
}
"""What the backward pass needs, by what is kept."""


def _saved(network: Network, placed: PlacedLayer, plan: MemoryPlan) -> Step:
    """Explain what a layer keeps, without what a layer before it keeps already."""
    saved = next((layer.saved_bytes for layer in plan.layers if layer.name == placed.name), 0)
    kept = placed.layer.kept(placed.input_shape)
    if not saved:
        return _step("saved for backward", Working("0", "0", _nothing_saved(network, placed)), 0, "bytes")
    size, batch = ELEMENT_BYTES[plan.options.dtype], plan.options.batch
    # a neighbour may keep its input or output already, in the same memory: the bytes tell which
    for known in ("input", "output", None):
        new = [buffer for buffer in kept if buffer.what != known]
        if sum(elements(_factors(buffer, batch, size)) for buffer in new) != saved:
            continue
        rule = " + ".join("N·v·b" if buffer.per_image and batch > 1 else "v·b" for buffer in new)
        numbers = " + ".join("·".join(map(str, _factors(buffer, batch, size))) for buffer in new)
        shared = "; that is the memory of the layer before, kept once for both" * (placed.layer.storage() == "in place")
        return _step("saved for backward", Working(rule, numbers, _words(new) + shared), saved, "bytes")
    other = Working("v·b", f"{saved // size:,}·{size}", "what torch holds for its gradient")
    return _step("saved for backward", other, saved, "bytes")


def _nothing_saved(network: Network, placed: PlacedLayer) -> str:
    """Say why a layer keeps nothing of its own."""
    if placed not in network.modules():
        return NOT_RUN
    before = network.layers[: network.layers.index(placed) + 1]
    if not any(other.layer.parameters(other.input_shape) for other in before):
        return "nothing up to here is trained, so no gradient comes this far"
    kept = placed.layer.kept(placed.input_shape)
    return f"{_words(kept)}: kept already, by a layer before" if kept else "its gradient needs no values"


def _words(kept: Iterable[Kept]) -> str:
    return ", ".join(NEEDED.get(buffer.what, f"the {buffer.what}") for buffer in kept)


def _factors(buffer: Kept, batch: int, size: int) -> tuple[int, ...]:
    images = (batch,) if buffer.per_image and batch > 1 else ()
    return *images, *buffer.shape, buffer.element_bytes or size


# The whole network

LECTURE = "the lecture CS231n adds up the same lines for VGG-16, and then writes 24M values"


def _totals(network: Network, summary: Summary, plan: MemoryPlan | None) -> list[Step]:
    return [
        *_depth(summary),
        *_all_parameters(summary),
        *_all_operations(network, summary),
        *_all_activations(network, summary),
        *(_all_memory(network, plan) if plan else []),
        *_all_seen(network),
    ]


def _added(quantity: str, rule: str, amounts: Iterable[int], result: int, why: str, unit: str = "") -> Step:
    working = " + ".join(f"{amount:,}" for amount in amounts) or "0"
    return Step(quantity, rule, working, result, unit, why)


WEIGHT_LAYERS = {"conv": "convolutions", "fc": "FC layers"}
"""What the paper counts, by kind."""


def _depth(summary: Summary) -> list[Step]:
    counts = {
        word: number for kind, word in WEIGHT_LAYERS.items() if (number := summary.totals.layers_by_kind.get(kind, 0))
    }
    rule = " + ".join(counts) or "0"
    return [_added("weight layers", rule, counts.values(), summary.totals.weight_layers, "as the paper counts depth")]


def _all_parameters(summary: Summary) -> list[Step]:
    totals = summary.totals
    owners: dict[str, list[int]] = {}
    for row in summary:
        if row.parameters:
            owners.setdefault(WEIGHT_LAYERS.get(row.kind, f"{row.kind} layers"), []).append(row.parameters)
    steps = [
        _added(
            f"parameters of {word}",
            "layer + layer + …" if len(counts) > 1 else "layer",
            counts,
            sum(counts),
            f"{percent(sum(counts), totals.parameters)} of all parameters",
        )
        for word, counts in owners.items()
    ]
    total = [sum(counts) for counts in owners.values()]
    size = totals.parameter_bytes // totals.parameters if totals.parameters else ELEMENT_BYTES[summary.dtype]
    split = f"{totals.weights:,} weights and {totals.biases:,} biases"
    in_bytes = f"{megabytes(totals.parameter_bytes)}, or {mebibytes(totals.parameter_bytes)}"
    return [
        *steps,
        _added("parameters", " + ".join(owners) or "0", total, totals.parameters, split),
        Step("parameter bytes", "v·b", f"{totals.parameters:,}·{size}", totals.parameter_bytes, "bytes", in_bytes),
    ]


def _by_group(network: Network, amounts: dict[str, int]) -> dict[str, int]:
    """Sum up amounts of layers for each block and for the classifier."""
    sums: dict[str, int] = {}
    for placed in network:
        group = placed.block or "classifier"
        sums[group] = sums.get(group, 0) + amounts.get(placed.name, 0)
    return sums


def _all_operations(network: Network, summary: Summary) -> list[Step]:
    totals = summary.totals
    by_group = _by_group(network, {row.name: row.multiply_accumulates for row in summary})
    convolutions = sum(row.multiply_accumulates for row in summary if row.kind == "conv")
    why = (
        f"{percent(convolutions, totals.multiply_accumulates)} in convolutions"
        if totals.multiply_accumulates
        else "none"
    )
    flops = Working("2·MACs", f"2·{totals.multiply_accumulates:,}", "a multiplication and an addition each")
    return [
        _added("MACs", " + ".join(by_group), by_group.values(), totals.multiply_accumulates, why),
        _step("FLOPs", flops, totals.floating_point_operations),
    ]


def _all_activations(network: Network, summary: Summary) -> list[Step]:
    totals = summary.totals
    by_group = {
        "input": summary.rows[0].activation_elements,
        **_by_group(network, {row.name: row.activation_elements for row in summary.rows[1:]}),
    }
    lectures = (totals.weights, totals.activation_elements) == (LECTURES_WEIGHTS, LECTURES_VALUES)
    why = "each output once; what works in place adds nothing" + (f"; {LECTURE}" if lectures else "")
    size = ELEMENT_BYTES[summary.dtype]
    in_bytes = Working("v·b", f"{totals.activation_elements:,}·{size}", megabytes(totals.activation_bytes))
    return [
        _added("activations", " + ".join(by_group), by_group.values(), totals.activation_elements, why, "values"),
        _step("activation bytes", in_bytes, totals.activation_bytes, "bytes"),
    ]


def _all_memory(network: Network, plan: MemoryPlan) -> list[Step]:
    saved = {layer.name: layer.saved_bytes for layer in plan.layers}
    by_group = {**_by_group(network, saved), "loss": saved.get("loss", 0)}
    kinds = {kind: size for kind, size in plan.by_kind.items() if size}
    return [
        _added(
            "saved for backward",
            " + ".join(by_group),
            by_group.values(),
            plan.saved_for_backward_bytes,
            "what the backward pass needs, each piece of memory once; not twice the activations",
            "bytes",
        ),
        _added(
            "training peak",
            " + ".join(kinds),
            kinds.values(),
            plan.peak_bytes,
            f"SGD with momentum, without weight decay, in the {plan.peak_at}",
            "bytes",
        ),
    ]


def _all_seen(network: Network) -> list[Step]:
    """Explain the receptive field of the last layer in a block: what each layer adds to one pixel."""
    blocks = [placed for placed in network if placed.block is not None]
    if not blocks:
        return []
    seen: list[tuple[int, int]] = [(1, 1), *(placed.receptive_field for placed in blocks)]
    steps = []
    for axis in (0, 1):
        grown = [after[axis] - before[axis] for before, after in pairwise(seen)]
        amounts = [1, *(amount for amount in grown if amount)]
        why = f"of {blocks[-1].name}: one pixel, and (e − 1)·j for each layer with a window"
        steps.append(_added("receptive field", "1 + (e − 1)·j + …", amounts, seen[-1][axis], why, "pixels"))
    return steps[:1] if steps[0].working == steps[1].working else _told_apart(steps)


# The table

COLUMNS: list[Column[Step]] = [
    Column("quantity", lambda step: step.quantity),
    Column("rule", lambda step: step.rule),
    Column("with the numbers", lambda step: step.working),
    Column("result", lambda step: f"{grouped(step.result)} {step.unit}".rstrip(), "right"),
    Column("why", lambda step: step.why, fold=28),
]


class ExplanationTable(DrawnTable):
    """An explanation's steps, as one would write them on paper.

    Args:
        explanation: what is shown.
    """

    def __init__(self, explanation: Explanation) -> None:
        super().__init__(
            grid(COLUMNS, explanation, title=explanation.title),
            records=list(map(msgspec.structs.asdict, explanation)),
            data=explanation.to_dict(),
        )
        self.explanation = explanation

    def __rich__(self) -> Any:
        """Draw each step as an equation with its reason below."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        steps = Table.grid(padding=(0, 1, 0, 0))
        steps.add_column(no_wrap=True, style="cyan")
        steps.add_column(no_wrap=True)
        steps.add_column()
        for step in self.explanation:
            *before, result = step.equation()
            lines = [*map(Text, before), Text(f"{result} {step.unit}".rstrip(), style="bold green")]
            for index, line in enumerate(lines):
                steps.add_row("" if index else step.quantity, "=", line)
            steps.add_row("", "", Text(step.why, style="dim"))
        return Group(Text(f"{self.title}\n", style="bold"), steps, "", Text(self.legend, style="dim"))

    @property
    def legend(self) -> str:
        """What the symbols stand for, on one line."""
        return "; ".join(f"{symbol} {meaning}" for symbol, meaning in self.explanation.symbols.items())

    def to_markdown(self) -> str:
        """Return a heading, a GitHub table and the legend."""
        return f"### {markdown_cell(self.title)}\n\n{super().to_markdown()}\n{markdown_cell(self.legend)}\n"

    def to_latex(self) -> str:
        """Return displayed equations; they need the package amsmath."""
        head = f"% needs \\usepackage{{amsmath}}\n\\subsection*{{{latex_cell(self.title)}}}"
        meanings = (f"${latex_math(symbol)}$ {latex_cell(word)}" for symbol, word in self.explanation.symbols.items())
        legend = "; ".join(meanings)
        return "\n\n".join([head, *map(_latex_step, self.explanation), *([legend] if legend else [])]) + "\n"


def _latex_step(step: Step) -> str:
    lines = " \\\\\n& = ".join(map(_latex_line, step.equation()))
    unit = f"~\\text{{{step.unit}}}" if step.unit else ""
    quantity = f"\\text{{{latex_cell(step.quantity)}}}"
    return f"\\begin{{align*}}\n{quantity} & = {lines}{unit}\n\\end{{align*}}\n{latex_cell(step.why)}"


TERMS = 4
"""Summands on a line of LaTeX; a longer sum is broken into lines."""


def _latex_line(text: str) -> str:
    terms = text.split(" + ")
    if len(terms) <= TERMS:
        return latex_math(text)
    pieces = [" + ".join(map(latex_math, terms[start : start + TERMS])) for start in range(0, len(terms), TERMS)]
    return " \\\\\n& \\quad + ".join(pieces)


_MATH = {
    "·": "\\cdot ",
    "−": "-",
    ",": "{,}",
    "⌊": "\\left\\lfloor ",
    "⌋": "\\right\\rfloor ",
    "⌈": "\\left\\lceil ",
    "⌉": "\\right\\rceil ",
    "…": "\\ldots ",
}


def latex_math(text: str) -> str:
    """Write a rule or a working as LaTeX's mathematics.

    >>> latex_math("⌊(h + 2·p − k)/s⌋ + 1")
    '\\\\left\\\\lfloor (h + 2\\\\cdot p - k)/s\\\\right\\\\rfloor  + 1'
    """
    words = re.sub(
        r"[A-Za-z][A-Za-z0-9]+(?:[ -][A-Za-z]+)*",
        lambda match: f"\\mathrm{{{match[0].replace(' ', chr(92) + ' ')}}}",
        text,
    )
    return "".join(_MATH.get(char, char) for char in words)
