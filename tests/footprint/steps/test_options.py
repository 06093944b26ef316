"""The options of a step."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

import vggkit
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import Update
from vggkit.footprint.ranks import Group
from vggkit.footprint.steps import STEPS
from vggkit.footprint.steps.options import (
    ABSENT,
    DEVICES,
    LOOP_KEYWORDS,
    MODES,
    STEP_KEYWORDS,
    TAKEN,
    TRAINING_KEYWORDS,
    Device,
    Mode,
    StepOptions,
    step_options,
)


def test_each_mode_has_a_step_and_says_which_options_it_has() -> None:
    """The words of the type, of the table and of the classes are the same; so are the options' names."""
    assert get_args(Mode) == MODES == tuple(STEPS)
    assert get_args(Device) == DEVICES
    assert {word for taken in TAKEN.values() for word in taken} == set(ABSENT) <= set(StepOptions.__struct_fields__)


def test_type_checkers_know_every_keyword() -> None:
    """They are those that are checked, the fields of the options, and the keywords of `memory`."""
    of_others = {*Update.__struct_fields__, *Group.__struct_fields__}
    checked = {*inspect.signature(step_options).parameters, *of_others} - {"others"}
    assert checked == {*StepOptions.__struct_fields__, *of_others} - {"update", "group"} == {*STEP_KEYWORDS}
    explained = {*inspect.signature(vggkit.memory).parameters, *of_others} - {"source", "others"}
    assert explained == {*STEP_KEYWORDS}


def test_a_training_steps_keywords_are_those_that_the_mode_takes() -> None:
    """And those of every mode, apart from what each figure of `compare` and `find` has of its own."""
    of_every_mode = {*StepOptions.__struct_fields__} - {*ABSENT}
    taken = {*TAKEN["training"], *Update.__struct_fields__} - {"update", "group"}
    assert {*LOOP_KEYWORDS} == taken | of_every_mode - {"batch", "mode", "dtype", "device"}
    assert {*TRAINING_KEYWORDS} == {*LOOP_KEYWORDS, *Group.__struct_fields__}


def test_the_json_has_every_option() -> None:
    """As it was given, or as torch chooses it."""
    step = vggkit.memory("D", device="cuda", freeze="block1", accumulate=2, optimizer="paper").to_dict()
    options = {word: step[word] for word in STEP_KEYWORDS}
    assert options == {
        "batch": 1, "mode": "training", "dtype": "float32", "device": "cuda", "loss": "cross-entropy",
        "optimizer": "paper", "freeze": ["block1"], "checkpoint": [], "taps": [], "cached_target": False,
        "trainable": False, "autocast": False, "allocator": "", "zero_grad": "set_to_none", "accumulate": 2,
        "ema": False, "clip_grad": False, "step_in_backward": False, "weight_decay": 5e-4, "foreach": True,
        "fused": False, "nesterov": False, "amsgrad": None, "momentum": None, "centered": None,
        "ranks": 1, "parallel": "none", "rank": None, "bucket_cap_mb": None, "static_graph": False,
        "units": "blocks", "reshard_after_forward": True, "replicas": 2, "param_dtype": None, "reduce_dtype": None,
        "cut": "auto", "microbatches": None, "schedule": "gpipe", "balance": "memory",
    }  # fmt: skip


def test_a_name_that_is_given_twice_counts_once() -> None:
    """In what a title says, too."""
    plan = vggkit.memory("D", freeze=["block1", "fc1", "block1"], checkpoint=["block2", "block2"])
    assert "frozen: block1, fc1, checkpointed: block2, cpu" in plan.title
    assert plan.options == vggkit.memory("D", freeze=["block1", "fc1"], checkpoint="block2").options


PERCEPTUAL = {"mode": "perceptual", "taps": ["relu1_2"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch: expected a whole number from 1"),
        (
            {"mode": "train"},
            "mode: expected one of training, inference, perceptual, found 'train'. Did you mean 'training'?",
        ),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16, bfloat16, float64"),
        ({"optimizer": "adan"}, "Did you mean 'adam'?"),
        ({"optimizer": ""}, "rprop, found ''."),
        ({"allocator": "expandable_segments:True"}, "allocator: needs device cuda, found cpu"),
        ({"device": "cuda", "allocator": "expandable:True"}, "allocator: expected one of expandable_segments, "),
        ({"device": "tpu"}, "device: expected one of cpu, cuda, found 'tpu'"),
        ({"freeze": ["block9"]}, "freeze: D has no block or layer 'block9'"),
        ({"checkpoint": ["fc1"]}, "checkpoint: expected block1 … block5 of D, found 'fc1'"),
        ({"ema": 1}, "ema: expected True or False, found 1"),
        ({"clip_grad": 1.0}, "clip_grad: expected True or False, found 1.0"),
        ({"autocast": "bfloat16"}, "autocast: expected True or False, found 'bfloat16'"),
        ({"step_in_backward": None}, "step_in_backward: expected True or False, found None"),
        ({**PERCEPTUAL, "cached_target": "yes"}, "cached_target: expected True or False, found 'yes'"),
        ({**PERCEPTUAL, "trainable": 0}, "trainable: expected True or False, found 0"),
        ({"autocast": True, "dtype": "float16"}, "autocast: needs dtype float32, found float16"),
        ({"mode": "inference", "optimizer": "adam"}, "optimizer: needs mode training, found inference"),
        ({"mode": "inference", "freeze": ["block1"]}, "freeze: needs mode training, found inference"),
        (
            {"mode": "inference", "checkpoint": "block1"},
            "checkpoint: needs mode training or perceptual, found inference",
        ),
        ({"mode": "inference", "weight_decay": 0.1}, "weight_decay: needs mode training, found inference"),
        ({"mode": "inference", "fused": True}, "fused: needs mode training, found inference"),
        ({**PERCEPTUAL, "foreach": False}, "foreach: needs mode training, found perceptual"),
        (
            {"optimizer": "sgd", "momentum": 0.9},
            "momentum: expected an optimizer that has it (rmsprop; set in sgd-momentum, paper), found sgd",
        ),
        ({"taps": ["relu1_2"]}, "taps: needs mode perceptual, found training"),
        ({"mode": "inference", "cached_target": True}, "cached_target: needs mode perceptual, found inference"),
        ({"trainable": True}, "trainable: needs mode perceptual, found training"),
        ({**PERCEPTUAL, "optimizer": "adam"}, "optimizer: needs mode training, found perceptual"),
        ({**PERCEPTUAL, "freeze": ["block1"]}, "freeze: needs mode training, found perceptual"),
        ({**PERCEPTUAL, "accumulate": 2}, "accumulate: needs mode training, found perceptual"),
        ({"mode": "perceptual"}, "taps: mode perceptual needs names of layers, such as relu1_2,relu2_2; found none"),
        ({"mode": "perceptual", "taps": ["relu9_9"]}, "taps: D has no layer 'relu9_9'. Did you mean"),
        ({"mode": "perceptual", "taps": ["block2"]}, "taps: D: block2 is not a layer; its layers are block2_conv1, "),
        ({"mode": "perceptual", "taps": [3]}, "taps: expected a name or several, found 3"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    """A wrong argument ends in a line that names it and the allowed values."""
    with pytest.raises(ArgumentError) as caught:
        vggkit.memory("D", **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert message in str(caught.value)
