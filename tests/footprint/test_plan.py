"""The memory model, held against MemTracker and autograd's hooks on the built model."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import cycle, product
from typing import Any

import pytest
from click.testing import CliRunner

import vggkit
from tests.conftest import sample
from tests.footprint.grid import USUAL
from vggkit.base.eager import MEMORY_KINDS
from vggkit.cli import main
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.plan import BAR, bar, plan_step, saved_by_row
from vggkit.footprint.steps.options import StepOptions
from vggkit.model import verify
from vggkit.network import Network
from vggkit.notation.layers import elements

NAMES = ("A", "A-LRN", "B", "C", "D", "E")
SOME = sample(NAMES, ["A-LRN", "D"])
"""Those two have every kind of layer that the six have."""
BLOCKS = tuple(f"block{number}" for number in range(1, 6))


def assert_all_equal(network: Network, options: StepOptions) -> None:
    """Hold the saved bytes and the training peak of a step against their judges."""
    plan = plan_step(network, options)
    assert plan.saved_for_backward_bytes == verify.saved_bytes(network, options)
    assert plan.by_kind == verify.training_peak(network, options)
    assert plan.peak_bytes == sum(plan.by_kind.values())


def assert_inference_equal(network: Network, options: StepOptions) -> None:
    """Hold the peak of a forward pass against MemTracker."""
    inference = StepOptions(batch=options.batch, dtype=options.dtype, mode="inference", optimizer="none")
    assert plan_step(network, inference).by_kind == verify.inference_peak(network, inference)


# The reference figures of the design


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("A", 48_769_024), ("A-LRN", 100_952_064), ("B", 68_036_608),
        ("C", 73_254_912), ("D", 73_254_912), ("E", 78_473_216),
    ],
)  # fmt: skip
def test_what_is_saved_before_the_loss_is_the_designs_figure(name: str, saved: int) -> None:
    """What the layers keep at batch 1 adds up to the published figure."""
    layers = vggkit.memory(name).layers
    assert sum(layer.saved_bytes for layer in layers if layer.name != "loss") == saved


def test_one_image_without_gradients() -> None:
    """D's forward pass holds two 64×224×224 maps, the image and the parameters."""
    plan = vggkit.memory("D", mode="inference")
    held = {kind: size for kind, size in plan.by_kind.items() if size}
    assert held == {"parameters": 553_430_176, "activations": 25_690_112, "inputs": 602_112}


def test_one_image_with_momentum() -> None:
    """D's step at batch 1 is the design's, in total and for each kind."""
    plan = vggkit.memory("D", optimizer="sgd-momentum")
    assert plan.peak_bytes == 1_722_992_880
    assert plan.by_kind == {
        "parameters": 553_430_176,
        "buffers": 0,
        "gradients": 546_488_224,
        "optimizer": 553_430_176,
        "activations": 62_619_656,
        "temporaries": 6_422_528,
        "inputs": 602_120,
        "communication": 0,
    }


@pytest.mark.parametrize(
    ("batch", "optimizer", "peak"),
    [
        (64, "sgd-momentum", 6_343_885_544),
        (256, "sgd-momentum", 20_486_293_736),
        (256, "adamw", 21_039_724_040),
        (1, "adamw", 3_036_408_588),
    ],
)
def test_the_other_reference_steps_of_d(batch: int, optimizer: str, peak: int) -> None:
    """The totals of the design's other steps come out."""
    assert vggkit.memory("D", batch=batch, optimizer=optimizer).peak_bytes == peak


def test_adams_peak_at_batch_one_is_in_its_step() -> None:
    """With AdamW and one image the peak is in the optimizer's step."""
    assert vggkit.memory("D", optimizer="adamw").peak_at == "optimizer step"


# The grid


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_network_at_a_small_size_is_exact(name: str, batch_norm: bool) -> None:
    """Saved bytes, inference peak and training peak equal their judges' for the six, with and without batch norm."""
    network = Network.of(name, batch_norm=batch_norm, input="3x64x96", num_classes=10)
    for batch, dtype, optimizer in ((1, "float32", "adamw"), (7, "bfloat16", "sgd-momentum")):
        options = StepOptions(batch=batch, dtype=dtype, optimizer=optimizer)
        assert_all_equal(network, options)
        assert_inference_equal(network, options)


GRID = [
    ("3x224x224", 1000, "float32"),
    ("3x224x224", 10, "bfloat16"),
    ("3x64x96", 1000, "bfloat16"),
    ("3x64x96", 10, "float32"),
]
"""Every two of an input's size, a number of classes and a dtype."""
PARTS: tuple[dict[str, tuple[str, ...]], ...] = ({}, {"freeze": BLOCKS[:2]}, {"checkpoint": BLOCKS})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("image", "classes", "dtype"), GRID)
def test_each_network_is_exact(name: str, batch_norm: bool, image: str, classes: int, dtype: str) -> None:
    """Each network with and without batch norm equals its judges at every batch, with the usual optimizers.

    What is saved is measured before any optimizer steps, so once for all of them. What other optimizers take does not
    depend on what they are applied to: tests/footprint/test_optimizers.py has them.
    """
    network, batches = Network.of(name, batch_norm=batch_norm, input=image, num_classes=classes), (1, 2, 7, 32)
    saved = {}
    for parts in PARTS:
        options = StepOptions(dtype=dtype, optimizer="none", **parts)
        trainer = verify.Trainer(network, options)
        for batch in batches:
            measured = trainer.saved_bytes(batch)
            assert plan_step(network, options.replace(batch=batch)).saved_for_backward_bytes == measured
            saved.setdefault(batch, measured)
    for optimizer in USUAL:
        options = StepOptions(dtype=dtype, optimizer=optimizer)
        trainer = verify.Trainer(network, options)
        for batch in batches:
            plan = plan_step(network, options.replace(batch=batch))
            assert plan.by_kind == trainer.training_peak(batch)
            assert plan.peak_bytes == sum(plan.by_kind.values())
            assert plan.saved_for_backward_bytes == saved[batch]
    for batch in batches:
        assert_inference_equal(network, StepOptions(batch=batch, dtype=dtype))


@pytest.mark.parametrize("frozen", [BLOCKS[:1], BLOCKS[:3], BLOCKS, ("block2", "block4"), ("fc1",), ("conv3_2",)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_frozen_parts_are_exact(frozen: tuple[str, ...], batch_norm: bool) -> None:
    """A frozen prefix saves nothing and a frozen middle saves less, as the hooks see it."""
    network = Network.of("D", batch_norm=batch_norm, input="3x64x96", num_classes=10, width=0.25)
    for optimizer in ("none", "sgd-momentum", "adamw"):
        assert_all_equal(network, StepOptions(batch=3, optimizer=optimizer, freeze=frozen))


def test_a_frozen_prefix_saves_nothing() -> None:
    """The layers of a frozen prefix keep not one byte."""
    plan = vggkit.memory("D", freeze=("block1", "block2"))
    assert not any(layer.saved_bytes for layer in plan.layers if layer.name.startswith(("block1", "block2")))


@pytest.mark.parametrize("name", sample(["A", "A-LRN", "D"], ["A-LRN"]))
@pytest.mark.parametrize("blocks", [BLOCKS, BLOCKS[:1], ("block2", "block4")])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_checkpointed_blocks_are_exact(name: str, blocks: tuple[str, ...], batch_norm: bool) -> None:
    """What checkpointed blocks keep and recompute is what the hooks and MemTracker see."""
    network = Network.of(name, batch_norm=batch_norm, input="3x64x96", num_classes=10, width=0.25)
    for optimizer, frozen in (("none", ()), ("adam", ("block1",))):
        assert_all_equal(network, StepOptions(batch=3, optimizer=optimizer, checkpoint=blocks, freeze=frozen))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_autocast_is_exact(name: str, batch_norm: bool) -> None:
    """The cast weights, what stays float32 and what is cast back are what MemTracker sees."""
    network = Network.of(name, batch_norm=batch_norm, input="3x64x96", num_classes=10, width=0.25)
    for options in (
        StepOptions(batch=1, autocast=True),
        StepOptions(batch=16, autocast=True, optimizer="adamw", checkpoint=BLOCKS[1:3]),
        StepOptions(batch=2, autocast=True, freeze=("block1", "block3"), checkpoint=("block3",)),
    ):
        assert_all_equal(network, options)
    inference = StepOptions(batch=3, autocast=True, mode="inference", optimizer="none")
    assert plan_step(network, inference).by_kind == verify.inference_peak(network, inference)


ODDITIES = {
    "group norm": "[{conv: 8, norm: {groupnorm: 4}}, {conv: 8, norm: {groupnorm: {groups: 2, affine: false}}}]",
    "batch norm of its own": "[conv3-8, {batchnorm: {affine: false}}, maxpool, {batchnorm: {momentum: null}}]",
    "batch norm without statistics": "[conv3-8, {batchnorm: {track_running_stats: false}}]",
    "batch norm first": "[batchnorm, conv3-8]",
    "asymmetric": "[{conv: 8, kernel: 3x1, stride: 2x1, padding: 2x0}, {maxpool: 3x2, stride: 2x1, padding: 1x0}]",
    "ceil mode": "[conv3-8, {maxpool: 3, ceil_mode: true}, {avgpool: 2, ceil_mode: true}]",
    "no bias": "[{conv: 8, bias: false}, {conv: 4, bias: false}, maxpool, {fc: 6, bias: false}]",
    "dilation and groups": "[{conv: 8, dilation: 2}, {conv: 8, groups: 4}, {maxpool: 2, dilation: 2}]",
    "adaptive pool": "[conv3-8, {adaptive-avgpool: 3x2}]",
    "adaptive pool to one": "[conv3-8, {adaptive-avgpool: 1}]",
    "hwc flatten": "[conv3-8, maxpool, {flatten: hwc}, FC-16]",
    "reflect": "[{conv: 8, padding_mode: reflect}, {conv: 8, padding_mode: replicate}]",
    "circular": "[conv3-4, {conv: 8, padding_mode: circular}, {conv: 8, padding_mode: circular, padding: 1x0}]",
    "LRN twice": "[LRN, conv3-8, {LRN: 3}, maxpool, conv3-8, LRN]",
    "activations": "[{conv: 8, activation: gelu}, {conv: 8, activation: silu}, {conv: 8, activation: tanh},"
    " {conv: 8, activation: elu}, {conv: 8, activation: leaky-relu}, {conv: 8, activation: hardtanh}]",
    "activations out of place": "[{conv: 8, activation: sigmoid}, relu, silu, {relu: {inplace: false}},"
    " {leaky-relu: 0.1, inplace: false}, elu, hardtanh, {silu: {inplace: false}}]",
    "an activation first": "[relu, conv3-8]",
    "dropout anywhere": "[{dropout: 0.2}, conv3-8, {conv: 8, dropout: 0.3}, maxpool, {dropout: 0.1}]",
    "norms behind FC layers": "[conv3-8, {fc: 16, norm: batch}, {fc: 16, norm: {groupnorm: 4}}]",
    "global pool": "[conv3-8, global-avgpool]",
    "soft-max in the middle": "[conv3-8, soft-max, conv3-8]",
    "flatten of what is flat": "[{conv: 1, kernel: 12x10, padding: 0}, flatten,"
    " {fc: 90, activation: none}, flatten, {hardtanh: {inplace: true}}, FC-1]",
}
"""Blocks that each hold something that the six don't."""


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("autocast", [False, True])
def test_what_the_six_do_not_have_is_exact(oddity: str, autocast: bool) -> None:
    """Each other kind of layer, and each option that changes what it allocates, equals its judges."""
    text = f"input: 3x12x10\nblocks: [{ODDITIES[oddity]}]\nclassifier: [FC-10]"
    network = Network.of(vggkit.loads(text))
    for checkpoint, optimizer in (((), "sgd-momentum"), (("block1",), "adamw")):
        assert_all_equal(network, StepOptions(batch=5, optimizer=optimizer, checkpoint=checkpoint, autocast=autocast))
    assert_inference_equal(network, StepOptions(batch=5))


SOFT_MAXES = {
    "at the end of a trunk": ("[[conv3-4, soft-max]]", "null", 4_356),
    "at the end of a block": ("[[conv3-4, soft-max], [conv3-2]]", "[FC-3]", None),
    "in a classifier": ("[[conv3-4]]", "[FC-5, soft-max, FC-3, soft-max]", None),
    "twice at a classifier's end": ("[[conv3-4]]", "[FC-3, soft-max, soft-max]", None),
    "alone behind a trunk": ("[[conv3-4]]", "[soft-max]", None),
    "behind it all": ("[[conv3-4]]", "[FC-3, soft-max]", None),
}
"""Blocks, a classifier, and what a step saves, where it was measured by hand."""


@pytest.mark.parametrize("place", SOFT_MAXES)
def test_a_soft_max_is_run_everywhere_but_at_a_classifiers_end(place: str) -> None:
    """Wherever it stands, the plan and the built model agree on whether it is run and what it keeps."""
    blocks, classifier, saved = SOFT_MAXES[place]
    network = Network.of(vggkit.loads(f"{{input: 3x8x8, blocks: {blocks}, classifier: {classifier}}}"))
    for checkpoint in ((), ("block1",)):
        assert_all_equal(network, StepOptions(batch=2, optimizer="adam", checkpoint=checkpoint))
    assert_inference_equal(network, StepOptions(batch=2))
    plan = plan_step(network, StepOptions())
    built = [path for path, module in vggkit.build(network).named_modules() if not list(module.children())]
    assert [layer.name for layer in plan.layers[:-1]] == [path.replace(".", "_") for path in built]
    assert saved in (None, plan.saved_for_backward_bytes)


@pytest.mark.parametrize("changes", [{}, {"batch_norm": True}, {"activation": "elu"}, {"activation": "silu"}])
def test_a_network_without_inplace_is_exact(changes: dict[str, Any]) -> None:
    """With inplace=False the plan has each activation's own memory, as the judges do."""
    small: dict[str, Any] = {"input": "3x32x32", "num_classes": 5, "width": 0.05, **changes}
    network, plain = Network.of("A-LRN", inplace=False, **small), Network.of("A-LRN", **small)
    for checkpoint, optimizer in (((), "sgd-momentum"), (("block2",), "adamw")):
        assert_all_equal(network, StepOptions(batch=5, optimizer=optimizer, checkpoint=checkpoint))
    assert_inference_equal(network, StepOptions(batch=5))
    own = [{one.name: one.output_bytes for one in vggkit.memory(each).layers} for each in (network, plain)]
    activation = changes.get("activation", "relu")
    assert own[0][f"block3_{activation}2"] == own[0]["block3_conv2"]
    assert own[1][f"block3_{activation}2"] == 0


NORMED = """
input: 3x12x10
blocks:
  - [{conv: 8, norm: batch}, {batchnorm: {affine: false}}, maxpool]
  - [batchnorm, conv3-8, {batchnorm: {track_running_stats: false}}, {conv: 4, norm: {groupnorm: 2}}]
classifier: [{fc: 16, norm: batch}, FC-10]
"""


@pytest.mark.parametrize("autocast", [pytest.param(False, marks=pytest.mark.slow), True])
def test_frozen_batch_norms_are_exact(autocast: bool) -> None:
    """In evaluation mode a batch norm makes no statistics of the batch to keep, and its backward pass is another."""
    network = Network.of(vggkit.loads(NORMED))
    norms = [placed.name for placed in network if placed.layer.role == "norm"]
    parts = [("block1",), ("block2",), ("block1", "block2", "fc1"), tuple(norms), *((name,) for name in norms)]
    optimizers = cycle(OPTIMIZERS)
    for frozen, checkpoint in product(parts, ((), ("block1",), ("block2",))):
        options = StepOptions(3, optimizer=next(optimizers), freeze=frozen, checkpoint=checkpoint, autocast=autocast)
        assert_all_equal(network, options)


def test_a_frozen_batch_norm_keeps_no_statistics_of_the_batch() -> None:
    """Behind what is trained it keeps its input alone; frozen, 2 × 4 bytes less for each of its channels."""
    network = Network.of("A", batch_norm=True)
    saved = [
        sum(layer.saved_bytes for layer in vggkit.memory(network, freeze=freeze).layers if layer.name == "block1_norm1")
        for freeze in ((), "block1_norm1")
    ]
    assert saved[0] - saved[1] == 2 * 4 * 64


# What a plan says


def test_the_json_has_the_documented_keys() -> None:
    """The plan's JSON has the documented keys, in their order, and its sums hold."""
    data = vggkit.memory("A", batch=2).to_dict()
    assert list(data) == [
        "name", "batch", "mode", "dtype", "loss", "optimizer", "device", "freeze", "checkpoint", "taps",
        "cached_target", "trainable", "autocast", "allocator", "zero_grad", "accumulate", "ema", "clip_grad",
        "step_in_backward",
        "weight_decay", "foreach", "fused", "nesterov", "amsgrad", "momentum", "centered",
        "ranks", "parallel", "rank", "bucket_cap_mb", "static_graph", "units", "reshard_after_forward", "replicas",
        "param_dtype", "reduce_dtype", "cut", "microbatches", "schedule", "balance",
        "peak_bytes", "peak_at", "by_kind",
        "saved_for_backward_bytes", "steady_bytes", "allocated_bytes", "reserved_bytes", "retries", "sent_bytes",
        "received_bytes", "by_rank", "layers", "timeline",
    ]  # fmt: skip
    assert list(data["by_kind"]) == list(MEMORY_KINDS)
    assert data["peak_bytes"] == sum(data["by_kind"].values()) == max(moment["bytes"] for moment in data["timeline"])
    assert all(moment["bytes"] == sum(moment["by_kind"].values()) for moment in data["timeline"])
    assert data["saved_for_backward_bytes"] == sum(layer["saved_bytes"] for layer in data["layers"])
    assert data["timeline"][-1]["event"] == "optimizer step"
    assert [data[word] for word in ("allocated_bytes", "reserved_bytes", "retries")] == [None, None, None]


def test_saved_bytes_of_rows_add_up_to_the_layers() -> None:
    """The saved column of a summary leaves nothing out."""
    plan = vggkit.memory("A-LRN")
    saved = saved_by_row(plan, [row.name for row in vggkit.summarize("A-LRN")])
    assert saved.total == sum(saved.by_row.values()) == 100_952_064


# CUDA


def test_cuda_differs_in_rounding_masks_and_the_optimizers_way() -> None:
    """On CUDA tensors are multiples of 512 bytes, masks have bytes, and Adam takes all parameters at once."""
    cpu, cuda = vggkit.memory("D", optimizer="adam"), vggkit.memory("D", optimizer="adam", device="cuda")
    assert all(size % 512 == 0 for size in cuda.by_kind.values())
    masks = {
        plan.options.device: next(layer.saved_bytes for layer in plan.layers if layer.name == "dropout1")
        for plan in (cpu, cuda)
    }
    assert masks == {"cpu": 4 * 4096, "cuda": 4096}
    assert cuda.by_kind["optimizer"] > 3 * vggkit.summarize("D").totals.parameter_bytes
    shapes = [shape for placed in Network.of("D") for shape in placed.layer.parameters(placed.input_shape).values()]
    rounded = sum(-(-4 * elements(shape) // 512) * 512 for shape in shapes)
    assert cuda.steady_bytes == 4 * rounded  # Adam's step counters stay on the CPU


def test_no_step_is_too_large_for_a_card_with_room_for_it() -> None:
    """Of the largest batch of large images, more is reserved than its tensors have."""
    plan = vggkit.memory("A", input="3x100000x100000", head="gap", batch=10**18, device="cuda")
    assert plan.reserved_bytes is not None
    assert 10**30 < plan.peak_bytes < plan.reserved_bytes


# The table

Golden = Callable[[str, str], None]
OPTIONS: list[dict[str, Any]] = [{}, {"optimizer": "adam"}, {"batch": 64}, {"mode": "inference"}, {"autocast": True}]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memory-D.txt", ()),
        ("memory-D-adam.txt", ("--optimizer", "adam")),
        ("memory-D.md", ("--format", "markdown")),
        ("memory-D.csv", ("--format", "csv")),
        ("memory-D.tex", ("--format", "latex")),
        ("memory-D.html", ("--format", "html")),
    ],
)
def test_what_d_takes_is_the_golden_table(name: str, options: tuple[str, ...], golden: Golden) -> None:
    """Table, sentences, and every other format, byte for byte."""
    result = CliRunner().invoke(main, ["memory", "D", *options])
    assert (result.exit_code, result.stderr) == (0, "")
    golden(name, result.stdout)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_rows_add_up_to_the_peak(options: dict[str, Any]) -> None:
    """The bytes that a reader sees are the peak's; kinds of which there is nothing have no row."""
    plan = vggkit.memory("D", **options)
    grid = plan.table().grids[0]
    sizes = [int(row[1].replace(",", "")) for row in grid.rows]
    assert sum(sizes) == plan.peak_bytes
    assert all(sizes)
    assert grid.footer is not None
    assert grid.footer[1] == f"{plan.peak_bytes:,}"


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_shares_add_up_to_100_percent_but_for_rounding(options: dict[str, Any]) -> None:
    """Each share is rounded to a tenth of a percent, so that their sum is off by half of that for each row at most."""
    rows = vggkit.memory("D", **options).table().grids[0].rows
    shares = [Decimal(row[3].removesuffix(" %")) for row in rows]
    assert abs(sum(shares) - 100) <= Decimal("0.05") * len(shares)


def test_a_bar_is_as_long_as_its_share() -> None:
    """In eighths of a cell, from nothing to the whole."""
    assert bar(0, 7) == ""
    assert bar(7, 7) == "█" * BAR
    assert bar(1, 2) == "█" * (BAR // 2)
    assert [bar(n, BAR * 8) for n in range(1, 9)] == [*"▏▎▍▌▋▊▉█"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"optimizer": "adam"}, "the optimizer's own temporaries, not the activations, make the peak"),
        ({"device": "cuda"}, "Workspaces of cuDNN and cuBLAS and the CUDA context are not included."),
        ({}, "Kept for the backward pass: "),
    ],
)
def test_what_people_do_not_expect_is_said_only_where_it_is_so(options: dict[str, Any], sentence: str) -> None:
    """The sentence is there, and not in an inference on the CPU."""
    assert sentence in " ".join(vggkit.memory("D", **options).table().notes)
    assert sentence not in " ".join(vggkit.memory("D", mode="inference").table().notes)
