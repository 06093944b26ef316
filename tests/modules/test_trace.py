"""What is no chain, or can't be run, is refused in one line that says where; and no module is changed by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils import checkpoint

import vggkit
from vggkit import ArgumentError


class Written(nn.Module):
    """A module with one convolution, `conv`, and a forward pass of choice.

    Args:
        run: the forward pass, given the module.
        parts: more modules, by their names.
    """

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Any) -> Any:
        """Run it."""
        return self.run(self, *args)


def pruned() -> nn.Module:
    """Return a convolution whose weights torch masks before each pass."""
    conv = nn.Conv2d(3, 3, 3)
    torch.nn.utils.prune.random_unstructured(conv, "weight", 0.5)
    return conv


def endless(_: nn.Module, x: Tensor) -> Tensor:
    """Never return."""
    while True:
        x = functional.relu(x)


def overwritten(m: Any, x: Tensor) -> Tensor:
    """Return the rows of what is overwritten in place through another view."""
    y = m.conv(x)
    rows = y.flatten(1)
    y.relu_()
    return rows.sigmoid()


def exported(module: nn.Module) -> nn.Module:
    """Return the graph that torch exports of a module."""
    images = {0: torch.export.Dim.DYNAMIC}
    return torch.export.export(module.eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=(images,)).module()


class Doubled(nn.Conv2d):
    """A convolution whose forward pass is torch's, and what that calls is not."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = super()._conv_forward(x, weight * 2, bias)
        return y


def patched() -> nn.Module:
    """Return a convolution one of whose methods was replaced."""
    conv: Any = nn.Conv2d(3, 3, 3)
    conv._conv_forward = lambda x, weight, bias: functional.conv2d(x, weight * 2, bias)
    return nn.Sequential(conv)


def hooked() -> nn.Module:
    """Return a convolution with a hook that changes what it returns."""
    conv = nn.Conv2d(3, 3, 3)
    conv.register_forward_hook(lambda _module, _args, output: output + 1)
    return conv


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no module": (lambda: 5, "expected a torch.nn.Module, found 'int'"),
    "raises": (lambda: Written(lambda m, x: m.conv(x) / (1 // 0)), "it can't run on 2 images of 3×8×8: ZeroDivision"),
    "raises inside": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), "1 can't run on 2 images .*; input="),
    "calls itself": (lambda: Written(lambda m, x: m(x)), "RecursionError"),
    "never ends": (lambda: Written(endless), "at most 10,000 operations, found more"),
    "is too long": (lambda: nn.Sequential(*[nn.Tanh()] * 20_000), "at most 10,000 operations, found more"),
    "a skip": (lambda: Written(lambda m, x: m.conv(x) + x), r"Tensor.add takes conv \(Conv2d\) and the image; a net"),
    "a skip in place": (lambda: Written(lambda m, x: m.conv(x).add_(x)), r"Tensor.add_ takes conv \(Conv2d\) and the"),
    "a branch": (
        lambda: Written(lambda m, x: torch.cat([m.a(x), m.conv(x), m.b(x)], 1), a=nn.Tanh(), b=nn.Sigmoid()),
        r"torch.cat takes a \(Tanh\) and conv \(Conv2d\) and 1 more",
    ),
    "a gate": (lambda: Written(lambda _, x: x.relu() * x.sigmoid()), "Tensor.mul takes torch.Tensor.relu and torch."),
    "the same twice": (lambda: Written(lambda _, x: x * x), "Tensor.mul takes the image several times"),
    "inside": (
        lambda: nn.Sequential(nn.Tanh(), Written(lambda m, x: m.conv(x) + x)),
        r"Tensor.add in 1 takes 1.conv \(Conv2d\) and 0 \(Tanh\)",
    ),
    "weights twice": (lambda: nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 2), "the weights of 0 run again in 0"),
    "overwritten in place": (lambda: Written(overwritten), "sigmoid takes a value that was overwritten in place"),
    "overwritten image": (
        lambda: Written(lambda m, x: (x.__setitem__(0, 0), m.conv(x))[1]),
        "conv .* takes a value that was overwritten in place",
    ),
    "a dict": (lambda: Written(lambda m, x: {"out": m.conv(x)}), "expected one tensor as its output, found 'dict'"),
    "a tuple": (lambda: Written(lambda m, x: (m.conv(x),)), "expected one tensor as its output, found 'tuple'"),
    "a constant": (lambda: Written(lambda *_: torch.zeros(2, 3)), "is not computed from its image"),
    "two inputs": (lambda: Written(lambda m, x, _: m.conv(x)), "TypeError"),
    "nothing": (lambda: nn.Sequential(), "it returns its image"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "size of 0.weight is not known yet"),
    "TorchScript": (lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 3, 3))), "0 is TorchScript"),
    "quantized": (lambda: torch.ao.nn.quantized.Conv2d(3, 4, 3), "can't run on 2 images .*quantized::conv2d"),
    "its image decides": (lambda: Written(lambda m, x: m.conv(x) if x.sum() > 0 else x), "reads values of its images"),
    "leaves torch": (lambda: Written(lambda _, x: torch.from_numpy(x.numpy())), "can't run on 2 images"),
    "several results": (lambda: Written(lambda m, x: m.conv(x).chunk(1)[0]), "chunk .*returns more than one tensor"),
    "another dtype": (lambda: Written(lambda m, x: m.conv(x).half()), "changes the dtype"),
    "one image": (lambda: Written(lambda m, x: m.conv(x[0])), "getitem.*of 2 images it makes 3×8×8"),
    "mixed images": (lambda: Written(lambda m, x: m.conv(x).reshape(1, -1)), "of 2 images it makes 1×384"),
    "sequences": (lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 3, 3)), "of 2 images it makes 2×3×64"),
    "part of the maps": (lambda: Written(lambda m, x: m.conv(x)[:, :2]), "no layer .*Tensor.__getitem__ does"),
    "a factor": (lambda: Written(lambda m, x: m.conv(x) * 0.5), "what torch.Tensor.mul does for an input of 3×8×8"),
    "turned maps": (lambda: Written(lambda m, x: m.conv(x).transpose(2, 3)), "moves values as torch.Tensor.transpose"),
    "shuffled": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ChannelShuffle(2)), "moves values as 1 .ChannelShuffle"),
    "unknown to us": (lambda: nn.Sequential(nn.PReLU()), "no layer .* what 0 .PReLU. does .*num_parameters=1"),
    "in wrappers": (
        lambda: nn.Sequential(nn.DataParallel(torch.compile(nn.PReLU(), backend="eager"))),
        r"what 0 \(PReLU\) does",
    ),
    "transposed": (lambda: nn.ConvTranspose2d(3, 3, 2), "what ConvTranspose2d does"),
    "padding alone": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.ZeroPad2d(1)), "1 .ZeroPad2d.*no conv"),
    "padding before a pool": (
        lambda: nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2)), r"1 \(MaxPool2d\) .*: its input was padded"
    ),
    "padding, and moves": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.Flatten()), "0 .ZeroPad2d.*no conv"),
    "padding on one side": (lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(3, 3, 3)), "one side more"),
    "padding with ones": (lambda: nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 3, 3)), "pads with 1.0, which"),
    "padding of two kinds": (
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3, padding=1)), "reflect, and it pads with zeros"
    ),
    "crops": (lambda: nn.Sequential(nn.ZeroPad2d(-1), nn.Conv2d(3, 3, 3)), "expected a padding of maps"),
    "FC on maps": (lambda: nn.Linear(8, 4), "what Linear does for an input of 3×8×8"),
    "odd padding": (lambda: nn.Conv2d(3, 3, 2, padding="same"), "pads one side more than the other"),
    "changed by a hook": (hooked, "no layer .*Tensor.add does"),
    "pruned by a mask": (pruned, "weights are computed as it runs.*prune.remove"),
    "weight norm": (
        lambda: nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))),
        "conv2d in 0 .*weights are computed as it runs.*remove_parametrizations",
    ),
    "a method of a subclass": (lambda: Doubled(3, 3, 3), "conv2d does .*weights are computed as it runs"),
    "a method replaced": (patched, "conv2d in 0 does .*weights are computed as it runs"),
    "always random": (lambda: Written(lambda m, x: functional.dropout(m.conv(x))), "drops values in evaluation too"),
    "statistics of the batch": (
        lambda: Written(lambda m, x: functional.batch_norm(x, m.bn.running_mean, m.bn.running_var, training=True),
                        bn=nn.BatchNorm2d(3)),
        "measures the batch in evaluation too",
    ),
}  # fmt: skip
"""Modules that can't be described, and what the message has."""


@pytest.mark.parametrize("module", REFUSED)
@pytest.mark.filterwarnings("ignore")  # torch's, of what it will not have for much longer
def test_what_is_no_chain_is_refused_in_one_line(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The line says where and why; nothing else is printed."""
    make, said = REFUSED[module]
    with pytest.raises(ArgumentError, match=said) as caught:
        vggkit.describe(make(), input="3x8x8")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")


def test_an_input_is_read_as_everywhere() -> None:
    """A shape that is none, and one that nothing holds."""
    with pytest.raises(ArgumentError, match="input: expected channels × height × width"):
        vggkit.describe(nn.Conv2d(3, 3, 3), input="3x8")
    with pytest.raises(ArgumentError, match="can't run on 2 images of 3×1000000000×1000000000"):
        vggkit.describe(nn.Flatten(), input="3x1000000000x1000000000")
    with pytest.raises(ArgumentError, match="values are not followed into another order"):
        vggkit.describe(nn.ChannelShuffle(3), input="3x100000x100000")


class Kept(nn.Conv2d):
    """A convolution with a name of its own."""


BLOCK = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
FOLLOWED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DataParallel inside": lambda module: nn.Sequential(nn.DataParallel(module)),
    "compiled": lambda module: torch.compile(module, backend="eager"),
    "compiled inside": lambda module: nn.Sequential(torch.compile(module, backend="eager")),
    "torch.fx": torch.fx.symbolic_trace,
    "checkpointed": lambda module: Written(
        lambda m, x: checkpoint.checkpoint(m.inner, x, use_reentrant=False), inner=module
    ),
    "dead ends": lambda module: Written(lambda m, x: (m.conv(x).sum(), m.inner(x))[1], inner=module),
    "subclasses": lambda module: nn.Sequential(Kept(3, 4, 3, padding=1), *module[1:]),
    "float64": lambda module: module.double(),
    "handed on": lambda module: Written(lambda m, x: m.inner(x.clone().to(x.dtype)).detach(), inner=module),
    "exported": lambda module: exported(module),
    "exported inside": lambda module: nn.Sequential(nn.Identity(), exported(module)),
    "squeezed": lambda module: Written(lambda m, x: m.inner(x.unsqueeze(0).squeeze(0)), inner=module),
    "hooks that look": lambda module: module.register_forward_hook(lambda *_: None) and module,
}  # fmt: skip
"""Ways in which a chain may be wrapped."""


@pytest.mark.parametrize("way", FOLLOWED)
def test_a_chain_is_followed_through_what_wraps_it(way: str) -> None:
    """Wrappers of torch, checkpoints, copies and hooks that only look."""
    module = FOLLOWED[way](nn.Sequential(*(type(part)(**arguments(part)) for part in BLOCK)))
    assert vggkit.dump(vggkit.describe(module, input="3x8x8")).endswith("\n  - [conv3-4, maxpool]\n")


def arguments(module: nn.Module) -> dict[str, Any]:
    """Return the arguments of a new module like this one."""
    words = ("in_channels", "out_channels", "kernel_size", "padding", "inplace")
    return {word: getattr(module, word) for word in words if hasattr(module, word)}


class Restless(nn.Module):
    """A module that changes everything it has as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("count", torch.zeros(()))
        self.passes = 0
        self.seen: list[Tensor] = []
        self.last: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Count, keep, and clip its weights."""
        self.count += 1
        self.passes += 1
        self.conv.weight.data.clamp_(0, 0)
        self.seen.append(x)
        self.last["x"] = x
        self.new = x
        return self.norm(self.conv(x))


def test_a_module_is_not_changed() -> None:
    """Its values, mode, attributes and hooks are what they were, and no tensor without values is left in it."""
    module = Restless().train()
    module.norm.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    vggkit.describe(module, input="3x8x8")
    assert (module.passes, module.seen, module.last, hasattr(module, "new")) == (0, [], {}, False)
    assert (module.training, module.conv.training, module.norm.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(type(value) in (Tensor, nn.Parameter) for value in (*module.parameters(), *module.buffers()))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_module_is_not_changed_by_a_run_that_fails() -> None:
    """The same where it raises in the middle."""
    module = nn.Sequential(Restless(), nn.Linear(5, 5))
    with pytest.raises(ArgumentError):
        vggkit.describe(module, input="3x8x8")
    assert module[0].passes == 0
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(type(value) in (Tensor, nn.Parameter) for value in (*module.parameters(), *module.buffers()))


def test_a_module_may_be_described_anywhere() -> None:
    """Under inference mode, without gradients, and inside FakeTensorMode, where nothing has values."""
    said = vggkit.describe(Written(lambda m, x: m.conv(x).relu_()), input="3x8x8")
    with torch.inference_mode():
        assert vggkit.describe(Written(lambda m, x: m.conv(x).relu_()), input="3x8x8") == said
        made_there = Written(lambda m, x: m.conv(x).relu_())
    assert vggkit.describe(made_there, input="3x8x8") == said
    with FakeTensorMode():
        assert vggkit.describe(Written(lambda m, x: m.conv(x).relu_()), input="3x8x8") == said
