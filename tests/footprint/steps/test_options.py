"""The options of a step."""

from __future__ import annotations

from typing import get_args

import pytest

import vggkit
from vggkit.base.errors import ArgumentError
from vggkit.footprint.steps import STEPS
from vggkit.footprint.steps.options import ABSENT, DEVICES, MODES, TAKEN, Device, Mode, StepOptions


def test_each_mode_has_a_step_and_says_which_options_it_has() -> None:
    """The words of the type, of the table and of the classes are the same; so are the options' names."""
    assert get_args(Mode) == MODES == tuple(STEPS)
    assert get_args(Device) == DEVICES
    assert {word for taken in TAKEN.values() for word in taken} == set(ABSENT) <= set(StepOptions.__struct_fields__)


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
        ({"allocator": "expandable_segments:True"}, "allocator: needs device cuda, found cpu"),
        ({"device": "cuda", "allocator": "expandable:True"}, "allocator: expected one of expandable_segments, "),
        ({"device": "tpu"}, "device: expected one of cpu, cuda, found 'tpu'"),
        ({"freeze": ["block9"]}, "freeze: D has no block or layer 'block9'"),
        ({"checkpoint": ["fc1"]}, "checkpoint: expected block1 … block5 of D, found 'fc1'"),
        ({"autocast": True, "dtype": "float16"}, "autocast: needs dtype float32, found float16"),
        ({"mode": "inference", "optimizer": "adam"}, "optimizer: needs mode training, found inference"),
        ({"mode": "inference", "freeze": ["block1"]}, "freeze: needs mode training, found inference"),
        (
            {"mode": "inference", "checkpoint": "block1"},
            "checkpoint: needs mode training or perceptual, found inference",
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
