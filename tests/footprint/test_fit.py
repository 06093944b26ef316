"""What fits: a step as lines over the batch, the largest batch and the largest image, and their table."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import vggkit
from tests.drawn import networks
from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import parse_bytes
from vggkit.cli import main
from vggkit.footprint.fit import LinearBytes, LinearMoment, LinearStep, linear_step, tensors_fit
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.plan import plan_step
from vggkit.footprint.sought import SoughtBatch, SoughtImage
from vggkit.footprint.steps.options import DEVICES, Device, StepOptions
from vggkit.footprint.steps.refusals import smallest_batch
from vggkit.network import Network

Golden = Callable[[str, str], None]
NAMES = ("A", "A-LRN", "B", "C", "D", "E")
BLOCKS = tuple(f"block{number}" for number in range(1, 6))

# A step at any batch

STEPS = (("inference", "none"), *(("training", optimizer) for optimizer in OPTIMIZERS))
BATCHES = (1, 2, 3, 5, 16, 100, 4096, 65_536)


def assert_lines_are_the_plans(network: Network, options: StepOptions) -> None:
    """Hold the lines of a step against its plan at every batch."""
    step = linear_step(network, options)
    for batch in BATCHES:
        plan, peak = plan_step(network, options.replace(batch=batch)), step.peak(batch)
        assert (peak.event, peak.size.at(batch)) == (plan.peak_at, plan.peak_bytes)
        assert [line.at(batch) for line in peak.by_kind] == list(plan.by_kind.values())
        assert step.saved_for_backward.at(batch) == plan.saved_for_backward_bytes
        assert step.steady_bytes == plan.steady_bytes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_few_lines_are_the_plan_at_every_batch(name: str, dtype: str) -> None:
    """Peak, moment, kinds, saved and steady bytes, for every step."""
    for mode, optimizer in STEPS:
        assert_lines_are_the_plans(Network.of(name), StepOptions(mode=mode, optimizer=optimizer, dtype=dtype))


@given(networks(), st.sampled_from(STEPS))
@settings(max_examples=100, deadline=None)
def test_so_they_are_for_any_network(network: Network, step: tuple[str, str]) -> None:
    """With batch norm, dropout, odd pools and whatever else there is, where torch runs the step."""
    options = StepOptions(mode=step[0], optimizer=step[1])
    assume(smallest_batch(network, options) == 1)
    assert_lines_are_the_plans(network, options)


def test_so_they_are_with_frozen_and_checkpointed_blocks_and_autocast() -> None:
    """No option of a step makes it depend on the batch in another way."""
    network = Network.of("A", batch_norm=True, input="3x32x32")
    for options in (
        StepOptions(freeze=BLOCKS[1:2]),
        StepOptions(checkpoint=BLOCKS),
        StepOptions(autocast=True, checkpoint=BLOCKS),
    ):
        assert_lines_are_the_plans(network, options)


def test_no_moment_is_among_the_lines_that_is_never_the_peak() -> None:
    """Each is the peak at some batch, found by trying them all."""
    network = Network.of("D", input="3x32x32")
    step = linear_step(network, StepOptions(optimizer="adamw"))
    assert len(step.moments) > 1
    assert {step.peak(batch) for batch in range(1, 20_000)} == set(step.moments)


def test_lines_stand_in_the_order_of_the_step() -> None:
    """So that of two that are as high the first is the peak, as in a plan."""
    network = Network.of("D", input="3x32x32")
    for optimizer in OPTIMIZERS:
        options = StepOptions(optimizer=optimizer)
        timeline = [
            (moment.event, moment.constant, moment.per_image) for moment in plan_step(network, options).timeline
        ]
        places = [timeline.index((line.event, *line.size)) for line in linear_step(network, options).moments]
        assert places == sorted(places)
        assert len(places) > 1


def test_of_two_lines_that_are_as_high_the_first_is_the_peak() -> None:
    """At the batch where they meet; around it the higher one is."""
    steep, flat = (LinearMoment(str(size), size, ()) for size in (LinearBytes(0, 2), LinearBytes(2, 1)))
    for moments, at_two in (((steep, flat), steep), ((flat, steep), flat)):
        step = LinearStep(moments, LinearBytes(0, 0), steady_bytes=0, smallest_batch=1)
        assert [step.peak(batch) for batch in (1, 2, 3)] == [flat, at_two, steep]


def test_lines_are_refused_on_cuda() -> None:
    """There each tensor is rounded up, which no line says."""
    with pytest.raises(ArgumentError, match="device: expected cpu, where bytes are a line over the batch, found cuda"):
        linear_step(Network.of("A"), StepOptions(device="cuda"))


# What fits


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("limit", ["2GiB", "8GB", "24GiB", "80GiB"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_tensors_of_the_largest_batch_have_room_and_of_one_more_have_not(
    device: Device, limit: str, optimizer: str
) -> None:
    """A step of the largest batch is within the limit, and of one image more is not."""
    options, size = StepOptions(device=device, optimizer=optimizer), parse_bytes(limit)
    fit, arguments = (
        tensors_fit(SoughtBatch(Network.of("D"), options), size),
        {"device": device, "optimizer": optimizer},
    )
    if fit.largest:
        assert vggkit.memory("D", batch=fit.largest, **arguments).peak_bytes == fit.peak_bytes <= size
    assert vggkit.memory("D", batch=fit.largest + 1, **arguments).peak_bytes == size + fit.missing_bytes > size


WIDE = "{name: wide, input: 4x1x1, classifier: [{fc: 4096, activation: none, dropout: 0}, FC-10]}"
SUMS = StepOptions(device="cuda", freeze=("predictions",))
"""Most is alive while CUDA adds up the gradient of fc1's bias: from 1,021 images on, 32 MiB and more for that alone."""


@pytest.mark.parametrize("limit", ["50MB", "200MB", "8GiB"])
def test_so_have_they_where_kernels_add_up_in_parts(limit: str) -> None:
    """What the parts take is no line over the batch; it is found in few walks through a step all the same."""
    sought, size = SoughtBatch(Network.of(vggkit.loads(WIDE)), SUMS), parse_bytes(limit)
    fit = tensors_fit(sought, size)
    assert fit.largest >= 1020
    assert sought.peak_bytes(fit.largest) == fit.peak_bytes <= size < sought.peak_bytes(fit.largest + 1)


def test_peaks_grow_with_the_batch() -> None:
    """A larger batch never needs less, so that the largest one that fits is well defined."""
    sizes = [vggkit.memory("C", batch=batch, checkpoint=BLOCKS).peak_bytes for batch in range(1, 40)]
    assert all(small <= large for small, large in pairwise(sizes))
    network = Network.of(vggkit.loads(WIDE))
    sizes = [plan_step(network, SUMS.replace(batch=batch)).peak_bytes for batch in range(1000, 5000, 7)]
    assert all(small <= large for small, large in pairwise(sizes))


def test_nothing_fits_into_too_little() -> None:
    """Where not even one image fits, the answer is 0, with what is missing."""
    fit = tensors_fit(SoughtBatch(Network.of("D"), StepOptions()), parse_bytes("1GB"))
    assert (fit.largest, fit.next, fit.missing_bytes) == (0, 1, 1_722_992_880 - 10**9)


def test_the_largest_image_fits_and_one_pixel_more_does_not() -> None:
    """The largest square image of a network that takes any size is exact to the pixel."""
    network, limit = Network.of("D", head="gap"), parse_bytes("8GiB")
    side = tensors_fit(SoughtImage(network, StepOptions(batch=4)), limit).largest
    arguments = {"batch": 4, "head": "gap"}
    assert vggkit.memory("D", input=(3, side, side), **arguments).peak_bytes <= limit
    assert vggkit.memory("D", input=(3, side + 1, side + 1), **arguments).peak_bytes > limit


def test_an_image_is_not_solved_for_where_the_fc_layers_fix_it() -> None:
    """D's own FC layers take one size of maps, and asking for another size says what would help."""
    with pytest.raises(ArgumentError, match="head=gap"):
        tensors_fit(SoughtImage(Network.of("D"), StepOptions()), 10**10)


def test_an_image_is_not_solved_for_where_only_larger_ones_need_larger_fc_layers() -> None:
    """Seven strides leave one position of 64×64, as of any smaller image; a larger one needs other parameters."""
    strided = "{input: 3x64x64, blocks: [[%s]], classifier: [%sFC-3]}"
    fixed = Network.of(vggkit.loads(strided % (", ".join(["conv3-4/2"] * 7), "")))
    with pytest.raises(ArgumentError, match=r"parameters that depend on the image's size.*Expected head=gap, a trunk"):
        tensors_fit(SoughtImage(fixed, StepOptions()), parse_bytes("300MB"))
    pooled = Network.of(vggkit.loads(strided % (", ".join(["conv3-4/2"] * 7), "{adaptive-avgpool: 1}, ")))
    side = tensors_fit(SoughtImage(pooled, StepOptions()), parse_bytes("300MB")).largest
    parameters = vggkit.summarize(pooled).totals.parameters
    assert vggkit.summarize(pooled.config, input=f"3x{side}x{side}").totals.parameters == parameters == 1_015


def test_no_batch_that_torch_refuses_fits() -> None:
    """Where only one image would fit, nothing does, and what is missing is missing for two."""
    network = Network.of("vgg11_slimming_bn1d", width=0.1)
    with pytest.raises(ArgumentError, match="torch can't run a training step at batch 1, as norm1 would"):
        plan_step(network, StepOptions())
    for device in DEVICES:
        options = StepOptions(device=device)
        peak = vggkit.memory(network, batch=2, device=device).peak_bytes
        assert tensors_fit(SoughtBatch(network, options), peak).largest == 2
        fit = tensors_fit(SoughtBatch(network, options), peak - 1)
        assert (fit.largest, fit.next, fit.peak_bytes, fit.missing_bytes) == (0, 2, peak, 1)


def test_no_image_that_torch_refuses_fits() -> None:
    """Where maps of one position are too small for a batch norm, the smallest image has larger ones."""
    network = Network.of(vggkit.loads("{input: 3x32x32, blocks: [[conv3-4, maxpool, {conv: 4, norm: batch}]]}"))
    fit = tensors_fit(SoughtImage(network, StepOptions()), 1)
    assert (fit.largest, fit.next) == (0, 4)
    assert tensors_fit(SoughtImage(network, StepOptions(batch=2)), 1).next == 2
    flat = Network.of(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4]], classifier: [global-avgpool, batchnorm]}"))
    with pytest.raises(ArgumentError, match="torch can't run a training step at batch 1, as norm would"):
        tensors_fit(SoughtImage(flat, StepOptions()), 10**9)


@pytest.mark.parametrize("limit", ["3", "GiB", "24 parsecs", "", "-1GB", 0, True])
def test_a_limit_without_number_or_unit_is_refused(limit: str | int) -> None:
    """A limit needs a number and a unit, or bytes."""
    with pytest.raises(ArgumentError, match="expected"):
        vggkit.max_batch("D", limit)


# The table


def printed(*arguments: str, exit_code: int = 0) -> str:
    """Return what `vggkit memory` prints through a pipe."""
    result = CliRunner().invoke(main, ["memory", *arguments])
    assert (result.exit_code, result.stderr) == (exit_code, "")
    return result.stdout


LIMITS = ("--fit", "RTX 3090", "--fit", "8GB")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fit.txt", LIMITS),
        ("fit-tensors.txt", (*LIMITS, "--device", "cpu")),
        ("fit.csv", (*LIMITS, "--format", "csv")),
        ("fit.tex", (*LIMITS, "--format", "latex")),
        ("fit.html", (*LIMITS, "--format", "html")),
        ("fit-image.txt", ("--fit", "8GiB", "--solve", "image", "--batch", "64", "--set", "head=gap")),
    ],
)
def test_what_fits_of_d_is_the_golden_table(name: str, options: tuple[str, ...], golden: Golden) -> None:
    """A row for each limit in the terminal, as data, for papers and for pages, byte for byte."""
    golden(f"memory-D-{name}", printed("D", *options))


def test_what_does_not_fit_is_told_in_the_table() -> None:
    """Not even one image: nothing is left, and what is missing stands there."""
    line = printed("D", "--fit", "1MB", "--device", "cpu", exit_code=1).splitlines()[4]
    assert "not even batch 1" in line
    assert "–" in line
    line = printed("D", "--fit", "1MB", exit_code=1).splitlines()[4]
    assert "not even batch 1" in line
    assert "none" in line


def test_of_several_ranks_all_images_are_told_and_where_other_strategies_are() -> None:
    """One image more for each of the four ranks has no room."""
    said = printed("D", "--fit", "24GiB", "--device", "cpu", "--ranks", "4", "--parallel", "fsdp")
    assert "\nOn 4 cards of 24.00 GiB: 1,340 images in all by fsdp. `vggkit plan` has all strategies.\n" in said
    found = vggkit.max_batch("D", "24GiB", device="cpu", ranks=4, parallel="fsdp")
    assert found == 1340 // 4
    peaks = [vggkit.memory("D", batch=batch, ranks=4, parallel="fsdp").peak_bytes for batch in (found, found + 1)]
    assert peaks[0] <= parse_bytes("24GiB") < peaks[1]
