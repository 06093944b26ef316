"""Drawn networks before every judge: the built model, autograd, the flop counter, MemTracker."""

from __future__ import annotations

import copy
from itertools import pairwise, product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from tests.drawn import networks
from vggkit import liveness, verification
from vggkit.config import Config
from vggkit.errors import LayerError
from vggkit.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Layer, MaxPool2d, Shape, Softmax
from vggkit.liveness import Options
from vggkit.network import Network, PlacedLayer

drawn = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)


def built(network: Network) -> list[PlacedLayer]:
    """Return the layers that a model has: all but a soft-max at the end."""
    return list(network.layers[:-1] if isinstance(network.layers[-1].layer, Softmax) else network.layers)


def images(network: Network, batch: int = 2) -> Tensor:
    """Return random images."""
    return torch.randn(batch, *network.input_shape, generator=torch.Generator().manual_seed(0))


@drawn
@given(networks())
def test_a_dump_loads_to_an_equal_config(network: Network) -> None:
    """Writing and reading gives the same configuration, and the same text again."""
    config = network.config
    text = vggkit.dump(config)
    assert vggkit.loads(text) == config
    assert vggkit.dump(vggkit.loads(text)) == text


@drawn
@given(networks())
def test_shapes_are_the_models_own(network: Network) -> None:
    """Every layer's output has the shape that the rules say."""
    model = vggkit.build(network, seed=0).eval()
    seen: dict[str, tuple[int, ...]] = {}
    for placed in built(network):
        hook = lambda module, args, output, name=placed.name: seen.update({name: tuple(output.shape[1:])})  # noqa: ARG005, E731
        model.get_submodule(placed.module).register_forward_hook(hook)
    model(images(network))
    assert seen == {placed.name: placed.output_shape for placed in built(network)}


@drawn
@given(networks())
def test_parameters_and_buffers_are_the_modules_own(network: Network) -> None:
    """Every module has the parameters and buffers that the rules say, and the totals are their sums."""
    model = vggkit.build(network, device="meta")
    for placed in built(network):
        module = model.get_submodule(placed.module)
        parameters = {name: tuple(value.shape) for name, value in module.named_parameters()}
        buffers = {name: tuple(value.shape) for name, value in module.named_buffers()}
        assert parameters == placed.layer.parameters(placed.input_shape)
        assert buffers == placed.layer.buffers(placed.input_shape)
    totals = vggkit.summarize(network).totals
    named = dict(model.named_parameters())
    assert totals.parameters == sum(value.numel() for value in named.values())
    assert totals.weights == sum(value.numel() for name, value in named.items() if name.endswith("weight"))
    assert totals.biases == sum(value.numel() for name, value in named.items() if name.endswith("bias"))


@drawn
@given(networks(), st.integers(1, 3))
def test_multiply_accumulates_are_half_the_flop_counters(network: Network, batch: int) -> None:
    """The sum of multiply-accumulates is half of what torch's flop counter counts."""
    model = vggkit.build(network, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(batch, *network.input_shape, device="meta"))
    assert 2 * vggkit.summarize(network, batch=batch).totals.multiply_accumulates == counter.get_total_flops()


@drawn
@given(networks())
def test_working_in_place_changes_nothing(network: Network) -> None:
    """A model trains, leaves its input alone, and computes what it would compute out of place."""
    model = vggkit.build(network, seed=1)
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for mode in (False, True):
        x = images(network, batch=3)
        before = x.clone()
        results = []
        for each in (model.train(mode), plain.train(mode)):
            torch.manual_seed(2)
            each.zero_grad()
            output = each(x)
            loss = output.square().sum()
            if loss.requires_grad:
                loss.backward()
            results.append((output, [parameter.grad for parameter in each.parameters()]))
        assert torch.equal(x, before)
        (output, gradients), (expected, expected_gradients) = results
        assert torch.equal(output, expected)
        # in place, torch takes ELU's gradient from the output instead of the input, which rounds otherwise
        torch.testing.assert_close(gradients, expected_gradients)


@settings(drawn, max_examples=30)
@given(networks(), st.integers(2, 5), st.sampled_from(list(liveness.OPTIMIZERS)), st.booleans(), st.data())
def test_memory_is_what_the_trackers_see(
    network: Network, batch: int, optimizer: str, autocast: bool, data: st.DataObject
) -> None:
    """Saved bytes, inference peak and training peak equal their judges' for any network and options."""
    flat = len(network.output_shape) == 1
    blocks = sorted({placed.block for placed in network if placed.block})
    some_blocks = st.lists(st.sampled_from(blocks), unique=True).map(tuple) if blocks else st.just(())
    options = Options(
        batch=batch,
        optimizer=optimizer,
        autocast=autocast,
        checkpoint=data.draw(some_blocks),
        freeze=data.draw(some_blocks),
    )
    inference = Options(batch=batch, mode="inference", optimizer="none", autocast=autocast)
    assert liveness.plan(network, inference).by_kind == verification.inference_peak(network, inference)
    if flat:
        plan = liveness.plan(network, options)
        assert plan.saved_for_backward_bytes == verification.saved_bytes(network, options)
        assert plan.by_kind == verification.training_peak(network, options)


# Receptive fields


def visible(model: nn.Module, x: Tensor, row: int, column: int) -> tuple[list[int], list[int]]:
    """Return the rows and columns of the input that one output value's gradient reaches."""
    x = x.clone().requires_grad_()
    model(x)[0, 0, row, column].backward()
    reached = x.grad.abs().sum((0, 1)) > 0
    return reached.any(1).nonzero().flatten().tolist(), reached.any(0).nonzero().flatten().tolist()


window_layers = st.lists(
    st.one_of(
        st.builds(
            Conv2d,
            st.just(2),
            st.tuples(st.integers(1, 3), st.integers(1, 3)),
            st.tuples(st.integers(1, 2), st.integers(1, 2)),
            st.just((0, 0)),
            st.tuples(st.integers(1, 2), st.integers(1, 2)),
        ),
        st.builds(
            AvgPool2d, st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(1, 2), st.integers(1, 2))
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(window_layers)
def test_receptive_field_and_stride_are_what_a_gradient_reaches(layers: list[Conv2d | AvgPool2d]) -> None:
    """One output value's gradient reaches a region of the claimed size, and its neighbour's is one stride away."""
    entries = [vggkit.config.Entry(layer) for layer in layers]
    network = Network.of(Config("drawn", input=(1, 90, 90), blocks=(tuple(entries),)))
    model = vggkit.build(network)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    last = network.layers[-1]
    rows, columns = visible(model, torch.ones(1, 1, 90, 90), 1, 1)
    next_rows, next_columns = visible(model, torch.ones(1, 1, 90, 90), 2, 2)
    assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) == last.receptive_field
    assert (next_rows[0] - rows[0], next_columns[0] - columns[0]) == last.stride


# Every small window


def torch_says(layer: Layer, x: Shape) -> Shape | None:
    """Return the output shape that torch gives, or None where it refuses."""
    try:
        return tuple(layer.module(x, nn)(torch.empty(1, *x)).shape[1:])
    except (RuntimeError, ValueError):
        return None


def rules_say(layer: Layer, x: Shape) -> Shape | None:
    """Return the output shape that the rules give, or None where they refuse."""
    try:
        return layer.output_shape(x)
    except LayerError:
        return None


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_pools_of_every_small_size_are_torchs(kernel: int, ceil_mode: bool) -> None:
    """Over sizes, strides, paddings and dilations: the same shape as torch's, and refused exactly where it refuses."""
    for size, stride, padding, dilation in product(range(1, 10), range(1, 5), range(3), (1, 2)):
        x = (1, size, 9)
        window = ((kernel, 1), (stride, 1), (padding, 0))
        pools: list[Layer] = [MaxPool2d(*window, (dilation, 1), ceil_mode)]
        if dilation == 1:
            pools.append(AvgPool2d(*window, ceil_mode))
        for pool in pools:
            assert rules_say(pool, x) == torch_says(pool, x), (pool, x)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_convolutions_of_every_small_size_are_torchs(padding_mode: str) -> None:
    """Over sizes, kernels, strides, paddings and dilations: torch's shape, and refused exactly where it refuses."""
    for size, kernel, stride, padding, dilation in product(range(1, 7), range(1, 4), (1, 2, 3), range(4), (1, 2)):
        x = (1, size, 6)
        layer = Conv2d(1, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), padding_mode=padding_mode)
        assert rules_say(layer, x) == torch_says(layer, x), (layer, x)


def test_adaptive_windows_are_torchs() -> None:
    """Over sizes and outputs: the largest window and step are those that a gradient shows."""
    for size, outputs in product(range(1, 13), range(1, 13)):
        x = torch.ones(1, 1, size, 1, requires_grad=True)
        y = nn.AdaptiveAvgPool2d((outputs, 1))(x)
        rows = [torch.autograd.grad(y[0, 0, i, 0], x, retain_graph=True)[0].flatten().nonzero() for i in range(outputs)]
        extents = [int(row[-1] - row[0]) + 1 for row in rows]
        steps = [int(after[0] - before[0]) for before, after in pairwise(rows)]
        window = AdaptiveAvgPool2d((outputs, 1)).window((1, size, 1))
        assert window.extent[0] == max(extents)
        if steps:
            assert window.step[0] == max(steps), (size, outputs)
