"""The memory model, held against MemTracker and autograd's hooks on the built model."""

from __future__ import annotations

import re
from itertools import combinations, cycle, pairwise, product
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests.drawn import networks
from vggkit.base.eager import KINDS
from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import parse_bytes
from vggkit.footprint import plan as liveness
from vggkit.footprint.plan import LinearBytes, Options, replace_batch
from vggkit.model import verify as verification
from vggkit.network import Network
from vggkit.notation.layers import elements

NAMES = ("A", "A-LRN", "B", "C", "D", "E")
BLOCKS = tuple(f"block{number}" for number in range(1, 6))


def assert_all_equal(network: Network, options: Options) -> None:
    """Hold the saved bytes and the training peak of a step against their judges."""
    plan = liveness.plan(network, options)
    assert plan.saved_for_backward_bytes == verification.saved_bytes(network, options)
    assert plan.by_kind == verification.training_peak(network, options)
    assert plan.peak_bytes == sum(plan.by_kind.values())


def assert_inference_equal(network: Network, options: Options) -> None:
    """Hold the peak of a forward pass against MemTracker."""
    inference = Options(batch=options.batch, dtype=options.dtype, mode="inference", optimizer="none")
    assert liveness.plan(network, inference).by_kind == verification.inference_peak(network, inference)


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_network_at_a_small_size_is_exact(name: str, batch_norm: bool) -> None:
    """Saved bytes, inference peak and training peak equal their judges' for the six, with and without batch norm."""
    network = Network.of(name, batch_norm=batch_norm, input="3x64x96", num_classes=10)
    for batch, dtype, optimizer in ((1, "float32", "adamw"), (7, "bfloat16", "sgd-momentum")):
        options = Options(batch=batch, dtype=dtype, optimizer=optimizer)
        assert_all_equal(network, options)
        assert_inference_equal(network, options)


GRID = list(product(("3x224x224", "3x64x96"), (10, 1000), ("float32", "bfloat16")))
PARTS: tuple[dict[str, tuple[str, ...]], ...] = ({}, {"freeze": BLOCKS[:2]}, {"checkpoint": BLOCKS})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("image", "classes", "dtype"), GRID)
def test_the_whole_grid_is_exact(name: str, batch_norm: bool, image: str, classes: int, dtype: str) -> None:
    """Every combination of network, batch norm, size, classes, dtype, batch and optimizer equals its judges.

    What is saved is measured before any optimizer steps, so once for all of them.
    """
    network, batches = Network.of(name, batch_norm=batch_norm, input=image, num_classes=classes), (1, 2, 7, 32)
    saved = {}
    for parts in PARTS:
        options = Options(dtype=dtype, optimizer="none", **parts)
        trainer = verification.Trainer(network, options)
        for batch in batches:
            measured = trainer.saved_bytes(batch)
            assert liveness.plan(network, replace_batch(options, batch)).saved_for_backward_bytes == measured
            saved.setdefault(batch, measured)
    for optimizer in liveness.OPTIMIZERS:
        options = Options(dtype=dtype, optimizer=optimizer)
        trainer = verification.Trainer(network, options)
        for batch in batches:
            plan = liveness.plan(network, replace_batch(options, batch))
            assert plan.by_kind == trainer.training_peak(batch)
            assert plan.peak_bytes == sum(plan.by_kind.values())
            assert plan.saved_for_backward_bytes == saved[batch]
    for batch in batches:
        assert_inference_equal(network, Options(batch=batch, dtype=dtype))


@pytest.mark.parametrize("frozen", [BLOCKS[:1], BLOCKS[:3], BLOCKS, ("block2", "block4"), ("fc1",), ("conv3_2",)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_frozen_parts_are_exact(frozen: tuple[str, ...], batch_norm: bool) -> None:
    """A frozen prefix saves nothing and a frozen middle saves less, as the hooks see it."""
    network = Network.of("D", batch_norm=batch_norm, input="3x64x96", num_classes=10, width=0.25)
    for optimizer in ("none", "sgd-momentum", "adamw"):
        assert_all_equal(network, Options(batch=3, optimizer=optimizer, freeze=frozen))


def test_a_frozen_prefix_saves_nothing() -> None:
    """The layers of a frozen prefix keep not one byte."""
    plan = vggkit.memory("D", freeze=("block1", "block2"))
    assert not any(layer.saved_bytes for layer in plan.layers if layer.name.startswith(("block1", "block2")))


@pytest.mark.parametrize("name", ["A", "A-LRN", "D"])
@pytest.mark.parametrize("blocks", [BLOCKS, BLOCKS[:1], ("block2", "block4")])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_checkpointed_blocks_are_exact(name: str, blocks: tuple[str, ...], batch_norm: bool) -> None:
    """What checkpointed blocks keep and recompute is what the hooks and MemTracker see."""
    network = Network.of(name, batch_norm=batch_norm, input="3x64x96", num_classes=10, width=0.25)
    for optimizer, frozen in (("none", ()), ("adam", ("block1",))):
        assert_all_equal(network, Options(batch=3, optimizer=optimizer, checkpoint=blocks, freeze=frozen))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_autocast_is_exact(name: str, batch_norm: bool) -> None:
    """The cast weights, what stays float32 and what is cast back are what MemTracker sees."""
    network = Network.of(name, batch_norm=batch_norm, input="3x64x96", num_classes=10, width=0.25)
    for options in (
        Options(batch=1, autocast=True),
        Options(batch=16, autocast=True, optimizer="adamw", checkpoint=BLOCKS[1:3]),
        Options(batch=2, autocast=True, freeze=("block1", "block3"), checkpoint=("block3",)),
    ):
        assert_all_equal(network, options)
    inference = Options(batch=3, autocast=True, mode="inference", optimizer="none")
    assert liveness.plan(network, inference).by_kind == verification.inference_peak(network, inference)


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
}
"""Blocks that each hold something that the six don't."""


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("autocast", [False, True])
def test_what_the_six_do_not_have_is_exact(oddity: str, autocast: bool) -> None:
    """Each other kind of layer, and each option that changes what it allocates, equals its judges."""
    text = f"input: 3x12x10\nblocks: [{ODDITIES[oddity]}]\nclassifier: [FC-10]"
    network = Network.of(vggkit.loads(text))
    for checkpoint, optimizer in (((), "sgd-momentum"), (("block1",), "adamw")):
        assert_all_equal(network, Options(batch=5, optimizer=optimizer, checkpoint=checkpoint, autocast=autocast))
    assert_inference_equal(network, Options(batch=5))


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
        assert_all_equal(network, Options(batch=2, optimizer="adam", checkpoint=checkpoint))
    assert_inference_equal(network, Options(batch=2))
    plan = liveness.plan(network, Options())
    built = [path for path, module in vggkit.build(network).named_modules() if not list(module.children())]
    assert [layer.name for layer in plan.layers[:-1]] == [path.replace(".", "_") for path in built]
    assert saved in (None, plan.saved_for_backward_bytes)


@pytest.mark.parametrize("changes", [{}, {"batch_norm": True}, {"activation": "elu"}, {"activation": "silu"}])
def test_a_network_without_inplace_is_exact(changes: dict[str, Any]) -> None:
    """With inplace=False the plan has each activation's own memory, as the judges do."""
    small: dict[str, Any] = {"input": "3x32x32", "num_classes": 5, "width": 0.05, **changes}
    network, plain = Network.of("A-LRN", inplace=False, **small), Network.of("A-LRN", **small)
    for checkpoint, optimizer in (((), "sgd-momentum"), (("block2",), "adamw")):
        assert_all_equal(network, Options(batch=5, optimizer=optimizer, checkpoint=checkpoint))
    assert_inference_equal(network, Options(batch=5))
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


@pytest.mark.parametrize("autocast", [False, True])
def test_frozen_batch_norms_are_exact(autocast: bool) -> None:
    """In evaluation mode a batch norm makes no statistics of the batch to keep, and its backward pass is another."""
    network = Network.of(vggkit.loads(NORMED))
    norms = [placed.name for placed in network if placed.layer.role == "norm"]
    parts = [("block1",), ("block2",), ("block1", "block2", "fc1"), tuple(norms), *((name,) for name in norms)]
    optimizers = cycle(liveness.OPTIMIZERS)
    for frozen, checkpoint in product(parts, ((), ("block1",), ("block2",))):
        options = Options(3, optimizer=next(optimizers), freeze=frozen, checkpoint=checkpoint, autocast=autocast)
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
        "name", "batch", "dtype", "mode", "optimizer", "device", "peak_bytes", "peak_at", "by_kind",
        "saved_for_backward_bytes", "steady_bytes", "layers", "timeline",
    ]  # fmt: skip
    assert list(data["by_kind"]) == list(KINDS)
    assert data["peak_bytes"] == sum(data["by_kind"].values()) == max(moment["bytes"] for moment in data["timeline"])
    assert all(moment["bytes"] == sum(moment["by_kind"].values()) for moment in data["timeline"])
    assert data["saved_for_backward_bytes"] == sum(layer["saved_bytes"] for layer in data["layers"])
    assert data["timeline"][-1]["event"] == "optimizer step"


def test_steady_bytes_are_parameters_gradients_and_state() -> None:
    """Between steps stay the parameters, their gradients, and as many copies as the optimizer keeps."""
    parameters = vggkit.summarize("A").totals.parameter_bytes
    tensors = 22
    expected = {"none": 2 * parameters, "sgd": 2 * parameters, "sgd-momentum": 3 * parameters}
    expected |= dict.fromkeys(("adam", "adamw"), 4 * parameters + 4 * tensors)
    assert {name: vggkit.memory("A", optimizer=name).steady_bytes for name in expected} == expected


def test_saved_bytes_of_rows_add_up_to_the_layers() -> None:
    """The saved column of a summary leaves nothing out."""
    plan = vggkit.memory("A-LRN")
    saved = liveness.saved_by_row(plan, [row.name for row in vggkit.summarize("A-LRN")])
    assert saved.total == sum(saved.by_row.values()) == 100_952_064


# What fits


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("limit", ["2GiB", "8GB", "24GiB", "80GiB"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_largest_batch_fits_and_one_more_does_not(device: str, limit: str, optimizer: str) -> None:
    """A step of the largest batch is within the limit, and of one image more is not."""
    arguments = {"device": device, "optimizer": optimizer}
    batch, size = vggkit.max_batch("D", limit, **arguments), parse_bytes(limit)
    if batch:
        assert vggkit.memory("D", batch=batch, **arguments).peak_bytes <= size
    assert vggkit.memory("D", batch=batch + 1, **arguments).peak_bytes > size


def test_peaks_grow_with_the_batch() -> None:
    """A larger batch never needs less, so that the largest one that fits is well defined."""
    sizes = [vggkit.memory("C", batch=batch, checkpoint=BLOCKS).peak_bytes for batch in range(1, 40)]
    assert all(small <= large for small, large in pairwise(sizes))


def test_nothing_fits_into_too_little() -> None:
    """Where not even one image fits, the answer is 0, with what is missing."""
    fit = liveness.fit_batch(Network.of("D"), Options(), parse_bytes("1GB"))
    assert (fit.largest, fit.next, fit.missing_bytes) == (0, 1, 1_722_992_880 - 10**9)


def test_the_largest_image_fits_and_one_pixel_more_does_not() -> None:
    """The largest square image of a network that takes any size is exact to the pixel."""
    network, limit = Network.of("D", head="gap"), parse_bytes("8GiB")
    side = liveness.fit_image(network, Options(batch=4), limit).largest
    arguments = {"batch": 4, "head": "gap"}
    assert vggkit.memory("D", input=(3, side, side), **arguments).peak_bytes <= limit
    assert vggkit.memory("D", input=(3, side + 1, side + 1), **arguments).peak_bytes > limit


def test_an_image_is_not_solved_for_where_the_fc_layers_fix_it() -> None:
    """D's own FC layers take one size of maps, and asking for another size says what would help."""
    with pytest.raises(ArgumentError, match="head=gap"):
        liveness.fit_image(Network.of("D"), Options(), 10**10)


def test_an_image_is_not_solved_for_where_only_larger_ones_need_larger_fc_layers() -> None:
    """Seven strides leave one position of 64×64, as of any smaller image; a larger one needs other parameters."""
    strided = "{input: 3x64x64, blocks: [[%s]], classifier: [%sFC-3]}"
    fixed = Network.of(vggkit.loads(strided % (", ".join(["conv3-4/2"] * 7), "")))
    with pytest.raises(ArgumentError, match=r"parameters that depend on the image's size.*Expected head=gap, a trunk"):
        liveness.fit_image(fixed, Options(), parse_bytes("300MB"))
    pooled = Network.of(vggkit.loads(strided % (", ".join(["conv3-4/2"] * 7), "{adaptive-avgpool: 1}, ")))
    side = liveness.fit_image(pooled, Options(), parse_bytes("300MB")).largest
    parameters = vggkit.summarize(pooled).totals.parameters
    assert vggkit.summarize(pooled.config, input=f"3x{side}x{side}").totals.parameters == parameters == 1_015


# What torch refuses

REFUSED = {
    "a batch norm of flat features": (
        "[{fc: 6, norm: batch}, FC-3]", "training", ("batch 2 or more", "frozen batch norms", "or mode inference"),
    ),
    "a batch norm of 1×1 maps": (
        "[maxpool, {conv: 4, norm: batch}, FC-3]", "training",
        ("batch 2 or more", "a larger input", "frozen batch norms", "or mode inference"),
    ),
    "a batch norm behind a global pool": (
        "[global-avgpool, batchnorm]", "training", ("batch 2 or more", "frozen batch norms", "or mode inference"),
    ),
    "a batch norm that keeps no statistics": (
        "[FC-6, {batchnorm: {track_running_stats: false}}]", "inference", ("batch 2 or more",),
    ),
    "a group norm with a group for each value": ("[FC-6, {groupnorm: 6}]", "inference", ("batch 2 or more",)),
}  # fmt: skip
"""A classifier behind 2×2 maps, the mode at batch 1 that torch refuses, and what helps."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_refuses_has_no_figures_but_a_line_with_what_helps(case: str) -> None:
    """The plan, the command, the search and the check by the real model say so; what is advised, torch runs."""
    classifier, mode, helps = REFUSED[case]
    config = vggkit.loads(f"{{name: refused, input: 3x4x4, blocks: [[conv3-4, maxpool]], classifier: {classifier}}}")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        vggkit.build(config).train(mode == "training")(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ArgumentError) as caught:
        vggkit.memory(config, mode=mode)
    message = str(caught.value)
    assert re.match(
        r"refused: torch can't run (a training step|inference) at batch 1, as norm1? would normalize", message
    )
    assert message.endswith(f"Expected {', '.join(helps)}")
    with pytest.raises(ArgumentError, match="torch can't run"):
        next(verification.verify(Network.of(config), Options()))
    vggkit.build(config).train(mode == "training")(torch.zeros(2, 3, 4, 4))
    assert vggkit.memory(config, batch=2, mode=mode).peak_bytes
    assert all(claim.holds for claim in verification.verify(Network.of(config), Options(batch=2)))
    if "a larger input" in helps:
        larger = vggkit.build(config, input="3x16x16")
        assert larger(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
        assert vggkit.memory(config, input="3x16x16").peak_bytes
    if "frozen batch norms" in helps:
        norms = [placed.name for placed in Network.of(config) if placed.layer.role == "norm"]
        assert vggkit.build(config, freeze=norms).train()(torch.zeros(1, 3, 4, 4)).shape[0] == 1
        assert vggkit.memory(config, freeze=norms).peak_bytes
    if "or mode inference" in helps:
        vggkit.build(config).eval()(torch.zeros(1, 3, 4, 4))
        assert vggkit.memory(config, mode="inference").peak_bytes


@given(networks(), st.sampled_from(["training", "inference"]), st.integers(1, 2))
@settings(max_examples=100, deadline=None)
def test_a_step_is_refused_exactly_where_torch_refuses_it(network: Network, mode: str, batch: int) -> None:
    """For any network, in training and inference, with one image and with two."""
    options = Options(batch=batch, mode=mode, optimizer="none")  # type: ignore[arg-type]  # it is drawn
    model, images = vggkit.build(network).train(mode == "training"), torch.zeros(batch, *network.input_shape)
    if liveness.refusal(network, options) is None:
        model(images)
        assert liveness.plan(network, options).peak_bytes
    else:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            model(images)
        with pytest.raises(ArgumentError, match=f"torch can't run .* at batch {batch}"):
            liveness.plan(network, options)
        assert liveness.smallest_batch(network, options) == 2


def test_no_batch_that_torch_refuses_fits() -> None:
    """Where only one image would fit, nothing does, and what is missing is missing for two."""
    network = Network.of("vgg11_slimming_bn1d", width=0.1)
    with pytest.raises(ArgumentError, match="torch can't run a training step at batch 1, as norm1 would"):
        liveness.plan(network, Options())
    for device in liveness.DEVICES:
        peak = vggkit.memory(network, batch=2, device=device).peak_bytes
        assert vggkit.max_batch(network, peak, device=device) == 2
        fit = liveness.fit_batch(network, Options(device=device), peak - 1)  # type: ignore[arg-type]  # one of both
        assert (fit.largest, fit.next, fit.peak_bytes, fit.missing_bytes) == (0, 2, peak, 1)


def test_no_image_that_torch_refuses_fits() -> None:
    """Where maps of one position are too small for a batch norm, the smallest image has larger ones."""
    network = Network.of(vggkit.loads("{input: 3x32x32, blocks: [[conv3-4, maxpool, {conv: 4, norm: batch}]]}"))
    fit = liveness.fit_image(network, Options(), 1)
    assert (fit.largest, fit.next) == (0, 4)
    assert liveness.fit_image(network, Options(batch=2), 1).next == 2
    flat = Network.of(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4]], classifier: [global-avgpool, batchnorm]}"))
    with pytest.raises(ArgumentError, match="torch can't run a training step at batch 1, as norm would"):
        liveness.fit_image(flat, Options(), 10**9)


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


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch: expected a whole number from 1"),
        ({"mode": "train"}, "mode: expected one of training, inference, found 'train'. Did you mean 'training'?"),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16, bfloat16, float64"),
        ({"optimizer": "adan"}, "Did you mean 'adam'?"),
        ({"device": "tpu"}, "device: expected one of cpu, cuda, found 'tpu'"),
        ({"freeze": ["block9"]}, "freeze: D has no block or layer 'block9'"),
        ({"checkpoint": ["fc1"]}, "checkpoint: expected block1 … block5 of D, found 'fc1'"),
        ({"autocast": True, "dtype": "float16"}, "autocast: expected dtype float32 with it"),
        ({"mode": "inference", "optimizer": "adam"}, "optimizer: expected mode training with it"),
        ({"mode": "inference", "freeze": ["block1"]}, "freeze: expected mode training with it"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    """A wrong argument ends in a line that names it and the allowed values."""
    with pytest.raises(ArgumentError) as caught:
        vggkit.memory("D", **arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize("limit", ["3", "GiB", "24 parsecs", "", "-1GB", 0, True])
def test_a_limit_without_number_or_unit_is_refused(limit: str | int) -> None:
    """A limit needs a number and a unit, or bytes."""
    with pytest.raises(ArgumentError, match="expected"):
        vggkit.max_batch("D", limit)


# Advice


def step_macs(network: Network, checkpoint: tuple[str, ...], *, autocast: bool) -> int:
    """Return the multiply-accumulates of a training step of one image, by torch's own counter."""
    model = vggkit.build(network, device="meta", checkpoint=checkpoint)
    with FlopCounterMode(display=False) as counter:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            scores = model(torch.empty(1, *network.input_shape, device="meta"))
        scores.sum().backward()
    return int(counter.get_total_flops()) // 2


def assert_no_cheaper_checkpoints(network: Network, options: Options) -> None:
    """Hold the advised blocks against every set of blocks: none that peaks as low as all blocks costs less."""
    blocks = tuple(dict.fromkeys(placed.block for placed in network if placed.block))
    advised = liveness.cheapest_checkpoints(network, options)
    plain = step_macs(network, (), autocast=options.autocast)
    every = liveness.plan(network, msgspec.structs.replace(options, checkpoint=blocks))
    costs = {}
    for chosen in (chosen for size in range(len(blocks) + 1) for chosen in combinations(blocks, size)):
        peak = liveness.plan(network, msgspec.structs.replace(options, checkpoint=chosen)).peak_bytes
        if peak <= every.peak_bytes:
            costs[chosen] = (step_macs(network, chosen, autocast=options.autocast) - plain, len(chosen))
        if chosen == advised.blocks:
            assert advised.peak_bytes == peak
    assert costs[advised.blocks] == (advised.recomputed, len(advised.blocks))
    assert costs[advised.blocks] == min(costs.values())
    assert advised.forward == vggkit.summarize(network).totals.multiply_accumulates


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 64])
def test_the_advised_checkpoints_are_the_cheapest_that_do(name: str, batch: int) -> None:
    """Every set of blocks is tried, and torch's counter says what it runs again."""
    assert_no_cheaper_checkpoints(Network.of(name, input="3x64x64", num_classes=10, width=0.25), Options(batch=batch))


CHECKPOINTED = {
    "a deep trunk": "[[conv3-8], [conv3-8, conv3-4], [conv3-8, maxpool], [conv1-16, conv3-4], [conv3-8, gelu]]",
    "ends in convolutions": "[[{conv: 8, activation: none}], [conv3-8, {conv: 4, activation: none}], [conv3-16]]",
    "LRN everywhere": "[[conv3-8, LRN], [conv3-8, LRN, maxpool], [conv3-8, LRN]]",
    "nothing to multiply": "[[tanh, sigmoid], [gelu, tanh], [maxpool]]",
    "equal blocks": "[[conv3-4, conv3-4], [conv3-4, conv3-4], [conv3-4, conv3-4], [conv3-4, conv3-4]]",
}
"""Blocks whose cheapest checkpoints are not the first."""


@pytest.mark.parametrize("case", CHECKPOINTED)
@pytest.mark.parametrize("options", [Options(batch=4), Options(batch=3, optimizer="adamw", autocast=True)], ids=str)
def test_so_they_are_where_it_is_not_the_first_block(case: str, options: Options) -> None:
    """Also where a block ends in a convolution, which is not run again, and where nothing is multiplied."""
    text = f"{{input: 4x16x16, blocks: {CHECKPOINTED[case]}, classifier: [FC-3]}}"
    assert_no_cheaper_checkpoints(Network.of(vggkit.loads(text)), options)


def test_where_too_many_sets_are_cheaper_all_blocks_are_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty blocks have a million sets; no more than some hundreds are tried."""
    tried = []
    walk = liveness.plan
    monkeypatch.setattr(liveness, "plan", lambda network, options: tried.append(options) or walk(network, options))
    text = f"{{input: 2x8x8, blocks: [{', '.join(['[conv3-2, conv3-2]'] * 20)}]}}"
    advised = liveness.cheapest_checkpoints(Network.of(vggkit.loads(text)), Options(batch=8))
    assert len(tried) <= liveness.MOST_SETS + 1
    assert advised.peak_bytes <= walk(Network.of(vggkit.loads(text)), tried[0]).peak_bytes


def test_sets_of_blocks_come_in_the_order_of_their_costs() -> None:
    """Each exactly once; of equal ones the smaller first."""
    costs = {"a": 5, "b": 0, "c": 3, "d": 3, "e": 9}
    sets = list(liveness._cheapest_first(costs))
    assert sorted(sets) == sorted(chosen for size in range(6) for chosen in combinations(costs, size))
    ranks = [(sum(costs[name] for name in chosen), len(chosen)) for chosen in sets]
    assert ranks == sorted(ranks)


# Budgets


def test_a_budget_that_is_kept_says_nothing_and_one_that_is_not_says_all() -> None:
    """Each limit that is exceeded is told with both figures."""
    text = "extends: D\nbudget: {{parameters: {}, multiply_accumulates: 16G, training_peak: {} at batch 64}}"
    assert liveness.overruns(Network.of(vggkit.loads(text.format("140M", "24GiB")))) == []
    over = liveness.overruns(Network.of(vggkit.loads(text.format("138M", "4GiB"))))
    assert [(overrun.limited, overrun.actual) for overrun in over] == [
        ("parameters", 138_357_544),
        ("training_peak", 6_343_885_544),
    ]


def test_a_budget_is_kept_at_its_limit_and_not_beyond() -> None:
    """To the parameter and to the byte, and each peak is that of its own mode."""
    text = "extends: D\nbudget: {{parameters: {}, inference_peak: {}kB at batch 1, training_peak: {}kB}}"
    assert liveness.overruns(Network.of(vggkit.loads(text.format(138_357_544, 579722.4, 1722992.88)))) == []
    over = liveness.overruns(Network.of(vggkit.loads(text.format(138_357_543, 579722.399, 1722992.879))))
    assert [(overrun.limited, overrun.actual - overrun.limit) for overrun in over] == [
        ("parameters", 1), ("inference_peak", 1), ("training_peak", 1),
    ]  # fmt: skip


# Any batch


STEPS = (("inference", "none"), *(("training", optimizer) for optimizer in liveness.OPTIMIZERS))
BATCHES = (1, 2, 3, 5, 16, 100, 4096, 65_536)


def assert_lines_are_the_plans(network: Network, options: Options) -> None:
    """Hold the lines of a step against its plan at every batch."""
    step = liveness.lines(network, options)
    for batch in BATCHES:
        plan, peak = liveness.plan(network, replace_batch(options, batch)), step.peak(batch)
        assert (peak.event, peak.size.at(batch)) == (plan.peak_at, plan.peak_bytes)
        assert [line.at(batch) for line in peak.by_kind] == list(plan.by_kind.values())
        assert step.saved_for_backward.at(batch) == plan.saved_for_backward_bytes
        assert step.steady_bytes == plan.steady_bytes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_few_lines_are_the_plan_at_every_batch(name: str, dtype: str) -> None:
    """Peak, moment, kinds, saved and steady bytes, for every step."""
    for mode, optimizer in STEPS:
        assert_lines_are_the_plans(Network.of(name), Options(mode=mode, optimizer=optimizer, dtype=dtype))


@given(networks(), st.sampled_from(STEPS))
@settings(max_examples=100, deadline=None)
def test_so_they_are_for_any_network(network: Network, step: tuple[str, str]) -> None:
    """With batch norm, dropout, odd pools and whatever else there is, where torch runs the step."""
    options = Options(mode=step[0], optimizer=step[1])
    assume(liveness.smallest_batch(network, options) == 1)
    assert_lines_are_the_plans(network, options)


def test_so_they_are_with_frozen_and_checkpointed_blocks_and_autocast() -> None:
    """No option of a step makes it depend on the batch in another way."""
    network = Network.of("A", batch_norm=True, input="3x32x32")
    for options in (Options(freeze=BLOCKS[1:2]), Options(checkpoint=BLOCKS), Options(autocast=True, checkpoint=BLOCKS)):
        assert_lines_are_the_plans(network, options)


def test_no_moment_is_among_the_lines_that_is_never_the_peak() -> None:
    """Each is the peak at some batch, found by trying them all."""
    network = Network.of("D", input="3x32x32")
    step = liveness.lines(network, Options(optimizer="adamw"))
    assert len(step.moments) > 1
    assert {step.peak(batch) for batch in range(1, 20_000)} == set(step.moments)


def test_lines_stand_in_the_order_of_the_step() -> None:
    """So that of two that are as high the first is the peak, as in a plan."""
    network = Network.of("D", input="3x32x32")
    for optimizer in liveness.OPTIMIZERS:
        options = Options(optimizer=optimizer)
        timeline = [
            (moment.event, moment.constant, moment.per_image) for moment in liveness.plan(network, options).timeline
        ]
        places = [timeline.index((line.event, *line.size)) for line in liveness.lines(network, options).moments]
        assert places == sorted(places)
        assert len(places) > 1


def test_of_two_lines_that_are_as_high_the_first_is_the_peak() -> None:
    """At the batch where they meet; around it the higher one is."""
    steep, flat = (liveness.Line(str(size), size, ()) for size in (LinearBytes(0, 2), LinearBytes(2, 1)))
    for moments, at_two in (((steep, flat), steep), ((flat, steep), flat)):
        step = liveness.Lines(moments, LinearBytes(0, 0), steady_bytes=0, smallest_batch=1)
        assert [step.peak(batch) for batch in (1, 2, 3)] == [flat, at_two, steep]


def test_lines_are_refused_on_cuda() -> None:
    """There each tensor is rounded up, which no line says."""
    with pytest.raises(ArgumentError, match="device: expected cpu, where bytes are a line over the batch, found cuda"):
        liveness.lines(Network.of("A"), Options(device="cuda"))
