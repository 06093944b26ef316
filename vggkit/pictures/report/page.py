"""A report: what it says about networks, and its HTML page, whose script works out the memory of any batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from string import Template
from typing import Any, NamedTuple

import msgspec

from vggkit.base.eager import CUDA_BLOCK, MEMORY_KINDS
from vggkit.base.numbers import grouped, mebibytes, megabytes, percent
from vggkit.base.sums import FEWEST_ROWS
from vggkit.base.tables import Shown, Table
from vggkit.base.version import __version__
from vggkit.figures.compare import LAYERS, REPORTED_ERRORS, Comparison, ComparisonTable
from vggkit.figures.compared import Compared
from vggkit.figures.summary import Row, Summary, count, window
from vggkit.footprint.allocator import OWN_SEGMENT_FROM, SEGMENT_ROUNDING, SMALL_BYTES, SMALL_SEGMENT
from vggkit.footprint.allocator_settings import LARGE_SEGMENT, MIB
from vggkit.footprint.card import MOST_STEPS, Figures, Loop
from vggkit.footprint.card_fit import EXPANDABLE, FINER, MOST_TRIED
from vggkit.footprint.cards import DEFAULT_CONTEXT_BYTES
from vggkit.footprint.fit import LinearStep
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.plan import MemoryPlan
from vggkit.network import ELEMENT_BYTES
from vggkit.notation.layers import times
from vggkit.pictures.plot import Picture, file_name
from vggkit.pictures.report.loops import loops_data
from vggkit.pictures.timeline import COLOURS
from vggkit.pictures.web import beside, embedded, inline_svg, script_hash

CARD_GIB = 24
"""Memory in GiB of the card with which the page opens."""

CONTEXT_MIB = -(-DEFAULT_CONTEXT_BYTES // MIB)
"""What CUDA itself takes of it, rounded up."""

ALLOCATORS = {"": "default", EXPANDABLE: "expandable segments"}
"""The choices of the page's control of the allocator, by their settings."""

INFERENCE = "inference"

STEPS: dict[str, dict[str, Any]] = {
    INFERENCE: {"mode": "inference", "optimizer": "none"},
    **{optimizer: {"mode": "training", "optimizer": optimizer} for optimizer in OPTIMIZERS},
}
"""The choices of the page's control of the step, with the options of each: inference, or training with an optimizer."""


class OnCard(msgspec.Struct, frozen=True):
    """What a page says about a network on the card with which it opens, but for the largest batch that runs.

    Args:
        plan: of the first step, on CUDA.
        steps: the figures of each of its steps on the card; the last is None if it runs out of memory.
        tensors_alone: the largest batch whose tensors would have room; 0 if not even the smallest does.
        smallest: the smallest batch that torch runs.
    """

    plan: MemoryPlan
    steps: tuple[Figures | None, ...]
    tensors_alone: int
    smallest: int


class NetworkReport(msgspec.Struct, frozen=True):
    """What a page says about one network.

    Args:
        compared: its figures, and the network itself.
        summary: its rows, for the batch and dtype with which the page opens.
        image: its rows for one image, in float32.
        plan: the step with which the page opens.
        on_card: the same step on the card with which the page opens.
        steps: for each dtype and step the memory at any batch.
        loops: for each dtype and step the allocations of a loop on a card.
        notation: its configuration as YAML.
        pictures: of its architecture, and of what its layers cost.
    """

    compared: Compared
    summary: Summary
    image: Summary
    plan: MemoryPlan
    on_card: OnCard
    steps: dict[str, dict[str, LinearStep]]
    loops: dict[str, dict[str, Loop]]
    notation: str
    pictures: tuple[Picture, ...]


class Report(Shown, msgspec.Struct, frozen=True):
    """One or several networks as an HTML page. Iterating gives what it says about each.

    Args:
        batch: number of images when the page opens.
        dtype: of parameters, images and activations when the page opens.
        step: a key of `STEPS`, when the page opens.
        smallest_batch: the smallest that the page's control takes, where torch runs every step of every network.
        largest_batch: the largest.
        networks: what it says about each.
        comparison: the networks side by side.
        picture: of the comparison; None for a single network.
    """

    batch: int
    dtype: str
    step: str
    smallest_batch: int
    largest_batch: int
    networks: tuple[NetworkReport, ...]
    comparison: Comparison
    picture: Picture | None

    def __iter__(self) -> Iterator[NetworkReport]:
        return iter(self.networks)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def file_name(self) -> str:
        """A file's name for it, in characters that every file system takes."""
        return f"{file_name('report', [one.compared.label for one in self.networks])}.html"

    def to_html(self) -> str:
        """Return the page, which needs no other file and no internet."""
        return _page(self)

    def table(self) -> Table:
        """Return the networks side by side: the page says far more, and `to_html` gives it."""
        return self.comparison.table()

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.to_html())}" width="100%" height="800"></iframe>'


# The page

STEADY = (
    LAYERS,
    "weight_layers",
    "parameters",
    "relative_parameters",
    "conv_parameters",
    "fc_parameters",
    "receptive_field",
    *(error.name for error in REPORTED_ERRORS),
)
"""What the comparison shows: the figures that depend on no control. The others are in the table of memory."""

STEP_WORDS = {word: "inference" if word == INFERENCE else f"training, {word}" for word in STEPS}


SCRIPTS = ("card.js", "report.js")
"""The files of the page's script, in order."""


def _page(report: Report) -> str:
    script = "".join(beside(__file__, name) for name in SCRIPTS)
    labels = ", ".join(one.compared.label for one in report)
    return Template(beside(__file__, "report.html")).substitute(
        title=escape(labels),
        subtitle=escape(_subtitle(report)),
        version=__version__,
        style=beside(__file__, "report.css"),
        script=script,
        script_hash=script_hash(script),
        data=embedded(data(report)),
        first=_first(report),
        batch=report.batch,
        smallest_batch=report.smallest_batch,
        largest_batch=report.largest_batch,
        dtypes=_options({dtype: dtype for dtype in ELEMENT_BYTES}, report.dtype),
        steps=_options(STEP_WORDS, report.step),
        card=CARD_GIB,
        context=CONTEXT_MIB,
        allocators=_options(ALLOCATORS, ""),
        most_steps=MOST_STEPS,
        most_tried=grouped(MOST_TRIED),
        memory=_memory_table(report),
        card_table=_card_table(report),
        tabs=_tabs(report) if len(report) > 1 else "",
        panels="\n".join(_panel(report, index, one) for index, one in enumerate(report)),
        comparison=_comparison(report),
    )


def _subtitle(report: Report) -> str:
    shapes = dict.fromkeys(times(one.summary.input) for one in report)
    return f"What {'each' if len(report) > 1 else 'it'} is, and costs, for images of {', '.join(shapes)}"


def _first_size(report: Report) -> str:
    return f"batch {report.batch}, {report.dtype}"


def _first(report: Report) -> str:
    return f"{_first_size(report)}, {STEP_WORDS[report.step]}"


def _options(words: dict[str, str], chosen: str) -> str:
    return "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{word}</option>'
        for value, word in words.items()
    )


# What the script needs


def data(report: Report) -> dict[str, Any]:
    """Return what the page's script works with."""
    return {
        "smallest_batch": report.smallest_batch,
        "largest_batch": report.largest_batch,
        "element_bytes": ELEMENT_BYTES,
        "kinds": list(MEMORY_KINDS),
        "rules": RULES,
        "networks": [{**_steps_data(one.steps), "loops": loops_data(one.loops)} for one in report],
    }


def _steps_data(steps: dict[str, dict[str, LinearStep]]) -> dict[str, Any]:
    """Return the steps, each once, and for each dtype and step its place among them."""
    places: dict[LinearStep, int] = {}
    of = {
        dtype: {word: places.setdefault(step, len(places)) for word, step in of_dtype.items()}
        for dtype, of_dtype in steps.items()
    }
    return {"step_of": of, "steps": [_step(step) for step in places]}


RULES = {
    "block": CUDA_BLOCK,
    "small_bytes": SMALL_BYTES,
    "small_segment": SMALL_SEGMENT,
    "large_segment": LARGE_SEGMENT,
    "own_segment_from": OWN_SEGMENT_FROM,
    "segment_rounding": SEGMENT_ROUNDING,
    "fewest_rows": FEWEST_ROWS,
    "most_steps": MOST_STEPS,
    "most_tried": MOST_TRIED,
    "finer": FINER,
}
"""The constants of torch's allocator, and of how a loop is played in it, for the page's script."""


def _step(step: LinearStep) -> dict[str, Any]:
    """Return a step, whose lines are pairs: constant bytes and bytes per image."""
    return {
        "moments": [moment._asdict() for moment in step.moments],
        "saved_for_backward": step.saved_for_backward,
        "steady_bytes": step.steady_bytes,
        "smallest_batch": step.smallest_batch,
    }


# Tables


class Heading(NamedTuple):
    """The heading of a sortable column.

    Args:
        word: its text.
        align: of the column's cells: "number" is to the right, "word" to the left.
    """

    word: str
    align: str = "number"


def _table(name: str, caption: str, headings: Sequence[Heading], body: str, foot: str = "") -> str:
    """Return a table in a box that scrolls, with headings that sort it."""
    heads = "".join(
        f'<th scope="col" class="{align}"><button type="button">{escape(word)}</button></th>'
        for word, align in headings
    )
    return _scrolling(
        name,
        f'<table class="sortable"><caption id="{name}">{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody>{f'<tfoot>{foot}</tfoot>' if foot else ''}</table>",
    )


def _scrolling(name: str, content: str) -> str:
    """Put wide content in a box that scrolls, by keyboard too; the element with the id `name` is its label."""
    return f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}">{content}</div>'


def _cell(text: str, value: int | None = None, live: str = "") -> str:
    """Return a cell. `value` is what it is sorted by; by the attribute `live` the script finds and updates it."""
    attributes = f" {live}" if live else ""
    if value is not None:
        attributes += f' class="number" data-value="{value}"'
    return f"<td{attributes}>{escape(text)}</td>"


def _figure(name: str, text: str, value: int | None = None) -> str:
    return _cell(text, value, f'data-figure="{name}"')


def _macs(one_image: int, text: str, value: int) -> str:
    return _cell(text, value, f'data-macs="{one_image}"' if one_image else "")


def _outputs(one_image: int, text: str, value: int) -> str:
    return _cell(text, value, f'data-elements="{one_image}"' if one_image else "")


MEMORY_HEADINGS = (
    Heading("network", "word"),
    Heading("MACs"),
    Heading("activations"),
    Heading("peak"),
    Heading("peak, bytes"),
    Heading("moment of the peak", "word"),
    Heading("kept for backward"),
    Heading("between steps"),
)


def _memory_table(report: Report) -> str:
    body = "".join(_memory_row(index, one) for index, one in enumerate(report))
    caption = f'The networks at <span data-chosen="step">{_first(report)}</span>'
    return _table("memory-table", caption, MEMORY_HEADINGS, body)


def _memory_row(index: int, one: NetworkReport) -> str:
    totals, image, plan = one.summary.totals, one.image.totals, one.plan
    cells = [
        f'<th scope="row">{escape(one.compared.label)}</th>',
        _macs(image.multiply_accumulates, grouped(totals.multiply_accumulates), totals.multiply_accumulates),
        _outputs(image.activation_elements, megabytes(totals.activation_bytes), totals.activation_bytes),
        _figure("peak", megabytes(plan.peak_bytes), plan.peak_bytes),
        _figure("peak_bytes", grouped(plan.peak_bytes), plan.peak_bytes),
        _figure("peak_at", plan.peak_at),
        _figure("saved", megabytes(plan.saved_for_backward_bytes), plan.saved_for_backward_bytes),
        _figure("steady", megabytes(plan.steady_bytes), plan.steady_bytes),
    ]
    return f'<tr data-network="{index}">{"".join(cells)}</tr>'


CARD_HEADINGS = (
    Heading("network", "word"),
    Heading("allocated"),
    Heading("reserved"),
    Heading("reserved, bytes"),
    Heading("holes"),
    Heading("this batch"),
    Heading("largest batch that runs"),
    Heading("tensors alone"),
)


def _card_table(report: Report) -> str:
    body = "".join(_card_row(index, one.compared.label, one.on_card) for index, one in enumerate(report))
    card = f"{CARD_GIB} GiB less CUDA's {CONTEXT_MIB} MiB"
    caption = f'On a card of <span data-chosen="card">{card}</span>: <span data-chosen="step">{_first(report)}</span>'
    return _table("card-table", caption, CARD_HEADINGS, body)


def _card_row(index: int, label: str, on_card: OnCard) -> str:
    allocated, reserved = on_card.plan.allocated_bytes, on_card.plan.reserved_bytes
    assert allocated is not None
    assert reserved is not None
    largest, holes = on_card.tensors_alone, reserved - allocated
    alone = f"batch {grouped(largest)}" if largest else f"not even batch {on_card.smallest}"
    cells = [
        f'<th scope="row">{escape(label)}</th>',
        _figure("allocated", megabytes(allocated), allocated),
        _figure("reserved", megabytes(reserved), reserved),
        _figure("reserved_bytes", grouped(reserved), reserved),
        _figure("holes", percent(holes, reserved), holes),
        _figure("verdict", *_verdict(on_card.steps)),
        _cell("needs JavaScript", 0, "data-largest"),
        _figure("tensors_alone", alone, largest),
    ]
    return f'<tr data-network="{index}">{"".join(cells)}</tr>'


def _verdict(steps: Sequence[Figures | None]) -> tuple[str, int]:
    """Return what becomes of a loop, and by what it is sorted: by how far it comes."""
    last = steps[-1]
    if last is None:
        return f"runs out in step {len(steps)}", len(steps) - 1
    return ("runs, with retries", MOST_STEPS) if last.retries else ("runs", MOST_STEPS + 1)


class LayerColumn(NamedTuple):
    """A column of the table of layers, beside the layers' names.

    Args:
        heading: of the column.
        cell: writes a cell, from a row as the page opens and the same row for one image.
    """

    heading: Heading
    cell: Callable[[Row, Row], str]


LAYER_COLUMNS = (
    LayerColumn(Heading("block", "word"), lambda row, _: _cell((row.block or "").removeprefix("block"))),
    LayerColumn(Heading("what", "word"), lambda row, _: _cell(row.notation)),
    LayerColumn(Heading("output shape", "word"), lambda row, _: _cell(times(row.output_shape))),
    LayerColumn(Heading("weights"), lambda row, _: _cell(count(row.weights), row.weights)),
    LayerColumn(Heading("biases"), lambda row, _: _cell(count(row.biases), row.biases)),
    LayerColumn(Heading("parameters"), lambda row, _: _cell(count(row.parameters), row.parameters)),
    LayerColumn(
        Heading("MACs"),
        lambda row, image: _macs(image.multiply_accumulates, count(row.multiply_accumulates), row.multiply_accumulates),
    ),
    LayerColumn(
        Heading("activations"),
        lambda row, image: _outputs(
            image.activation_elements,
            megabytes(row.activation_bytes) if row.activation_bytes else "",
            row.activation_bytes,
        ),
    ),
    LayerColumn(
        Heading("receptive field"), lambda row, _: _cell(window(row.receptive_field), max(row.receptive_field))
    ),
)


def _layers(report: Report, name: str, one: NetworkReport) -> str:
    headings = [Heading("layer", "word"), *(column.heading for column in LAYER_COLUMNS)]
    body = "".join(
        f'<tr><th scope="row" data-value="{place}">{escape(row.name)}</th>'
        f"{''.join(column.cell(row, image) for column in LAYER_COLUMNS)}</tr>"
        for place, (row, image) in enumerate(zip(one.summary, one.image))
    )
    totals, image = one.summary.totals, one.image.totals
    foot = "".join(
        [
            '<th scope="row">total</th><td></td><td></td><td></td>',
            *(_cell(grouped(number), number) for number in (totals.weights, totals.biases, totals.parameters)),
            _macs(image.multiply_accumulates, grouped(totals.multiply_accumulates), totals.multiply_accumulates),
            _outputs(image.activation_elements, megabytes(totals.activation_bytes), totals.activation_bytes),
            "<td></td>",
        ]
    )
    caption = f'Layers of {escape(one.compared.label)} at <span data-chosen="size">{_first_size(report)}</span>'
    return _table(f"{name}-layers", caption, headings, body, f"<tr>{foot}</tr>")


# A network


def _tabs(report: Report) -> str:
    buttons = "".join(
        f'<button type="button" role="tab" id="network-{index}-tab" aria-controls="network-{index}">'
        f"{escape(one.compared.label)}</button>"
        for index, one in enumerate(report)
    )
    return f'<div class="tabs" role="tablist" aria-label="Networks" hidden>{buttons}</div>'


def _panel(report: Report, index: int, one: NetworkReport) -> str:
    name = f"network-{index}"
    role = f' role="tabpanel" aria-labelledby="{name}-tab"' if len(report) > 1 else ""
    drawn = "".join(_drawn(f"{name}-picture-{number}", picture) for number, picture in enumerate(one.pictures))
    return (
        f'<article class="network" id="{name}" data-network="{index}"{role}>'
        f"<h3>{escape(one.compared.label)}</h3>{_origin(one)}{_layers(report, name, one)}"
        f"{_breakdown(report, name, one)}<h4>Pictures</h4>{drawn}"
        f'<h4 id="{name}-notation">Notation</h4>'
        f"{_scrolling(f'{name}-notation', f'<pre><code>{escape(one.notation)}</code></pre>')}</article>"
    )


def _origin(one: NetworkReport) -> str:
    network = one.compared.network
    said = [network.config.source, one.summary.note, *network.notes()]
    return "".join(f'<p class="faint">{escape(line)}</p>' for line in said if line)


def _breakdown(report: Report, name: str, one: NetworkReport) -> str:
    """Return what the peak is made of, as a table with bars."""
    plan = one.plan
    rows = "".join(
        f'<tr data-kind="{kind}"{"" if size else " hidden"}><th scope="row">{MEMORY_KINDS[kind]}</th>'
        f"{_figure(f'{kind}_bytes', grouped(size), size)}{_figure(kind, megabytes(size), size)}"
        f"{_figure(f'{kind}_share', percent(size, plan.peak_bytes), size)}"
        f'<td class="bars"><span class="bar" style="width:{percent(size, plan.peak_bytes).replace(" ", "")};'
        f'background:{COLOURS[kind]}"></span></td></tr>'
        for kind, size in plan.by_kind.items()
    )
    foot = (
        f'<tr><th scope="row">peak</th>{_figure("peak_bytes", grouped(plan.peak_bytes), plan.peak_bytes)}'
        f"{_figure('peak', megabytes(plan.peak_bytes), plan.peak_bytes)}"
        f"{_cell(percent(plan.peak_bytes, plan.peak_bytes), plan.peak_bytes)}"
        f'<td data-figure="peak_binary">{mebibytes(plan.peak_bytes)}</td></tr>'
    )
    caption = (
        f'At the peak of {escape(one.compared.label)}, <span data-chosen="step">{_first(report)}</span>,'
        f' in the <span data-figure="peak_at">{escape(plan.peak_at)}</span>'
    )
    return _scrolling(
        f"{name}-peak",
        f'<table class="breakdown"><caption id="{name}-peak">{caption}</caption><thead><tr><th scope="col">what</th>'
        '<th scope="col" class="number">bytes</th><th scope="col" class="number">size</th>'
        '<th scope="col" class="number">share</th><td></td></tr></thead>'
        f"<tbody>{rows}</tbody><tfoot>{foot}</tfoot></table>",
    )


# Pictures


def _drawn(name: str, picture: Picture) -> str:
    svg = inline_svg(picture.to_bytes("svg").decode(), name)
    title = re.search(r'aria-labelledby="(\S+)', svg)
    assert title is not None
    enlarge = '<button type="button" class="enlarge" aria-pressed="false" hidden>Enlarge</button>'
    return f"<figure>{_scrolling(title[1], svg)}{enlarge}</figure>"


# Side by side


def _comparison(report: Report) -> str:
    comparison = report.comparison
    drawn = _drawn("comparison-picture", report.picture) if report.picture else ""
    table = comparison.table(STEADY)
    said = "".join(f'<p class="faint">{escape(sentence)}</p>' for sentence in table.explanations("Bold"))
    return f"{_comparison_table(table)}{said}{drawn}"


def _comparison_table(table: ComparisonTable) -> str:
    columns = len(table.networks)
    heads = "".join(f'<th scope="col">{escape(one.label)}</th>' for one in table.networks)
    body = []
    for row in table.rows:
        cells = [f"<b>{escape(cell)}</b>" if bold else escape(cell) for cell, bold in zip(row.cells, row.bold)]
        drawn = (
            f'<td colspan="{columns}">{cells[0]}</td>' if row.spans else "".join(f"<td>{cell}</td>" for cell in cells)
        )
        begins = ' class="begins"' if row.section else ""
        body.append(f'<tr{begins}><th scope="row">{escape(row.label)}</th>{drawn}</tr>')
    caption = "Layers and figures as in the paper's Table 1"
    return _scrolling(
        "comparison-table",
        f'<table class="compared"><caption id="comparison-table">{caption}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>",
    )
