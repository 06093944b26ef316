"""One network's figures: the built models, torch's flop counter and memory tracker, and the changes after a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests.figures.beside import of
from vggkit import Network, compare
from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.figures.compared import split_changes
from vggkit.footprint.steps.options import checked_options
from vggkit.model import verify

NAMES = ["A", "A-LRN", "B", "C", "D", "E"]


def model_of(name: str) -> vggkit.VGG:
    """Return the built model, without memory."""
    return vggkit.build(name, device="meta").eval()


def numel(model: nn.Module, kind: type[nn.Module] = nn.Module) -> int:
    """Return the parameters of the modules of a kind."""
    modules = [module for module in model.modules() if isinstance(module, kind)]
    return sum(p.numel() for module in modules for p in module.parameters(recurse=kind is not nn.Module))


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_built_models(name: str) -> None:
    """Parameters in all, in convolutions and in FC layers, and depth are the module's; MACs the flop counter's half."""
    model, first = model_of(name), model_of("A")
    one = compare("A", name).networks[1]
    total = sum(p.numel() for p in model.parameters())
    assert one.figures()["parameters"] == total
    assert one.conv_parameters == numel(model, nn.Conv2d)
    assert one.fc_parameters == numel(model, nn.Linear)
    assert one.relative_parameters == total / sum(p.numel() for p in first.parameters())
    assert one.figures()["weight_layers"] == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(2, 3, 224, 224, device="meta"))
    assert compare(name, batch=2).networks[0].figures()["multiply_accumulates"] == counter.get_total_flops() // 2


def test_shares_go_by_the_kind_not_by_the_place() -> None:
    """A convolution in the classifier is a convolution, and batch norm is neither."""
    network = of("{conv: 4, norm: batch}", classifier="conv1-8, FC-7, FC-5")
    model = vggkit.build(network, device="meta")
    one = compare(network).networks[0]
    counts = (one.conv_parameters, one.fc_parameters, one.figures()["parameters"])
    assert counts == (numel(model, nn.Conv2d), numel(model, nn.Linear), sum(p.numel() for p in model.parameters()))
    assert sum(counts[:2]) == counts[2] - numel(model, nn.BatchNorm2d)


def test_parameters_in_millions_are_the_papers_table_2() -> None:
    """133, 133, 133, 134, 138 and 144 million."""
    parameters = [one.figures()["parameters"] for one in compare().networks]
    assert [round(number / 1e6) for number in parameters] == [133, 133, 133, 134, 138, 144]


TABLE_3 = {
    "A": [(256, 256, 29.6, 10.4)],
    "A-LRN": [(256, 256, 29.7, 10.5)],
    "B": [(256, 256, 28.7, 9.9)],
    "C": [(256, 256, 28.1, 9.4), (384, 384, 28.1, 9.3), ((256, 512), 384, 27.3, 8.8)],
    "D": [(256, 256, 27.0, 8.8), (384, 384, 26.8, 8.7), ((256, 512), 384, 25.6, 8.1)],
    "E": [(256, 256, 27.3, 9.0), (384, 384, 26.9, 8.7), ((256, 512), 384, 25.5, 8.0)],
}


def test_reported_errors_are_the_papers_table_3() -> None:
    """Each line of Table 3; the figure to sort by is the lowest."""
    for one in compare().networks:
        lines = TABLE_3[one.name]
        assert [(line.train, line.test, line.top1, line.top5) for line in one.reported] == lines
        assert one.figures()["top1_error"] == min(line[2] for line in lines)
        assert one.figures()["top5_error"] == min(line[3] for line in lines)


def test_what_was_changed_has_no_reported_errors() -> None:
    """The paper did not train D with batch norm."""
    one = compare("D:batch_norm=true").networks[0]
    assert (one.reported, one.figures()["top5_error"]) == ((), None)


def test_activations_and_receptive_fields_are_the_published_ones() -> None:
    """Output elements, the input included, times four; the field of the last pool."""
    networks = compare().networks
    elements = [9_116_136, 12_327_400, 13_933_032, 15_237_608, 15_237_608, 16_542_184]
    assert [one.figures()["activation_bytes"] for one in networks] == [4 * number for number in elements]
    assert [one.receptive_field for one in networks] == [(side, side) for side in (150, 150, 156, 156, 212, 268)]


STEPS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "fused": True, "ema": True},
    {"optimizer": "paper", "accumulate": 2, "checkpoint": ["block1"], "freeze": "block2"},
    {"optimizer": "rmsprop", "momentum": 0.9, "step_in_backward": True, "autocast": True},
    {"optimizer": "sgd", "loss": "soft-labels"},
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.get("optimizer", "default"))
def test_peaks_are_what_the_tracker_measures(step: dict[str, Any]) -> None:
    """Inference and training peak of two small networks are MemTracker's, at the batch and in the loop asked."""
    sources = [Network.of(name, width=0.05, input="3x32x32") for name in ("A-LRN", "B")]
    comparison = compare(*sources, batch=3, **step)
    for network, one in zip(sources, comparison.networks):
        training = checked_options(network, batch=3, **step)
        assert one.training_peak_bytes == sum(verify.training_peak(network, training).values())
        assert one.saved_for_backward_bytes == verify.saved_bytes(network, training)
        inference = checked_options(network, batch=3, mode="inference", autocast=training.autocast)
        assert one.inference_peak_bytes == sum(verify.inference_peak(network, inference).values())


@pytest.mark.parametrize(
    ("name", "batch", "optimizer", "reserved"),
    [
        ("D", 1, None, 1_793_064_960),
        ("D", 64, "adamw", 8_914_993_152),
        ("E", 32, "sgd", 5_192_548_352),
        ("A-LRN", 8, "adamw", 3_829_399_552),
        ("D:batch_norm=true", 16, None, 4_330_618_880),
    ],
)
def test_reserved_bytes_are_what_torchs_allocator_takes(
    name: str, batch: int, optimizer: str | None, reserved: int
) -> None:
    """The published figures of torch's own allocator, at the batch and with the optimizer asked."""
    [one] = compare(name, batch=batch, optimizer=optimizer).networks
    assert (one.reserved_bytes, one.figures(["reserved_bytes"])) == (reserved, {"reserved_bytes": reserved})


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_batch_and_dtype_reach_every_figure(dtype: str) -> None:
    """Bytes, MACs and peaks are those of summarize and memory with the same arguments."""
    one = compare("A", batch=5, dtype=dtype, optimizer="adam").networks[0]
    totals = vggkit.summarize("A", batch=5, dtype=dtype).totals
    assert one.figures()["activation_bytes"] == totals.activation_bytes
    assert one.figures()["multiply_accumulates"] == totals.multiply_accumulates
    assert one.training_peak_bytes == vggkit.memory("A", batch=5, dtype=dtype, optimizer="adam").peak_bytes
    assert one.inference_peak_bytes == vggkit.memory("A", batch=5, dtype=dtype, mode="inference").peak_bytes
    plan = vggkit.memory("A", batch=5, dtype=dtype, optimizer="adam", device="cuda")
    assert one.reserved_bytes == plan.reserved_bytes


def test_without_parameters_nothing_is_relative() -> None:
    """A first network of pools alone: None, not a division by zero."""
    pools = Network.of(vggkit.loads("input: 3x8x8\nblocks: [[maxpool]]"))
    assert [one.relative_parameters for one in compare(pools, "A").networks] == [None, None]


# What is compared


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("D", ("D", ())),
        ("D:width=0.5", ("D", ("width=0.5",))),
        ("vgg16:batch_norm=true, input=3x64x64", ("vgg16", ("batch_norm=true", "input=3x64x64"))),
        ("/home/a:b/my.yaml", ("/home/a:b/my.yaml", ())),
        ("/home/a:b=c/my.yaml", ("/home/a:b=c/my.yaml", ())),
        ("/home/a:b/my.yaml:head=gap", ("/home/a:b/my.yaml", ("head=gap",))),
        (r"C:\nets\my.yaml", (r"C:\nets\my.yaml", ())),
        ("C:my.YML", ("C:my.YML", ())),
        (r"C:\nets\my.yaml:width=2", (r"C:\nets\my.yaml", ("width=2",))),
        ("C:/my.yaml:width=2,head=gap", ("C:/my.yaml", ("width=2", "head=gap"))),
    ],
)
def test_changes_stand_behind_the_last_colon(text: str, parts: tuple[str, tuple[str, ...]]) -> None:
    """A path may have colons, a drive letter too; what has a slash or ends in .yaml is no change."""
    assert split_changes(text) == parts


def test_changes_are_the_overrides_of_load() -> None:
    """A name with changes is the network that load gives with them, and says what was changed."""
    one = compare("D:batch_norm=true,width=0.5,input=3x64x64").networks[0]
    wanted = vggkit.summarize("D", batch_norm=True, width=0.5, input="3x64x64", expand=True)
    assert one.summary == wanted
    assert one.label == "D:batch_norm=true,width=0.5,input=3x64x64"


def test_a_columns_own_changes_win_over_those_of_all() -> None:
    """Keywords change every network but what says otherwise."""
    networks = compare("A", "A:num_classes=7", num_classes=10).networks
    assert [one.summary.rows[-1].output_shape for one in networks] == [(10,), (7,)]


def test_a_path_with_a_colon_is_found(tmp_path: Path) -> None:
    """With changes behind it and without."""
    folder = tmp_path / "a:b=c"
    folder.mkdir()
    path = folder / "my.yaml"
    path.write_text("extends: A\n")
    networks = compare(path, f"{path}:num_classes=10").networks
    assert [one.summary.rows[-1].output_shape for one in networks] == [(1000,), (10,)]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("D:width", "'D:width': expected key=value, such as num_classes=10, found 'width'"),
        ("D:", "'D:': expected key=value, such as num_classes=10, found ''"),
        ("D:width=", "'D:width=': width has no value"),
        ("D:widht=2", "unknown override 'widht'. Did you mean 'width'?"),
        ("D:width=abc", "'D:width=abc': width: expected a number above 0"),
    ],
)
def test_wrong_changes_say_where(source: str, message: str) -> None:
    """The message begins with what was typed."""
    with pytest.raises(ArgumentError) as caught:
        compare("A", source)
    assert message in str(caught.value)


def test_what_is_not_there_is_a_config_error() -> None:
    """An unknown name, with or without changes."""
    for source in ("Q", "Q:width=2", ":width=2"):
        with pytest.raises(ConfigError, match="unknown configuration"):
            compare(source)


def test_a_peak_that_torch_refuses_is_none_and_a_line_says_why() -> None:
    """The other figures are there; the table, the differences and the picture say what would help."""
    name, refusal = "vgg11_slimming_bn1d", "torch can't run a training step at batch 1, as norm1 would normalize"
    comparison = compare("A", name)
    one = comparison.networks[1]
    assert (one.training_peak_bytes, comparison.to_dict()["networks"][1]["training_peak_bytes"]) == (None, None)
    assert one.reserved_bytes is None
    assert one.inference_peak_bytes == vggkit.memory(name, mode="inference").peak_bytes
    assert refusal in " ".join(str(comparison).split())
    assert refusal in " ".join(str(comparison.diff()).split())
    assert [total.name for total in comparison.diff().totals][-1] == "inference_peak_bytes"
    assert compare(name, "A", sort="training_peak").networks[1].name == name
    with pytest.raises(ArgumentError, match=refusal):
        vggkit.plot("A", name, kind="compare")
    assert compare(name, batch=2).networks[0].training_peak_bytes == vggkit.memory(name, batch=2).peak_bytes
