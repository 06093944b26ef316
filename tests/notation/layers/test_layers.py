"""The rules of each layer kind, against torch: one table of cases, and single layers drawn at random."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests import drawn
from vggkit.base.errors import LayerError, TooSmallError
from vggkit.notation.layers import (
    ELU,
    GELU,
    KINDS,
    POINT,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Hardtanh,
    Layer,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Shape,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Window,
    activations,
    elements,
    head,
    norms,
    rules,
    windows,
)

MAPS = (4, 9, 11)
"""Channels × height × width that every case below fits."""


class Case(NamedTuple):
    """A layer and the torch module that it must become on 4×9×11 maps (or on its own input).

    Args:
        layer: the layer.
        module: the class's name in torch.nn.
        arguments: what its constructor receives, by name.
        output: the output's shape.
        input: the input's shape.
        window: what one output sees.
    """

    layer: Layer
    module: str
    arguments: dict[str, Any]
    output: Shape
    input: Shape = MAPS
    window: Window = POINT


def conv(*, kernel: Any = (3, 3), out: int = 6, **others: Any) -> dict[str, Any]:
    """Return the arguments of a Conv2d on 4 channels."""
    usual = {
        "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "bias": True, "padding_mode": "zeros",
    }  # fmt: skip
    return {"in_channels": 4, "out_channels": out, "kernel_size": kernel, **usual, **others}


def maxpool(**others: Any) -> dict[str, Any]:
    """Return the arguments of a MaxPool2d."""
    usual = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    return {**usual, **others}


def avgpool(**others: Any) -> dict[str, Any]:
    """Return the arguments of an AvgPool2d."""
    usual = {
        "kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False, "count_include_pad": True,
        "divisor_override": None,
    }  # fmt: skip
    return {**usual, **others}


def batchnorm(**others: Any) -> dict[str, Any]:
    """Return the arguments of a BatchNorm of 4 channels."""
    return {"num_features": 4, "eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True, **others}


W = Window
CASES = [
    Case(Conv2d(6), "Conv2d", conv(), (6, 9, 11), window=W((3, 3), (1, 1))),
    Case(Conv2d(6, 1), "Conv2d", conv(kernel=(1, 1), padding=(0, 0)), (6, 9, 11), window=W((1, 1), (1, 1))),
    Case(Conv2d(5, (3, 1)), "Conv2d", conv(kernel=(3, 1), padding=(1, 0), out=5), (5, 9, 11), window=W((3, 1), (1, 1))),
    Case(Conv2d(6, stride=(2, 1)), "Conv2d", conv(stride=(2, 1)), (6, 5, 11), window=W((3, 3), (2, 1))),
    Case(Conv2d(6, stride=2), "Conv2d", conv(stride=(2, 2)), (6, 5, 6), window=W((3, 3), (2, 2))),
    Case(Conv2d(6, padding=(0, 2)), "Conv2d", conv(padding=(0, 2)), (6, 7, 13), window=W((3, 3), (1, 1))),
    Case(
        Conv2d(6, dilation=(2, 3)), "Conv2d", conv(dilation=(2, 3), padding=(2, 3)), (6, 9, 11),
        window=W((5, 7), (1, 1)),
    ),
    Case(Conv2d(6, groups=2), "Conv2d", conv(groups=2), (6, 9, 11), window=W((3, 3), (1, 1))),
    Case(Conv2d(6, bias=False), "Conv2d", conv(bias=False), (6, 9, 11), window=W((3, 3), (1, 1))),
    *(
        Case(Conv2d(6, padding_mode=mode), "Conv2d", conv(padding_mode=mode), (6, 9, 11), window=W((3, 3), (1, 1)))
        for mode in ("reflect", "replicate", "circular")
    ),
    Case(MaxPool2d(), "MaxPool2d", maxpool(), (4, 4, 5), window=W((2, 2), (2, 2))),
    Case(MaxPool2d((3, 2)), "MaxPool2d", maxpool(kernel_size=(3, 2)), (4, 4, 5), window=W((3, 2), (2, 2))),
    Case(MaxPool2d(stride=(1, 3)), "MaxPool2d", maxpool(stride=(1, 3)), (4, 8, 4), window=W((2, 2), (1, 3))),
    Case(MaxPool2d(padding=(1, 0)), "MaxPool2d", maxpool(padding=(1, 0)), (4, 5, 5), window=W((2, 2), (2, 2))),
    Case(MaxPool2d(dilation=(1, 4)), "MaxPool2d", maxpool(dilation=(1, 4)), (4, 4, 4), window=W((2, 5), (2, 2))),
    Case(MaxPool2d(ceil_mode=True), "MaxPool2d", maxpool(ceil_mode=True), (4, 5, 6), window=W((2, 2), (2, 2))),
    Case(AvgPool2d(), "AvgPool2d", avgpool(), (4, 4, 5), window=W((2, 2), (2, 2))),
    Case(AvgPool2d((3, 2)), "AvgPool2d", avgpool(kernel_size=(3, 2)), (4, 4, 5), window=W((3, 2), (2, 2))),
    Case(AvgPool2d(stride=(1, 3)), "AvgPool2d", avgpool(stride=(1, 3)), (4, 8, 4), window=W((2, 2), (1, 3))),
    Case(AvgPool2d(padding=(1, 0)), "AvgPool2d", avgpool(padding=(1, 0)), (4, 5, 5), window=W((2, 2), (2, 2))),
    Case(AvgPool2d(ceil_mode=True), "AvgPool2d", avgpool(ceil_mode=True), (4, 5, 6), window=W((2, 2), (2, 2))),
    Case(
        AvgPool2d(count_include_pad=False), "AvgPool2d", avgpool(count_include_pad=False), (4, 4, 5),
        window=W((2, 2), (2, 2)),
    ),
    Case(
        AvgPool2d(divisor_override=3), "AvgPool2d", avgpool(divisor_override=3), (4, 4, 5), window=W((2, 2), (2, 2))
    ),
    Case(
        AdaptiveAvgPool2d((3, 11)), "AdaptiveAvgPool2d", {"output_size": (3, 11)}, (4, 3, 11), window=W((3, 1), (3, 1))
    ),
    Case(AdaptiveAvgPool2d(1), "AdaptiveAvgPool2d", {"output_size": (1, 1)}, (4, 1, 1), window=W((9, 11), (9, 11))),
    Case(GlobalAvgPool2d(), "AdaptiveAvgPool2d", {"output_size": 1}, (4, 1, 1), window=W((9, 11), (9, 11))),
    Case(LocalResponseNorm(), "LocalResponseNorm", {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}, MAPS),
    Case(
        LocalResponseNorm(3, 0.1, 0.5, 1.0), "LocalResponseNorm", {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 1.0}, MAPS
    ),
    Case(BatchNorm(), "BatchNorm2d", batchnorm(), MAPS),
    Case(BatchNorm(), "BatchNorm1d", batchnorm(), (4,), (4,)),
    Case(BatchNorm(eps=1e-3), "BatchNorm2d", batchnorm(eps=1e-3), MAPS),
    Case(BatchNorm(momentum=None), "BatchNorm2d", batchnorm(momentum=None), MAPS),
    Case(BatchNorm(affine=False), "BatchNorm2d", batchnorm(affine=False), MAPS),
    Case(BatchNorm(track_running_stats=False), "BatchNorm2d", batchnorm(track_running_stats=False), MAPS),
    Case(
        GroupNorm(), "GroupNorm", {"num_groups": 32, "num_channels": 64, "eps": 1e-5, "affine": True}, (64, 2, 3),
        (64, 2, 3),
    ),
    Case(GroupNorm(2), "GroupNorm", {"num_groups": 2, "num_channels": 4, "eps": 1e-5, "affine": True}, (4,), (4,)),
    Case(
        GroupNorm(2, eps=1e-3, affine=False), "GroupNorm",
        {"num_groups": 2, "num_channels": 4, "eps": 1e-3, "affine": False}, MAPS,
    ),
    Case(
        GroupNorm(((4, 2), (8, 4))), "GroupNorm", {"num_groups": 2, "num_channels": 4, "eps": 1e-5, "affine": True},
        MAPS,
    ),
    Case(ReLU(), "ReLU", {"inplace": True}, MAPS),
    Case(ReLU(inplace=False), "ReLU", {"inplace": False}, (7,), (7,)),
    Case(LeakyReLU(), "LeakyReLU", {"negative_slope": 0.01, "inplace": True}, MAPS),
    Case(LeakyReLU(negative_slope=0.2, inplace=False), "LeakyReLU", {"negative_slope": 0.2, "inplace": False}, MAPS),
    Case(LeakyReLU(negative_slope=-0.2), "LeakyReLU", {"negative_slope": -0.2, "inplace": False}, MAPS),
    Case(ELU(), "ELU", {"alpha": 1.0, "inplace": True}, MAPS),
    Case(ELU(alpha=0.5, inplace=False), "ELU", {"alpha": 0.5, "inplace": False}, MAPS),
    Case(ELU(alpha=-0.5), "ELU", {"alpha": -0.5, "inplace": False}, MAPS),
    Case(SiLU(), "SiLU", {"inplace": True}, MAPS),
    Case(SiLU(inplace=False), "SiLU", {"inplace": False}, MAPS),
    Case(Hardtanh(), "Hardtanh", {"min_val": -1.0, "max_val": 1.0, "inplace": True}, MAPS),
    Case(
        Hardtanh(min_val=-2.0, max_val=0.5, inplace=False), "Hardtanh",
        {"min_val": -2.0, "max_val": 0.5, "inplace": False}, MAPS,
    ),
    Case(GELU(), "GELU", {"approximate": "none"}, MAPS),
    Case(GELU(approximate="tanh"), "GELU", {"approximate": "tanh"}, MAPS),
    Case(Tanh(), "Tanh", {}, MAPS),
    Case(Sigmoid(), "Sigmoid", {}, MAPS),
    Case(Dropout(), "Dropout", {"p": 0.5}, MAPS),
    Case(Dropout(0.25), "Dropout", {"p": 0.25}, (7,), (7,)),
    Case(Flatten(), "Flatten", {}, (396,), window=W((9, 11), (1, 1))),
    Case(Flatten(), "Flatten", {}, (7,), (7,)),
    Case(Flatten("hwc"), "Sequential", {}, (396,), window=W((9, 11), (1, 1))),
    Case(Linear(5), "Linear", {"in_features": 7, "out_features": 5, "bias": True}, (5,), (7,)),
    Case(Linear(3, bias=False), "Linear", {"in_features": 7, "out_features": 3, "bias": False}, (3,), (7,)),
    Case(Softmax(), "Softmax", {"dim": 1}, (7,), (7,)),
    Case(Softmax(), "Softmax", {"dim": 1}, MAPS),
    Case(LogSoftmax(), "LogSoftmax", {"dim": 1}, (7,), (7,)),
    Case(LogSoftmax(), "LogSoftmax", {"dim": 1}, MAPS),
]  # fmt: skip


def case_name(case: Case) -> str:
    """Return how a case is called in pytest's report."""
    return f"{case.layer}-{'x'.join(map(str, case.input))}"


every_case = pytest.mark.parametrize("case", CASES, ids=case_name)

# The table is complete


def test_every_kind_has_a_case() -> None:
    """A new kind without a case fails, here and in the strategies."""
    assert {type(case.layer) for case in CASES} == set(KINDS)
    assert set(drawn.OPTIONS) == {kind.keyword for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_varied(kind: type[Layer]) -> None:
    """Each option of a kind has at least two values among the cases, and is drawn at random too."""
    for field in msgspec.structs.fields(kind):
        values = {getattr(case.layer, field.name) for case in CASES if type(case.layer) is kind}
        assert len(values) > 1, field.name
        assert field.encode_name in drawn.OPTIONS[kind.keyword] | drawn.REQUIRED.get(kind.keyword, {}), field.name


# The torch module


class Recorder:
    """Stands in for the torch.nn namespace: notes what is constructed with which arguments."""

    def __getattr__(self, name: str) -> Any:
        kind = getattr(nn, name)

        def construct(*values: Any, **words: Any) -> tuple[str, dict[str, Any]]:
            bound = inspect.signature(kind.__init__).bind(None, *values, **words)
            return name, {word: value for word, value in bound.arguments.items() if word not in ("self", "args")}

        return construct


@every_case
def test_the_module_is_constructed_with_these_arguments(case: Case) -> None:
    """Only the class and the arguments that torch's constructor knows; no torch is needed to say so."""
    assert case.layer.module(case.input, Recorder()) == (case.module, case.arguments)


@every_case
def test_the_module_does_what_the_rules_say(case: Case) -> None:
    """On real tensors: the class, the output's shape, parameters and buffers by name and shape, in order."""
    module = case.layer.module(case.input, nn)
    assert type(module).__name__ == case.module
    output = module(torch.randn(2, *case.input))
    assert tuple(output.shape) == (2, *case.output) == (2, *case.layer.output_shape(case.input))
    parameters = {name: tuple(value.shape) for name, value in module.named_parameters()}
    buffers = {name: tuple(value.shape) for name, value in module.named_buffers()}
    assert list(parameters.items()) == list(case.layer.parameters(case.input).items())
    assert list(buffers.items()) == list(case.layer.buffers(case.input).items())


@every_case
def test_the_window_is_this(case: Case) -> None:
    """What one output sees, and how far its neighbour is from it."""
    assert case.layer.window(case.input) == case.window


@every_case
def test_only_convolutions_and_fc_layers_multiply(case: Case) -> None:
    """Multiply-accumulates are the weights that each output value uses, times the output values."""
    expected = 0
    if isinstance(case.layer, (Conv2d, Linear)):
        expected = case.layer.module(case.input, nn).weight[0].numel() * elements(case.output)
    assert case.layer.multiply_accumulates(case.input) == expected


def test_keras_order_puts_the_channels_last() -> None:
    """Flatten hwc gives what permuting to height × width × channels and flattening gives."""
    x = torch.randn(2, 4, 3, 5)
    assert torch.equal(Flatten("hwc").module((4, 3, 5), nn)(x), x.permute(0, 2, 3, 1).flatten(1))


# Memory


@contextmanager
def saved(noted: list[Tensor]) -> Iterator[None]:
    """Note every tensor that autograd keeps for the backward pass."""

    def keep(tensor: Tensor) -> Tensor:
        noted.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


def storages(tensors: list[Tensor]) -> dict[int, int]:
    """Return the bytes of each distinct storage, by its address."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


KEEPING = [
    case
    for case in CASES
    if not (isinstance(case.layer, Conv2d) and case.layer.padding_mode != "zeros")  # a padded copy is `run`'s affair
]


@pytest.mark.parametrize("case", KEEPING, ids=case_name)
def test_what_is_kept_is_what_autograd_keeps(case: Case) -> None:
    """The distinct storages that the saved-tensor hooks see are the input, the output and the extra buffers."""
    module = case.layer.module(case.input, nn)
    leaf = torch.randn(2, *case.input, requires_grad=True)
    x = leaf + 0
    noted: list[Tensor] = []
    with saved(noted):
        y = module(x)
    own = storages([*module.parameters(), *module.buffers()])
    kept = {place: size for place, size in storages(noted).items() if place not in own}
    named = {"input": storages([x]), "output": storages([y])}
    expected: dict[int, int] = {}
    extras = []
    for buffer in case.layer.kept(case.input):
        if buffer.what in named:
            expected |= named[buffer.what]
        else:
            images = 2 if buffer.per_image else 1
            extras.append(images * elements(buffer.shape) * (buffer.element_bytes or 4))
    assert expected.items() <= kept.items()
    assert sorted(size for place, size in kept.items() if place not in expected) == sorted(extras)


@every_case
def test_the_output_lives_where_the_rules_say(case: Case) -> None:
    """In place and view: the input's storage, unless training; new: a storage of its own."""
    module = case.layer.module(case.input, nn).eval()
    x = torch.randn(2, *case.input)
    with torch.no_grad():
        shared = storages([module(x)]) == storages([x])
    if not isinstance(case.layer, Softmax):  # counted with the scores that it turns into probabilities
        assert shared == (case.layer.storage() != "new")


# Refusals


@pytest.mark.parametrize("keyword", sorted(drawn.OPTIONS))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_rules_refuse_exactly_what_torch_refuses(keyword: str, data: st.DataObject) -> None:
    """A random layer on a random input has the shape that torch gives, and is refused just where torch raises."""
    layer, x = data.draw(drawn.samples(keyword))
    try:
        ours: Shape | None = layer.output_shape(x)
    except LayerError:
        ours = None
    if judged(layer, x):
        assert ours == torchs(layer, x)


NEEDS_MAPS = (Conv2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, GlobalAvgPool2d, LocalResponseNorm)


def judged(layer: Layer, x: Shape) -> bool:
    """Tell whether torch has a say: it has no opinion on flat inputs of 2-d layers, nor on our flattening."""
    flat = len(x) == 1
    if isinstance(layer, Linear):
        return flat  # on maps torch would multiply the last axis
    if isinstance(layer, Conv2d) and layer.padding == "same":
        return any_odd(layer)
    return not (flat and isinstance(layer, NEEDS_MAPS))


def any_odd(layer: Conv2d) -> bool:
    """Tell whether a window has a middle, so that padding can be the same on both sides."""
    return all(dilation * (kernel - 1) % 2 == 0 for kernel, dilation in zip(layer.kernel_size, layer.dilation))


def torchs(layer: Layer, x: Shape) -> Shape | None:
    """Return the output's shape as torch gives it; None where it raises, or finds no largest value in a window."""
    try:
        output = layer.module(x, nn)(torch.zeros(3, *x))
    except (RuntimeError, ValueError, LayerError):
        return None
    return None if output.isneginf().any() else tuple(output.shape[1:])


@pytest.mark.parametrize(
    "layer", [Conv2d(1), MaxPool2d(), AvgPool2d(), AdaptiveAvgPool2d(2), GlobalAvgPool2d(), LocalResponseNorm()]
)
def test_what_needs_maps_refuses_a_flat_input(layer: Layer) -> None:
    """The message says what it needs and what it got."""
    with pytest.raises(LayerError) as error:
        layer.output_shape((7,))
    assert str(error.value) == (f"{layer.keyword} needs channels × height × width, but its input is flat (7 features)")


REFUSALS: list[tuple[Layer, Shape, type[LayerError], str]] = [
    (Conv2d(4, groups=3), (4, 5, 5), LayerError, "3 groups do not divide its 4 input channels"),
    (Conv2d(5, groups=2), (4, 5, 5), LayerError, "2 groups do not divide its 5 output channels"),
    (
        Conv2d(4, (2, 3)), (4, 5, 5), LayerError,
        "padding 'same' needs an odd window, and this one is 2×3; give the padding as a number",
    ),
    (
        Conv2d(4, (3, 2), padding=(0, 1), dilation=(3, 1)), (4, 6, 5), TooSmallError,
        "a 7×2 window does not fit its 6×5 input padded by 0×1",
    ),
    (
        Conv2d(4, 7, padding_mode="reflect"), (4, 3, 9), LayerError,
        "reflect padding of 3×3 is too wide for its 3×9 input",
    ),
    (
        Conv2d(4, 7, padding_mode="circular"), (4, 9, 2), LayerError,
        "circular padding of 3×3 is too wide for its 9×2 input",
    ),
    (MaxPool2d(), (4, 1, 1), TooSmallError, "a 2×2 pool does not fit its 1×1 input"),
    (AvgPool2d((3, 2)), (4, 2, 9), TooSmallError, "a 3×2 pool does not fit its 2×9 input"),
    (MaxPool2d(3, padding=(0, 2)), (4, 5, 5), LayerError, "padding 0×2 is more than half of its 3×3 pool"),
    (AvgPool2d(padding=(2, 0)), (4, 5, 5), LayerError, "padding 2×0 is more than half of its 2×2 pool"),
    (GroupNorm(3), (4, 5, 5), LayerError, "3 groups do not divide its 4 channels"),
    (GroupNorm(32), (49, 5, 5), LayerError, "32 groups do not divide its 49 channels"),
    (GroupNorm(((64, 32), (128, 32))), (49, 5, 5), LayerError, "its table of groups has no 49 channels, only 64, 128"),
    (GroupNorm(((49, 32),)), (49, 5, 5), LayerError, "32 groups do not divide its 49 channels"),
    (Hardtanh(min_val=1.0, max_val=1.0), (4,), LayerError, "max_val 1.0 is not above min_val 1.0"),
    (Linear(3), (4, 5, 5), LayerError, "FC needs a flat input, but gets 4×5×5; put flatten before it"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "x", "kind", "message"), REFUSALS, ids=[message for *_, message in REFUSALS])
def test_a_refusal_says_what_was_found_and_what_fits(
    layer: Layer, x: Shape, kind: type[LayerError], message: str
) -> None:
    """The whole wording of each LayerError."""
    with pytest.raises(LayerError) as error:
        layer.output_shape(x)
    assert (type(error.value), str(error.value)) == (kind, message)


# Classes


ABSTRACT = sorted(
    {
        kind
        for family in (rules, windows, norms, activations, head)
        for kind in vars(family).values()
        if isinstance(kind, type) and issubclass(kind, Layer) and kind not in KINDS
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", ABSTRACT)
def test_an_abstract_kind_cant_be_made(kind: type[Layer]) -> None:
    """A class is abstract or final: what is no kind of its own has no instances."""
    with pytest.raises(TypeError, match="abstract"):
        kind()


RULES = [name for name, value in vars(Layer).items() if getattr(value, "__isabstractmethod__", False)]


@pytest.mark.parametrize("rule", RULES)
def test_a_kind_that_forgets_a_rule_cant_be_made(rule: str) -> None:
    """No rule has a default at the root, so that a new kind must answer every question."""
    own = {name: lambda _self, *_: None for name in RULES}
    assert type(Layer)("Complete", (Layer,), own)()
    del own[rule]
    forgetful = type(Layer)("Forgetful", (Layer,), own)
    with pytest.raises(TypeError, match=rf"abstract class Forgetful .*\b{rule}\b"):
        forgetful()


def test_the_rules_are_those_of_the_design() -> None:
    """Shapes, counts, fields, memory and the torch module are each a rule that every kind must answer."""
    asked = {"output_sizes", "parameter_counts", "buffers", "operation_count", "window", "kept", "module", "run"}
    assert asked <= set(RULES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_it_is(kind: type[Layer]) -> None:
    """Its names are words of their own, its role is one of five, and its primary field is one of its fields."""
    assert [other for other in KINDS if other.keyword.lower() == kind.keyword.lower()] == [kind]
    assert kind.stem.isidentifier()
    assert kind.stem == kind.stem.lower()
    assert kind.keras_type
    assert kind.role in ("weight", "norm", "activation", "dropout", "other")
    assert kind.primary is None or kind.primary in kind.__struct_fields__


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_docstring_explains_each_option(kind: type[Layer]) -> None:
    """Each field stands under Args, in the class's own docstring or in that of the abstract class that has it."""
    explained = "".join(base.__doc__ or "" for base in kind.__mro__ if issubclass(base, Layer))
    assert not [name for name in kind.__struct_fields__ if f"        {name}: " not in explained]


def test_no_max_pool_sees_only_padding() -> None:
    """Each window of each pool that is accepted has a largest value inside its input: torch's index says where."""
    accepted = 0
    for size, kernel, dilation, stride, ceil in product(
        range(1, 7), range(1, 6), range(1, 8), (1, 2, 3), (False, True)
    ):
        for padding in range(kernel // 2 + 1):
            pool = MaxPool2d((1, kernel), (1, stride), (0, padding), (1, dilation), ceil)
            try:
                pool.output_shape((1, 1, size))
            except LayerError:
                continue
            _, indices = pool.module((1, 1, size), torch.nn).apply(_with_indices)(torch.randn(1, 1, 1, size))
            assert 0 <= indices.min() <= indices.max() < size, pool
            accepted += 1
    assert accepted > 500
    with pytest.raises(LayerError, match="a dilation of 2×2 steps over its 1×6 input"):
        MaxPool2d(padding=(1, 1), dilation=(2, 2)).output_shape((1, 1, 6))


def _with_indices(pool: torch.nn.Module) -> None:
    pool.return_indices = True
