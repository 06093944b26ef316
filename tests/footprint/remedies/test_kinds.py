"""Each kind of change: where it has a place, what it changes, and in which order."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

import vggkit
from tests.footprint.remedies.macs import recomputed_macs
from vggkit.footprint.optimizers import OPTIMIZERS, Update
from vggkit.footprint.ranks import Group
from vggkit.footprint.remedies.kinds import (
    KINDS,
    Accumulation,
    Autocast,
    CachedTarget,
    Checkpointing,
    ExpandableSegments,
    Freezing,
    FrozenLoss,
    Fused,
    Kind,
    OneByOne,
    OtherOptimizer,
    OtherSharing,
    Price,
    StepInBackward,
    cheapest_first,
)
from vggkit.footprint.steps import step_of
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.refusals import decided
from vggkit.network import Network

D = Network.of("D", input="3x64x64", num_classes=10, width=0.25)
BLOCKS = ("block1", "block2", "block3", "block4", "block5")


def typed(kind: Kind, options: StepOptions, network: Network = D) -> list[str]:
    """Return a kind's changes as they are typed."""
    return [change.typed for change in kind.changes(network, options)]


def test_another_optimizer_keeps_less() -> None:
    """One for each smaller amount; the one that keeps the most comes first; without an optimizer there is none."""
    assert typed(OtherOptimizer(), StepOptions(optimizer="sgd")) == []
    assert typed(OtherOptimizer(), StepOptions(optimizer="none")) == []
    for optimizer in OPTIMIZERS:
        options = StepOptions(batch=2, optimizer=optimizer)
        states = [
            vggkit.memory(D, optimizer=change.options["optimizer"]).by_kind["optimizer"]
            for change in OtherOptimizer().changes(D, options)
        ]
        own = vggkit.memory(D, optimizer=optimizer).by_kind["optimizer"]
        assert [own, *states] == sorted({own, *states}, reverse=True)


def test_another_optimizer_has_the_options_that_were_given() -> None:
    """None is named that torch would refuse them for."""
    decayed, largest = Update(weight_decay=0.1), Update(amsgrad=True)
    both = ["--optimizer sgd-momentum", "--optimizer sgd"]
    assert typed(OtherOptimizer(), StepOptions(optimizer="adam", update=decayed)) == both
    assert typed(OtherOptimizer(), StepOptions(optimizer="adam", update=largest)) == []


def test_blocks_are_frozen_from_the_first_on() -> None:
    """What is frozen stays frozen; a trunk's last block is trained, since nothing else is."""
    assert [change.options["freeze"] for change in Freezing().changes(D, StepOptions())] == [
        BLOCKS[:number] for number in range(1, 6)
    ]
    assert typed(Freezing(), StepOptions(freeze=("block2", "fc1"))) == [
        "--freeze block2,fc1,block1",
        "--freeze block2,fc1,block1,block3",
        "--freeze block2,fc1,block1,block3,block4",
        "--freeze block2,fc1,block1,block3,block4,block5",
    ]
    trunk = Network.of(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4], [conv3-4]]}"))
    assert typed(Freezing(), StepOptions(), trunk) == ["--freeze block1"]


def test_autocast_goes_on_or_off() -> None:
    """It needs float32."""
    assert typed(Autocast(), StepOptions()) == ["--autocast"]
    assert typed(Autocast(), StepOptions(autocast=True)) == ["without --autocast"]
    assert typed(Autocast(), StepOptions(dtype="bfloat16")) == []


def test_an_optimizer_is_fused_where_torch_can() -> None:
    """Each that has it; what was asked for together is not asked for any more."""
    for optimizer, rules in OPTIMIZERS.items():
        assert typed(Fused(), StepOptions(optimizer=optimizer)) == ["--fused"] * ("fused" in rules.takes)
    assert typed(Fused(), StepOptions(optimizer="adamw", update=Update(fused=True))) == []
    change = next(Fused().changes(D, StepOptions(optimizer="adamw", update=Update(foreach=True))))
    assert (change.typed, change.options) == ("--fused without --foreach", {"fused": True, "foreach": None})


def test_parameters_are_changed_one_by_one_where_they_were_not() -> None:
    """On a card they are together if nobody says anything."""
    assert typed(OneByOne(), StepOptions()) == []
    assert typed(OneByOne(), StepOptions(device="cuda")) == ["--no-foreach"]
    assert typed(OneByOne(), StepOptions(update=Update(foreach=True))) == ["--no-foreach"]
    assert typed(OneByOne(), StepOptions(device="cuda", update=Update(fused=True))) == []
    assert typed(OneByOne(), StepOptions(device="cuda", optimizer="none")) == []


def test_a_step_in_the_backward_pass_needs_each_gradient_alone() -> None:
    """It can't be where all are clipped, added up or kept, nor where nothing steps."""
    assert typed(StepInBackward(), StepOptions()) == ["--step-in-backward"]
    for changes in ({"step_in_backward": True}, {"accumulate": 2}, {"clip_grad": True}, {"zero_grad": "zero"}):
        assert typed(StepInBackward(), StepOptions().replace(**changes)) == []
    assert typed(StepInBackward(), StepOptions(optimizer="none")) == []


def test_a_batch_is_parted_by_each_of_its_divisors() -> None:
    """What was added up before is added up as often in each part; no more than a step may have."""
    assert typed(Accumulation(), StepOptions(batch=6, accumulate=2)) == [
        "--batch 3 --accumulate 4",
        "--batch 2 --accumulate 6",
        "--batch 1 --accumulate 12",
    ]
    assert typed(Accumulation(), StepOptions(batch=7)) == ["--batch 1 --accumulate 7"]
    assert typed(Accumulation(), StepOptions(batch=1009)) == []
    assert typed(Accumulation(), StepOptions(batch=4, accumulate=500)) == ["--batch 2 --accumulate 1000"]
    assert typed(Accumulation(), StepOptions(batch=6, step_in_backward=True)) == []


@pytest.mark.parametrize(
    ("text", "freeze", "price"),
    [
        ("[[conv3-4, conv3-4]]", (), Price.LOOP),
        ("[[{conv: 4, norm: batch}, conv3-4]]", (), Price.RESULT),
        ("[[{conv: 4, norm: batch}], [conv3-4]]", ("block1",), Price.LOOP),
        ("[[{conv: 4, norm: batch}], [{conv: 4, norm: batch}]]", ("block1",), Price.RESULT),
        ("[[conv3-4, {groupnorm: 2}]]", (), Price.LOOP),
        ("[[conv3-4, LRN, {dropout: 0.5}]]", (), Price.LOOP),
    ],
)
def test_statistics_of_each_part_are_another_result(text: str, freeze: tuple[str, ...], price: Price) -> None:
    """Torch's gradients of a batch are those of its parts, added up, unless a batch norm is trained."""
    config = vggkit.loads(f"{{input: 3x8x8, blocks: {text}, classifier: [FC-3]}}")
    network = Network.of(config)
    change = next(Accumulation().changes(network, StepOptions(batch=4, freeze=freeze)))
    assert change.price is price
    model = vggkit.build(config, seed=0, dtype="float64", freeze=freeze)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # what is dropped differs from pass to pass
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0])
    of_parts = []
    for parts in (1, change.options["accumulate"]):
        model.zero_grad()
        for part, wanted in zip(images.chunk(parts), labels.chunk(parts)):
            (torch.nn.functional.cross_entropy(model(part), wanted) / parts).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        of_parts.append(torch.cat([gradient.flatten() for gradient in gradients]))
    # sums in another order: float64 has 16 digits, and the sums are of some hundreds of values
    assert torch.allclose(*of_parts, rtol=1e-9, atol=1e-12) == (price is Price.LOOP)


def test_expandable_segments_are_a_card_s() -> None:
    """Other settings stay; where segments are expandable already there is nothing to change."""
    assert typed(ExpandableSegments(), StepOptions()) == []
    assert typed(ExpandableSegments(), StepOptions(device="cuda")) == ["--allocator expandable_segments:True"]
    change = next(ExpandableSegments().changes(D, StepOptions(device="cuda", allocator="max_split_size_mb:64")))
    assert change.options == {"allocator": "max_split_size_mb:64,expandable_segments:True"}
    assert typed(ExpandableSegments(), StepOptions(device="cuda", allocator="expandable_segments:True")) == []


@pytest.mark.parametrize("freeze", [(), ("block1", "block2"), ("block3",)], ids=str)
def test_every_set_of_blocks_comes_with_what_torch_runs_again(freeze: tuple[str, ...]) -> None:
    """Each set once, the cheapest first, without blocks that the backward pass does not reach."""
    changes = list(Checkpointing().changes(D, StepOptions(batch=2, freeze=freeze)))
    reached = BLOCKS[2:] if freeze[:1] == ("block1",) else BLOCKS
    every = {chosen for size in range(1, len(reached) + 1) for chosen in combinations(reached, size)}
    assert sorted(change.options["checkpoint"] for change in changes) == sorted(every)
    costs = [change.run_again for change in changes]
    assert costs == sorted(costs)
    for change in changes[:: len(changes) // 6]:
        assert change.run_again == recomputed_macs(D, change.options["checkpoint"], freeze)


def test_checkpoints_that_are_there_stay() -> None:
    """Further ones are added, in the blocks' order, and only they are counted."""
    options = StepOptions(checkpoint=("block1", "block2", "block4", "block5"))
    (change,) = Checkpointing().changes(D, options)
    assert change.options == {"checkpoint": BLOCKS}
    assert change.words == "block3 is run again in the backward pass"
    assert change.run_again == recomputed_macs(D, ("block3",))


def test_a_perceptual_loss_has_its_own_changes() -> None:
    """Its network is frozen and its target is kept; nothing of it is trained."""
    options = StepOptions(mode="perceptual", optimizer="none", taps=("relu2_2", "relu3_1"), trainable=True)
    assert [kind.name for kind in KINDS if typed(kind, options)] == [
        "trainable", "cached_target", "autocast", "checkpoint",
    ]  # fmt: skip
    assert typed(FrozenLoss(), options) == ["without --trainable"]
    assert typed(CachedTarget(), options) == ["--cached-target"]
    changed = options.replace(trainable=False, cached_target=True)
    assert typed(FrozenLoss(), changed) == typed(CachedTarget(), changed) == []
    chosen = {name for change in Checkpointing().changes(D, options) for name in change.options["checkpoint"]}
    assert chosen == {"block1", "block2", "block3"}  # no others are run


def test_inference_has_only_what_it_can_change() -> None:
    """There is nothing to train, and nothing is kept for a backward pass."""
    options = StepOptions(mode="inference", optimizer="none", device="cuda", batch=4)
    assert [kind.name for kind in KINDS if typed(kind, options)] == ["autocast", "allocator"]


def test_another_way_to_share_the_work_has_the_same_images() -> None:
    """With what is left out of the own options, and another batch where fewer or more of them are needed."""
    assert typed(OtherSharing(), StepOptions(batch=8)) == []
    options = StepOptions(batch=6, accumulate=2, group=Group(ranks=4, parallel="ddp", bucket_cap_mb=10.0))
    changes = {change.typed: change for change in OtherSharing().changes(D, options)}
    assert changes["--parallel ddp without --bucket-cap-mb"].options == {"parallel": "ddp", "bucket_cap_mb": None}
    layers = changes["--parallel fsdp --units layers without --bucket-cap-mb"]
    assert layers.options == {"parallel": "fsdp", "units": "layers", "bucket_cap_mb": None}
    tensor = changes["--parallel tensor --batch 24 without --bucket-cap-mb"]
    assert tensor.options == {"parallel": "tensor", "batch": 24, "bucket_cap_mb": None}
    assert {options.replace(**change.options).images for change in changes.values()} == {48}
    assert (layers.price, tensor.price) == (Price.LOOP, Price.LOOP)
    with_norms = Network.of("D", input="3x64x64", num_classes=10, width=0.25, batch_norm=True)
    prices = {change.typed: change.price for change in OtherSharing().changes(with_norms, options)}
    assert prices["--parallel fsdp without --bucket-cap-mb"] is Price.LOOP
    assert prices["--parallel tensor --batch 24 without --bucket-cap-mb"] is Price.RESULT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_options_of_a_change_are_a_steps(kind: Kind) -> None:
    """Each change makes another step, and is said in words and as it is typed."""
    training = StepOptions(batch=2, optimizer="adamw", device="cuda")
    loss = StepOptions(batch=2, mode="perceptual", optimizer="none", taps=("relu2_2",), trainable=True)
    ranks = StepOptions(batch=16, group=Group(ranks=2, parallel="ddp", bucket_cap_mb=10))
    changes = [(options, change) for options in (training, loss, ranks) for change in kind.changes(D, options)]
    assert changes
    for options, change in changes:
        if decided(D, options.replace(**change.options)) is not None:
            assert step_of(D, options.replace(**change.options)).moments
        assert options.replace(**change.options) != options
        assert change.words
        assert "--" in change.typed
        assert (change.price is Price.AGAIN) == (change.run_again > 0)


def test_sets_of_blocks_come_in_the_order_of_their_costs() -> None:
    """Each exactly once; of equal ones the smaller first."""
    costs = {"a": 5, "b": 0, "c": 3, "d": 3, "e": 9}
    sets = list(cheapest_first(costs))
    assert sorted(sets) == sorted(chosen for size in range(6) for chosen in combinations(costs, size))
    ranks = [(sum(costs[name] for name in chosen), len(chosen)) for chosen in sets]
    assert ranks == sorted(ranks)
