"""Every working is evaluated, and its value is the figure of the summary, of the memory plan and of the built model."""

from __future__ import annotations

import ast
import csv
import json
import math
import re
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from matplotlib.mathtext import MathTextParser

import vggkit
from tests import judges
from tests.cli.test_app import printed, run, told
from tests.drawn import networks
from vggkit import Network
from vggkit.base import tables
from vggkit.base.errors import ArgumentError
from vggkit.base.tables import FORMATS
from vggkit.figures.explain import SYMBOLS, Explanation, Step, explain

NAMES = ["A", "A-LRN", "B", "C", "D", "E"]
SIGNS = {"·": "*", "−": "-", ",": "", "⌊": "floor(", "⌋": ")", "⌈": "ceil(", "⌉": ")"}


def evaluate(working: str) -> Fraction:
    """Return the exact value of a working, read as arithmetic."""
    return value(ast.parse("".join(SIGNS.get(char, char) for char in working), mode="eval").body)


def value(node: ast.expr) -> Fraction:
    """Return the exact value of an expression."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp):
        return -value(node.operand)
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return Fraction({"floor": math.floor, "ceil": math.ceil}[node.func.id](value(node.args[0])))
    assert isinstance(node, ast.BinOp), ast.dump(node)
    left, right = value(node.left), value(node.right)
    if isinstance(node.op, ast.Div):
        return left / right
    return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]


def results(explanation: Explanation) -> dict[str, int]:
    """Return the results by quantity, once each working has been evaluated to its result."""
    for step in explanation:
        assert evaluate(step.working) == step.result, step
        assert step.why
        assert step.rule
    found = {step.quantity: step.result for step in explanation}
    assert len(found) == len(explanation)
    return found


def check_layer(network: Network, name: str, module: torch.nn.Module | None, **options: Any) -> None:
    """Hold a layer's explanation against the summary, the plan and the module that was built."""
    found = results(explain(network, name, **options))
    row = next(row for row in vggkit.summarize(network, expand=True, **options) if row.name == name)
    sizes = [
        found[f"output {word}"] for word in ("channels", "height", "width", "features") if f"output {word}" in found
    ]
    assert tuple(sizes) == row.output_shape
    assert found["parameters"] == row.parameters
    assert (found.get("weights", 0), found.get("biases", 0)) == (row.weights, row.biases)
    assert found.get("running statistics", 0) == row.statistics
    assert found["MACs"] == row.multiply_accumulates
    assert found.get("FLOPs", 0) == 2 * row.multiply_accumulates
    assert (found["activations"], found["activation bytes"]) == (row.activation_elements, row.activation_bytes)
    for word, pair in (("receptive field", row.receptive_field), ("stride", row.stride)):
        said = [found[key] for key in (word, f"{word}, height", f"{word}, width") if key in found]
        assert tuple(said * (3 - len(said))) == pair
    saved = {layer.name: layer.saved_bytes for layer in vggkit.memory(network, **options).layers}
    assert found["saved for backward"] == saved.get(name, 0)
    if module is not None:
        assert found["parameters"] == sum(parameter.numel() for parameter in module.parameters())


def check_totals(network: Network, **options: Any) -> None:
    """Hold the totals against the summary and the plan."""
    found = results(explain(network, **options))
    totals, plan = vggkit.summarize(network, **options).totals, vggkit.memory(network, **options)
    assert found["weight layers"] == totals.weight_layers
    assert (found["parameters"], found["parameter bytes"]) == (totals.parameters, totals.parameter_bytes)
    assert (found["MACs"], found["FLOPs"]) == (totals.multiply_accumulates, totals.floating_point_operations)
    assert (found["activations"], found["activation bytes"]) == (totals.activation_elements, totals.activation_bytes)
    assert found["saved for backward"] == plan.saved_for_backward_bytes
    assert found["training peak"] == plan.peak_bytes


@pytest.mark.parametrize("options", [{}, {"batch": 5, "dtype": "float16"}], ids=["one image", "five in float16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_working_of_the_papers_networks_gives_its_figure(name: str, options: dict[str, Any]) -> None:
    """Each layer of the six, and the totals: evaluated, the working is the summary's, the plan's and the model's."""
    network = Network.of(name)
    modules = dict(vggkit.build(network, device="meta").named_modules())
    for placed in network:
        check_layer(network, placed.name, modules.get(placed.module), **options)
    check_totals(network, **options)


OPTIONS = """
name: options
input: 4x30x27
blocks:
  - [{conv: 6, kernel: 3x1, groups: 2, dilation: 2, stride: 1x2}, {maxpool: 1, stride: 3, ceil_mode: true}]
  - [{conv: 6, padding: 2, padding_mode: reflect, bias: false}, {avgpool: 3, padding: 1, stride: 2, ceil_mode: true}]
  - [{batchnorm: {affine: false}}, silu, {groupnorm: 2}, gelu, LRN, {adaptive-avgpool: 3x2}]
classifier: [{flatten: hwc}, FC-7, {batchnorm: {}}, {fc: 5, bias: false}, soft-max]
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_every_working_of_every_option_gives_its_figure(dtype: str) -> None:
    """The same for groups, dilations, odd windows, rounding up, padded copies, and each place for an output."""
    network = Network.of(vggkit.loads(OPTIONS))
    modules = dict(vggkit.build(network, device="meta").named_modules())
    for placed in network:
        check_layer(network, placed.name, modules.get(placed.module), batch=2, dtype=dtype)
    check_totals(network, batch=2, dtype=dtype)
    rules = [step.rule for placed in network for step in explain(network, placed.name)]
    assert any(rule.endswith("⌉ + 1 − 1") for rule in rules)
    assert any("(c/g)" in rule for rule in rules)


@settings(max_examples=60, deadline=None)
@given(network=networks())
def test_every_working_of_any_network_gives_its_figure(network: Network) -> None:
    """The same for random networks with every layer kind and option."""
    modules = dict(vggkit.build(network, device="meta").named_modules())
    for placed in network:
        check_layer(network, placed.name, modules.get(placed.module), batch=3)
    check_totals(network, batch=3)


def working(name: str, layer: str | None, quantity: str, **options: Any) -> str:
    """Return a working with its result."""
    step = next(step for step in explain(name, layer, **options) if step.quantity == quantity)
    return f"{step.rule} = {step.working} = {step.result:,}"


@pytest.mark.parametrize(
    ("layer", "quantity", "expected"),
    [
        ("conv3_1", "parameters", "k·k·c·f + f = 3·3·128·256 + 256 = 295,168"),
        ("conv3_1", "output height", "⌊(h + 2·p − k)/s⌋ + 1 = ⌊(56 + 2·1 − 3)/1⌋ + 1 = 56"),
        ("conv3_1", "MACs", "k·k·c·f·H·W = 3·3·128·256·56·56 = 924,844,032"),
        ("conv3_1", "receptive field", "r + (e − 1)·j = 16 + (3 − 1)·4 = 24"),
        ("conv3_1", "activation bytes", "v·b = 802,816·4 = 3,211,264"),
        ("conv3_1", "saved for backward", "v·b = 128·56·56·4 = 1,605,632"),
        ("fc6", "parameters", "n·m + m = 25088·4096 + 4096 = 102,764,544"),
        ("pool5", "output height", "⌊(h + 2·p − k)/s⌋ + 1 = ⌊(14 + 2·0 − 2)/2⌋ + 1 = 7"),
        ("pool5", "saved for backward", "v·b = 512·7·7·8 = 200,704"),
        ("relu1_1", "activation bytes", "0 = 0 = 0"),
        ("conv1_2", "saved for backward", "0 = 0 = 0"),
        (None, "parameters", "convolutions + FC layers = 14,714,688 + 123,642,856 = 138,357,544"),
        (None, "weight layers", "convolutions + FC layers = 13 + 3 = 16"),
    ],
)
def test_the_working_is_as_one_writes_it(layer: str | None, quantity: str, expected: str) -> None:
    """The rule, the numbers and the result of D, as on a blackboard."""
    assert working("D", layer, quantity) == expected


REASONS = [
    ("conv1_1", "output height", "padding keeps the size"),
    ("pool1", "output height", "a stride of 2 halves the size"),
    ("relu1_1", "activations", "it works in place: its output takes the place of its input"),
    ("relu1_1", "saved for backward", "the memory of the layer before, kept once for both"),
    (
        "conv1_2",
        "saved for backward",
        "its input, from which the gradient is computed: kept already, by a layer before",
    ),
    ("flatten", "activations", "its output is a view of its input's memory"),
    ("drop6", "saved for backward", "which values it dropped"),
    ("prob", "saved for backward", "a model leaves it out and returns the scores"),
    (None, "MACs", "99.2 % in convolutions"),
    (None, "parameters of FC layers", "89.4 % of all parameters"),
    (None, "activations", "the lecture CS231n adds up the same lines for VGG-16, and then writes 24M values"),
]


@pytest.mark.parametrize(("layer", "quantity", "reason"), REASONS)
def test_the_reason_is_given(layer: str | None, quantity: str, reason: str) -> None:
    """Why it is so stands beside the figure."""
    step = next(step for step in explain("D", layer) if step.quantity == quantity)
    assert reason in step.why


def test_the_lecture_is_named_for_its_own_network_only() -> None:
    """C has as many activations as D, and is not the lecture's."""
    for name, named in (("C", False), ("D", True), ("E", False)):
        assert ("CS231n" in str(explain(name))) is named


@pytest.mark.parametrize("name", ["block3_conv1", "block3.conv1", "conv3_1", "features.10"])
def test_a_layer_is_named_in_any_vocabulary(name: str) -> None:
    """Ours, the authors' and torchvision's name are one layer."""
    assert explain("D", name) == explain("D", "block3_conv1")


def test_every_symbol_is_spelled_out() -> None:
    """The legend has each symbol of the rules, and no other."""
    block = "[{conv: 4, kernel: 3x1, dilation: 2}, {conv: 4, groups: 2}]"
    network = Network.of(vggkit.loads(f"input: 3x24x24\nblocks: [{block}]\nclassifier: [FC-5]"))
    seen: set[str] = set()
    for placed in network:
        explanation = explain(network, placed.name, batch=2)
        used = set(re.findall(r"\b[A-Za-z](?:_[hw])?\b", " ".join(step.rule for step in explanation)))
        assert set(explanation.symbols) == used
        seen |= used
    assert seen == set(SYMBOLS)


def test_no_such_layer_is_one_line() -> None:
    """The nearest name is offered."""
    with pytest.raises(ArgumentError, match=r"D has no layer 'conv3_9'\. Did you mean 'conv3_"):
        explain("D", "conv3_9")
    assert told("explain", "D", "conv9") == told("explain", "D", "conv9").splitlines()[0] + "\n"
    assert run("explain", "D", "conv9").exit_code == 2


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layer", ["conv3_1", None])
def test_each_format_is_as_it_was_looked_at(layer: str | None, format: str, golden: Callable[[str, str], None]) -> None:
    """The text of each format is that of a golden file."""
    arguments = ["explain", "D", *([layer] if layer else []), "--format", format]
    golden(f"explain-D{'-' + layer if layer else ''}{FORMATS[format].endings[0]}", printed(*arguments))


def test_csv_has_a_line_for_each_step() -> None:
    """The columns are the keys of the JSON's steps."""
    lines = list(csv.DictReader(printed("explain", "D", "conv3_1", "--format", "csv").splitlines()))
    assert lines == [
        {key: str(field) for key, field in msgspec.structs.asdict(s).items()} for s in explain("D", "conv3_1")
    ]


def test_the_json_is_the_explanations() -> None:
    """The command prints what the function returns."""
    data = json.loads(printed("explain", "D", "fc7", "--batch", "2", "--format", "json"))
    assert data == explain("D", "fc7", batch=2).to_dict()


def equations(text: str) -> list[str]:
    """Return the lines of all displayed equations, without what aligns them."""
    bodies = re.findall(r"\\begin\{align\*\}\n(.*?)\n\\end\{align\*\}", text, re.DOTALL)
    return [line.replace("&", "").removesuffix("\\\\").strip() for body in bodies for line in body.splitlines()]


@pytest.mark.parametrize("name", ["D", "A-LRN"])
def test_the_latex_is_mathematics(name: str) -> None:
    """matplotlib's own parser of TeX's mathematics reads every line, for every layer and the totals."""
    parser = MathTextParser("path")
    names = [None, *(placed.name for placed in Network.of(name))]
    for layer in names:
        for line in dict.fromkeys(equations(explain(name, layer).written("latex"))):
            parser.parse(f"${line}$")


def test_the_latex_compiles(tmp_path: Path) -> None:
    """A worksheet of D's layers goes through pdflatex."""
    pdflatex = judges.program("pdflatex")
    body = "\n".join(explain("D", layer).written("latex") for layer in (None, "conv3_1", "pool3", "relu3_1", "fc6"))
    document = f"\\documentclass{{article}}\\usepackage{{amsmath}}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "sheet.tex").write_text(document, encoding="utf-8")
    command: Sequence[str] = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "sheet.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_table_fits_its_terminal() -> None:
    """Nothing is wider than the terminal: reasons and sums go on below."""
    for layer in (None, "conv3_1"):
        for width in (60, 80, 140):
            text = tables.text(explain("D", layer), width)
            assert max(map(len, text.splitlines())) <= width


def test_a_notebook_and_a_print_show_the_same() -> None:
    """str() and the notebook's table have each result in full."""
    explanation = explain("D", "conv3_1")
    steps: list[Step] = list(explanation)
    assert all(f"{step.result:,}" in str(explanation) for step in steps)
    assert all(f"{step.result:,}" in explanation._repr_html_() for step in steps)


def test_what_torch_refuses_is_explained_without_its_memory() -> None:
    """The other steps are there, of a layer and of the network, and the title says what would help."""
    for layer in ("fc1", None):
        alone, two = explain("vgg11_slimming_bn1d", layer), explain("vgg11_slimming_bn1d", layer, batch=2)
        assert "torch can't run a training step at batch 1, as norm1 would" in alone.title
        missing = {step.quantity for step in two} - {step.quantity for step in alone}
        assert missing == {"saved for backward", *([] if layer else ["training peak"])}
