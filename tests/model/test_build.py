"""`build` and the module that it gives: an ordinary torch module in every respect."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import torchvision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import vggkit
from tests import judges
from vggkit import VGG, ArgumentError, BuildError, Network
from vggkit.model.build import initialize
from vggkit.notation.spelling import RESERVED_NAMES

ROOT = Path(__file__).parent.parent.parent


def tiny(name: str = "A", **changes: object) -> VGG:
    """Return a small model."""
    return vggkit.build(name, input="3x32x32", num_classes=5, width=0.05, seed=0, **changes)  # type: ignore[arg-type]  # any


def images(batch: int = 2, side: int = 32) -> torch.Tensor:
    """Return random images."""
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_blocks_and_layers_have_their_names() -> None:
    """Blocks are Sequentials with named children, and the classifier's layers are attributes."""
    model = vggkit.build("D", device="meta")
    assert [name for name, _ in model.named_children()] == [
        "block1", "block2", "block3", "block4", "block5",
        "flatten", "fc1", "relu1", "dropout1", "fc2", "relu2", "dropout2", "predictions",
    ]  # fmt: skip
    assert isinstance(model.block5, nn.Sequential)
    assert list(dict(model.block5.named_children())) == ["conv1", "relu1", "conv2", "relu2", "conv3", "relu3", "pool"]
    assert model.predictions.weight.shape == (1000, 4096)
    assert (model.network, model.config) == (Network.of("D"), vggkit.load("D"))


def test_forward_features_is_the_last_blocks_output() -> None:
    """Features are the maps behind the last block; the scores come from them."""
    model, seen = tiny().eval(), []
    model.block5.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    x = images()
    features = model.forward_features(x)
    assert torch.equal(features, seen[0])
    assert model(x).shape == (2, 5)


def test_config_can_be_anything_that_names_a_network(tmp_path: Path) -> None:
    """A name, an alias, a path, a Config and a Network build the same model."""
    path = tmp_path / "mine.yaml"
    vggkit.dump("A", path)
    sources = ("A", "vgg11", path, str(path), vggkit.load("A"), Network.of("A"))
    shapes = [[p.shape for p in vggkit.build(source, device="meta").parameters()] for source in sources]
    assert all(found == shapes[0] for found in shapes)


# Initialisation


@pytest.fixture
def _uninitialised_memory_is_nan() -> Iterator[None]:
    """Let memory that nobody has written to hold NaN, as it does in torch's deterministic mode, never a lucky 0."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def same_draws(monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module]) -> nn.Module:
    """Make a torchvision model whose own initialisation draws the first random numbers after a seed."""
    for kind in (nn.Conv2d, nn.Linear):
        monkeypatch.setattr(kind, "reset_parameters", lambda module: nn.init.constant_(module.weight, torch.nan))
    torch.manual_seed(3)
    made = make()
    monkeypatch.undo()
    return made


@pytest.mark.usefixtures("_uninitialised_memory_is_nan")
@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_kaiming_is_torchvisions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same random numbers every weight, bias, scale and statistic is torchvision's, to the bit."""
    theirs = same_draws(monkeypatch, lambda: torchvision.models.get_model(name, weights=None))
    torch.manual_seed(3)
    ours = vggkit.build(name)
    for kind in ("named_parameters", "named_buffers"):
        for (path, value), (other, expected) in zip(getattr(ours, kind)(), getattr(theirs, kind)(), strict=True):
            assert torch.equal(value, expected), (path, other)


UNEQUAL = """
input: 3x16x16
defaults: {norm: batch}
blocks: [[conv3-32, {conv: 256, bias: true}, {conv: 64, kernel: 5x1, groups: 2}, maxpool]]
classifier: [FC-512, {fc: 48, norm: {groupnorm: 4}}, FC-9]
"""
"""Layers whose fans differ, batch norm behind convolutions, group norm behind an FC layer."""

FANS = {
    "block1.conv1": (3 * 9, 32 * 9),
    "block1.conv2": (32 * 9, 256 * 9),
    "block1.conv3": (128 * 5, 64 * 5),
    "fc1": (64 * 8 * 8, 512),
    "fc2": (512, 48),
    "predictions": (48, 9),
}
"""What goes into a value of a layer's output, and how many values a value of its input goes to, per group."""


def unequal(init: str) -> VGG:
    """Return a model of layers with unequal fans."""
    return vggkit.build(vggkit.loads(UNEQUAL), init=init, seed=1)


def test_paper_is_a_normal_distribution_of_variance_one_hundredth() -> None:
    """The paper's Sect. 3.1, for convolutions and FC layers of any fans: zero mean, variance 10⁻², a bell's shape."""
    model = unequal("paper")
    for path in FANS:
        weight = model.get_submodule(path).weight.flatten().double()
        error = weight.numel() ** -0.5  # four standard errors of each moment are allowed
        assert abs(weight.mean().item()) < 4 * 0.1 * error
        assert abs(weight.var().item() / 1e-2 - 1) < 4 * 2**0.5 * error
        assert abs((weight / 0.1).pow(4).mean().item() - 3) < 4 * 96**0.5 * error


def test_xavier_is_glorots_uniform() -> None:
    """The weights fill ±√(6 / (fan in + fan out)) evenly and no more; the fans of a convolution count its window."""
    model = unequal("xavier")
    for path, (fan_in, fan_out) in FANS.items():
        weight = model.get_submodule(path).weight.flatten().double() / (6 / (fan_in + fan_out)) ** 0.5
        error = weight.numel() ** -0.5
        assert 1 - 20 * error**2 < weight.abs().max().item() <= 1 + 1e-6  # float32 rounds the bound
        assert abs(weight.mean().item()) < 4 * error
        assert abs(weight.var().item() * 3 - 1) < 4 * error


@pytest.mark.usefixtures("_uninitialised_memory_is_nan")
@pytest.mark.parametrize("init", ["kaiming", "paper", "xavier"])
def test_biases_start_at_zero_and_norms_as_the_identity(init: str) -> None:
    """Whatever the weights: a bias is 0, a norm's scale is 1, its statistics are those of a standard distribution."""
    state = unequal(init).state_dict()
    norms = {path.rpartition(".")[0] for path in state if "norm" in path}
    assert len(norms) == 4
    for path, value in state.items():
        owner, _, name = path.rpartition(".")
        if name in ("bias", "running_mean", "num_batches_tracked"):
            assert not value.any(), path
        elif owner in norms:
            assert (value == 1).all(), path


def test_a_module_with_a_reset_of_its_own_begins_as_that_says_and_one_with_neither_is_an_error() -> None:
    """With a seed, its random numbers are reproducible, differ from module to module, and leave torch's alone."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((4,), torch.nan))

    class Reset(Own):
        def reset_parameters(self) -> None:
            nn.init.uniform_(self.weight, 1, 2)

    first, second, again = Reset(), Reset(), Reset()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        initialize([first, second], "paper", torch.Generator().manual_seed(1))
        initialize([again], "paper", torch.Generator().manual_seed(1))
        assert torch.equal(torch.rand(3), expected)
        assert torch.equal(first.weight, again.weight)
        assert not torch.equal(first.weight, second.weight)
        assert ((first.weight >= 1) & (first.weight <= 2)).all()
        with pytest.raises(BuildError, match=r"Own: nothing says what its parameters begin as"):
            initialize([Own()], "paper", None)


def test_a_seed_makes_the_weights_and_touches_nothing_else() -> None:
    """One seed gives the same weights, another gives others, and torch's own generator is left alone."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    same, again = tiny(), tiny()
    assert torch.equal(torch.rand(3), expected)
    other = vggkit.build("A", input="3x32x32", num_classes=5, width=0.05, seed=1)
    assert torch.equal(same.fc1.weight, again.fc1.weight)
    assert not torch.equal(same.fc1.weight, other.fc1.weight)


# Torch's ways of building without values


@pytest.mark.parametrize("options", [{}, {"seed": 0}, {"batch_norm": True}, {"batch_norm": True, "seed": 0}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_built_of_fake_tensors(options: dict[str, Any], dtype: str) -> None:
    """Under FakeTensorMode D is built, trains a step, and has D's parameters, without the memory for them."""
    with FakeTensorMode():
        model = vggkit.build("D", dtype=dtype, freeze="block1", **options)
        assert all(isinstance(tensor, FakeTensor) for tensor in model.state_dict().values())
        model(torch.zeros(2, 3, 224, 224, dtype=getattr(torch, dtype))).sum().backward()
    network = Network.of("D", batch_norm=options.get("batch_norm"))
    assert sum(p.numel() for p in model.parameters()) == vggkit.summarize(network).totals.parameters
    assert model.network == network
    assert model.fc1.weight.grad.shape == (4096, 25088)
    assert model.block1.conv1.weight.grad is None


def test_fake_tensors_may_be_of_a_device_that_is_not_there() -> None:
    """Under FakeTensorMode the device is only a name, and so is a network larger than any machine."""
    with FakeTensorMode():
        assert tiny(device="cuda").fc1.weight.device == torch.device("cuda", 0)
        assert vggkit.build(vggkit.loads("blocks: [[conv3-1000000000000]]")).block1.conv1.weight.numel() == 27 * 10**12
        with pytest.raises(ArgumentError, match=r"^FakeTensorMode has no room for values"):
            tiny(weights="imagenet")


@pytest.mark.parametrize("options", [{}, {"seed": 0}, {"batch_norm": True}])
def test_it_is_built_under_torchs_meta_device(options: dict[str, Any]) -> None:
    """Inside `torch.device("meta")` nothing is allocated, unless another device is asked for."""
    with torch.device("meta"):
        model = vggkit.build("D", **options)
        assert all(tensor.is_meta for tensor in model.state_dict().values())
        assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)
        there = tiny(device="cpu")
    assert torch.equal(there.fc1.weight, tiny().fc1.weight)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[DeviceMesh]:
    """Be the one process of a group, which meets at a file."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support on cpu:UserWarning")
def test_fsdp2_gives_a_meta_model_its_values(alone: DeviceMesh, tmp_path: Path) -> None:
    """Sharded on the meta device, then allocated and initialised, it trains, is described, saved and loaded."""
    model = tiny("vgg13_bn", device="meta")
    for block in (model.block1, model.block2, model):
        fully_shard(block, mesh=alone)
    model.to_empty(device="cpu")
    initialize([module for placed, module in model.layers() if placed.held], "kaiming", None)
    model(images()).sum().backward()
    assert model.fc1.weight.grad is not None
    assert model.network == tiny("vgg13_bn").network
    vggkit.save_weights(model, tmp_path / "sharded.safetensors")
    loaded = vggkit.load_model(tmp_path / "sharded.safetensors")
    assert torch.equal(loaded.eval()(images()), model.eval()(images()))
    with pytest.raises(ValueError, match="3×64×64 ends in 2×2 maps"):
        model(images(side=64))


def test_fsdp2_computes_what_the_model_does(alone: DeviceMesh) -> None:
    """A sharded model has the same scores and gradients."""
    model, sharded = tiny(dropout=0), tiny(dropout=0)
    fully_shard(sharded, mesh=alone)
    for each in (model, sharded):
        each(images()).square().sum().backward()
    assert torch.equal(sharded.fc1.weight.grad.full_tensor(), model.fc1.weight.grad)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`:UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own of FSDP1, where it has one
@pytest.mark.usefixtures("alone")
def test_fsdp1_gives_a_meta_model_its_values() -> None:
    """FSDP allocates and initialises the modules of a model on the meta device one by one."""
    parallel = FullyShardedDataParallel(tiny("vgg13_bn", device="meta"), device_id=torch.device("cpu"))
    scores = parallel(images())
    scores.sum().backward()
    assert torch.isfinite(scores).all()
    assert not any(parameter.is_meta for parameter in parallel.parameters())


# dtype, device, soft-max


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", torch.float64])
def test_the_dtype_is_the_parameters(dtype: str | torch.dtype) -> None:
    """By name or as torch's, every parameter has it."""
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {parameter.dtype for parameter in tiny(dtype=dtype).parameters()} == {expected}


def test_meta_allocates_nothing() -> None:
    """On the meta device a network of any size is built at once."""
    model = vggkit.build(vggkit.loads("blocks: [[conv3-1000000000000]]"), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == 28 * 10**12


def test_softmax_gives_probabilities() -> None:
    """With softmax=True the output sums to one, and is the soft-max of the scores."""
    x, scores, probabilities = images(), tiny().eval(), tiny(softmax=True).eval()
    assert torch.equal(probabilities(x), torch.softmax(scores(x), dim=1))


# Sizes


def test_another_size_is_refused_with_what_would_fit() -> None:
    """Nothing is stretched: the message names the maps, the FC layers' size, and both ways out."""
    with pytest.raises(ValueError, match="3×64×64 ends in 2×2 maps") as caught:
        tiny()(images(side=64))
    assert "1×1 maps of 3×32×32" in str(caught.value)
    assert "input='3x64x64'" in str(caught.value)
    assert "head='gap'" in str(caught.value)


def test_the_size_is_refused_however_the_model_is_called() -> None:
    """Under `torch.export`, and compiled in its place, the message is the same."""
    model = tiny().eval()
    with pytest.raises(ValueError, match="3×64×64 ends in 2×2 maps"):
        torch.export.export(model, (images(side=64),))
    model.compile(backend="eager")
    with pytest.raises(ValueError, match="3×64×64 ends in 2×2 maps"):
        model(images(side=64))


MISFITS = {
    "no blocks": (
        "blocks: []\nclassifier: [FC-3]",
        9,
        "ends in 9×9 maps, but the FC layers were made for the 8×8 maps",
    ),
    "flat in a block": ("blocks: [[conv3-4, maxpool, FC-3]]", 10, "ends in 5×5 maps, but the FC layers were made for"),
    "too small for the classifier": ("blocks: [[conv3-4]]\nclassifier: [{maxpool: 6}, FC-3]", 4, "a 6×6 pool does not"),
}
"""Networks of odd shapes, the side of an image that they can't take, and what is said of it."""


@pytest.mark.parametrize("network", MISFITS)
def test_networks_of_odd_shapes_refuse_a_size_as_any(network: str) -> None:
    """Whatever stands in the blocks and the classifier, the error is a ValueError that says what does not fit."""
    text, side, said = MISFITS[network]
    model = vggkit.build(vggkit.loads(f"input: 3x8x8\n{text}"))
    assert model(images(side=8)).shape == (2, 3)
    with pytest.raises(ValueError, match=said):
        model(images(side=side))


def test_what_is_too_small_for_a_pool_is_refused_with_the_pool() -> None:
    """Where the maps vanish before the classifier, the message names the layer; other mistakes keep torch's words."""
    with pytest.raises(ValueError, match=r"an input of 3×16×16 is too small: .*block5_pool: a 2×2 pool does not fit"):
        tiny()(images(side=16))
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1 channels"):
        tiny()(images()[:, :1])


@pytest.mark.parametrize(
    "text", ["classifier: null", "overrides: {head: gap}", "classifier: [{adaptive-avgpool: 7x7}, FC-5]"]
)
def test_trunks_and_pooled_heads_take_any_size(text: str) -> None:
    """Where the shapes allow, any input is taken."""
    config = vggkit.loads(f"extends: A\n{text}")
    model = vggkit.build(config, width=0.05, seed=0).eval()
    assert [model(images(side=side)).shape[0] for side in (32, 50, 97)] == [2, 2, 2]


# Torch's own ways with modules


@pytest.mark.parametrize("name", ["A", "A-LRN", "vgg13_bn"])
def test_it_compiles_as_one_graph(name: str) -> None:
    """`torch.compile(fullgraph=True)` sees no break, in training and in evaluation."""
    model, x = tiny(name), images()
    for mode in (True, False):
        model.train(mode)
        assert torch.compile(model, fullgraph=True, backend="eager")(x).shape == (2, 5)


@pytest.mark.filterwarnings("default")
def test_it_compiles_with_inductor() -> None:
    """Compiled code computes what the module computes."""
    model, x = tiny().eval(), images()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_it_exports() -> None:
    """`torch.export` takes the module, and what it exports gives the same scores for any batch."""
    model, x = tiny().eval(), images()
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert torch.equal(exported.module()(x), model(x))


def test_it_copies_and_pickles() -> None:
    """A deep copy and an unpickled model have the same network, weights and scores."""
    model, x = tiny("vgg13_bn").eval(), images()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.network == model.network
        assert torch.equal(other(x), model(x))


TRACED = [
    ("A", {}),
    ("A", {"head": "gap"}),
    ("A-LRN", {}),
    ("vgg13_bn", {"softmax": True}),
    ("A", {"checkpoint": "block1"}),
]
"""Networks that torch's tools take apart."""


@pytest.mark.parametrize(("name", "options"), TRACED)
def test_fx_traces_it(name: str, options: dict[str, Any]) -> None:
    """`torch.fx.symbolic_trace` has no control flow to stumble over, and the graph computes what the model does."""
    model, x = tiny(name, **options).eval(), images()
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(x), model(x))
    assert [str(node.target) for node in traced.graph.nodes if node.op == "call_module"] == [
        path for path, module in model.named_modules() if not list(module.children())
    ]


def test_torchvisions_feature_extractor_finds_what_features_does() -> None:
    """`create_feature_extractor` names the same modules, and gives the same activations."""
    feature_extraction = judges.package("torchvision.models.feature_extraction")
    model, x = tiny("vgg13_bn", inplace=False).eval(), images()
    nodes = {"block2.norm2": "block2_norm2", "block3.pool": "block3_pool", "fc1": "fc1"}
    theirs = feature_extraction.create_feature_extractor(model, nodes)(x)
    ours = vggkit.features(model, nodes.values())(x)
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated:FutureWarning")
@pytest.mark.parametrize(("name", "options"), TRACED)
def test_torchscript_compiles_it(name: str, options: dict[str, Any]) -> None:
    """`torch.jit.script` compiles it, in training and in evaluation, and its file computes what the model does."""
    model, x, file = tiny(name, **options), images(), io.BytesIO()
    scripted = torch.jit.script(model)
    torch.jit.save(scripted, file)
    file.seek(0)
    for each, same in ((scripted, model), (torch.jit.load(file), tiny(name, **options))):
        for mode in (True, False):
            outputs = []
            for module in (each.train(mode), same.train(mode)):
                torch.manual_seed(0)  # for dropout
                outputs.append(module(x))
            assert torch.equal(*outputs)


@pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated:FutureWarning")
def test_torchscript_traces_it() -> None:
    """`torch.jit.trace` sees no decision that depends on the images, and the trace takes any batch."""
    model = tiny("vgg13_bn").eval()
    traced = torch.jit.trace(model, images())
    assert torch.equal(traced(images(5)), model(images(5)))


@pytest.mark.filterwarnings("default")  # the exporter's own, of what it uses
@pytest.mark.parametrize("name", ["A", "A-LRN", "vgg13_bn"])
def test_onnx_computes_what_it_does(name: str, tmp_path: Path) -> None:
    """`torch.onnx.export` takes it, and ONNX's reference evaluator has the same scores for any batch."""
    reference = judges.package("onnx.reference")
    model = tiny(name).eval()
    file = tmp_path / "model.onnx"
    batch = torch.export.Dim("batch")
    torch.onnx.export(model, (images(),), file, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    (scores,) = reference.ReferenceEvaluator(str(file)).run(None, {"x": images(3).numpy()})
    # the reference sums products up in another order
    torch.testing.assert_close(torch.from_numpy(scores), model(images(3)))


@pytest.mark.usefixtures("alone")
def test_it_is_data_parallel() -> None:
    """DistributedDataParallel of one process has the model's scores and gradients."""
    model, parallel = tiny(dropout=0), DistributedDataParallel(tiny(dropout=0))
    for each in (model, parallel):
        each(images()).square().sum().backward()
    assert torch.equal(parallel.module.fc1.weight.grad, model.fc1.weight.grad)


# Full backward hooks


def gradients(model: VGG) -> dict[str, torch.Tensor]:
    """Return the gradient of each module's output, as full backward hooks see it."""
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        module.register_full_backward_hook(lambda _, __, out, name=name: seen.update({name: out[0]}))
    model(images().requires_grad_()).square().sum().backward()
    return seen


@pytest.mark.parametrize("name", ["A", "vgg13_bn"])
def test_full_backward_hooks_see_every_gradient_without_inplace(name: str) -> None:
    """With inplace=False each hook is called with the gradient that autograd has for the module's output."""
    model, outputs = tiny(name, inplace=False, dropout=0), {}
    for path, module in model.named_modules():
        module.register_forward_hook(lambda *arguments, path=path: outputs.update({path: arguments[-1]}))
    score = model(images()).square().sum()
    expected = dict(zip(outputs, torch.autograd.grad(score, list(outputs.values()))))
    seen = gradients(tiny(name, inplace=False, dropout=0))
    assert set(seen) == set(expected)
    assert all(torch.equal(seen[path], expected[path]) for path in expected)


def test_full_backward_hooks_in_place_are_told_what_helps() -> None:
    """Where an activation works in place, model and features say inplace=False."""
    with pytest.raises(RuntimeError, match="Build the model with inplace=False"):
        gradients(tiny())
    taps = vggkit.features(tiny(), ["block1_pool"])
    for module in taps.body:
        module.register_full_backward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="Build the model with inplace=False"):
        taps(images())


DISTRIBUTED = """
import sys, torch, vggkit
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
model = vggkit.build("A", input="3x32x32", num_classes=5, width=0.05, dropout=0, seed=rank)
parallel = DistributedDataParallel(model)
torch.manual_seed(rank)
parallel(torch.randn(2, 3, 32, 32)).square().sum().backward()
gathered = [torch.zeros_like(model.fc1.weight) for _ in range(2)]
distributed.all_gather(gathered, model.fc1.weight.grad)
assert torch.equal(*gathered) and gathered[0].any()
distributed.destroy_process_group()
"""


def test_it_trains_in_two_processes(tmp_path: Path) -> None:
    """DistributedDataParallel over two gloo processes, which meet at a file, gives both the same gradients."""
    address = f"file://{tmp_path / 'meeting'}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(rank), address], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], errors


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "papre"}, "init: expected one of kaiming, paper, xavier, found 'papre'"),
        (
            {"device": "gpu"},
            "device: expected cpu, cuda, cuda:1, meta or another of torch's, found 'gpu'. Did you mean 'cuda'?",
        ),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16, bfloat16, float64, found 'int8'"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 9e+18, found -1"),
        ({"num_classes": 0}, "num_classes: expected a whole number from 1, found 0"),
        ({"input": "3x3"}, "input: expected channels × height × width, as in 3x224x224, found '3x3'"),
        ({"in_channels": 1.5}, "in_channels: expected a whole number from 1, found 1.5"),
        ({"batch_norm": "yes"}, "batch_norm: expected true or false, found 'yes'"),
        ({"dropout": 1}, "dropout: expected a number from 0 to below 1, found 1"),
        ({"width": 0}, "width: expected a number above 0, found 0"),
        ({"activation": "rellu"}, "activation: expected one of relu, leaky-relu"),
        ({"pool": "mean"}, "pool: expected max or avg, found 'mean'"),
        ({"head": "fc"}, "head: expected paper or gap, found 'fc'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments: dict[str, object], message: str) -> None:
    """Each argument's error names it, what was found and the allowed values."""
    with pytest.raises(ArgumentError) as caught:
        vggkit.build("D", **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert message in str(caught.value)


def test_softmax_of_a_trunk_is_refused() -> None:
    """Only a network that ends in soft-max can give probabilities."""
    with pytest.raises(ArgumentError, match="softmax: expected False"):
        vggkit.build(vggkit.loads("blocks: [[conv3-4]]"), softmax=True)


@pytest.mark.parametrize(("channels", "message"), [("1000000000000", "112.00 TB"), ("999999999999999999", "more than")])
def test_what_no_machine_holds_is_refused_with_the_memory(channels: str, message: str) -> None:
    """conv3-10¹² can be summed up but not built, and the error says how much memory it would need."""
    with pytest.raises(BuildError, match=message):
        vggkit.build(vggkit.loads(f"blocks: [[conv3-{channels}]]"))


def test_no_layer_can_take_a_name_that_the_module_needs() -> None:
    """Every attribute of the module that a child's name would collide with is reserved."""
    model = tiny()
    children = {name for name, _ in model.named_children()} | {name for name, _ in model.block1.named_children()}
    public = {name for thing in (model, model.block1) for name in dir(thing) if not name.startswith("_")}
    assert public - children <= RESERVED_NAMES
