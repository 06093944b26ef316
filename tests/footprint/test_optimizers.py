"""Each optimizer with each of its options, held against torch's own, and a new one added in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vggkit
from tests import scratch
from tests.footprint.updates import NETWORKS, cases, sampled, words
from vggkit.base.eager import Parameter, Storage
from vggkit.base.errors import ArgumentError
from vggkit.cli.options import either
from vggkit.footprint.optimizers import NONE, OPTIMIZERS, Update, UpdateArguments
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import Trainer, training_peak
from vggkit.network import Network

CASES = list(cases([{}, {"foreach": True}, {"fused": True}]))
"""On the CPU parameters are changed one by one, together, or in one kernel."""


# Against torch


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "update"), sampled(CASES))
def test_the_peak_of_a_step_is_memtrackers(name: str, update: Update, network: str) -> None:
    """At one image the optimizer's temporaries make it, if it has any; at fifty the activations do."""
    placed = Network.of(vggkit.loads(NETWORKS[network]))
    options = StepOptions(optimizer=name, update=update)
    trainer = Trainer(placed, options)
    for batch in (1, 50):
        assert plan_step(placed, options.replace(batch=batch)).by_kind == trainer.training_peak(batch)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_so_it_is_in_other_dtypes(name: str, dtype: str) -> None:
    """The state has the parameters' dtype, but counters are float32."""
    network = Network.of(vggkit.loads(NETWORKS["weights first"]))
    options = StepOptions(batch=1, optimizer=name, dtype=dtype)
    assert plan_step(network, options).by_kind == training_peak(network, options)


@pytest.mark.parametrize(("name", "update"), CASES, ids=map(words, CASES))
def test_the_state_is_torchs(name: str, update: Update) -> None:
    """It is what torch's optimizer keeps for a parameter of each shape after a step, tensor by tensor."""
    for shape in ((7,), (3, 5), (4, 3, 2, 6)):
        parameter = torch.nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.ones(shape)
        optimizer: torch.optim.Optimizer | None = OPTIMIZERS[name].torch_optimizer([parameter], update, torch.optim)
        state: dict[str, Any] = {}
        if optimizer is not None:
            optimizer.step()
            state = optimizer.state[parameter]
        kept = [value.nbytes for value in state.values() if isinstance(value, torch.Tensor)]
        ours = Parameter(Storage(0, parameter.nbytes, parameter.nbytes, 0), shape, 4, requires_grad=True)
        assert list(OPTIMIZERS[name].state(ours, update, "cpu")) == kept


def test_all_of_torchs_optimizers_are_there() -> None:
    """But for those that need a closure (LBFGS), take sparse gradients (SparseAdam) or nothing but matrices (Muon)."""
    every = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    every = {name for name in every if issubclass(getattr(torch.optim, name), torch.optim.Optimizer)}
    ours = {optimizer.torch_name for name, optimizer in OPTIMIZERS.items() if name != NONE}
    assert every - ours == {"Optimizer", "LBFGS", "SparseAdam", "Muon"}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != NONE])
def test_options_and_their_defaults_are_torchs(name: str) -> None:
    """Each optimizer takes the options that torch's class takes, and its weight decay is torch's or the paper's."""
    optimizer = OPTIMIZERS[name].torch_optimizer([torch.nn.Parameter(torch.zeros(1))], Update(), torch.optim)
    known = set(Update.__struct_fields__) & set(optimizer.defaults)
    if name in ("sgd", "sgd-momentum", "paper"):  # one class: the name says whether there is a momentum
        known -= {"momentum"}
    assert set(OPTIMIZERS[name].takes) == known - ({"nesterov"} if name == "sgd" else set())
    of_torch = type(optimizer)([torch.nn.Parameter(torch.zeros(1))]).defaults
    for word in set(OPTIMIZERS[name].takes) - ({"weight_decay"} if name == "paper" else set()):
        assert optimizer.defaults[word] == of_torch[word]
    assert vggkit.memory("A", optimizer="paper").to_dict()["weight_decay"] == 5e-4


# Figures


def test_steady_bytes_are_parameters_gradients_and_state() -> None:
    """Between steps stay the parameters, their gradients, and as many copies as the optimizer keeps."""
    parameters = vggkit.summarize("A").totals.parameter_bytes
    expected = {name: parameters * copies + 22 * counters for name, (copies, counters) in COPIES.items()}
    assert {name: vggkit.memory("A", optimizer=name).steady_bytes for name in COPIES} == expected
    assert {*COPIES, "adafactor"} == set(OPTIMIZERS)
    factored = vggkit.memory("A", optimizer="adafactor").by_kind["optimizer"]
    assert factored < parameters


COPIES = {
    "none": (2, 0),
    "sgd": (2, 0),
    "sgd-momentum": (3, 0),
    "paper": (3, 0),
    "asgd": (3, 12),
    "adam": (4, 4),
    "adamw": (4, 4),
    "nadam": (4, 8),
    "radam": (4, 4),
    "adamax": (4, 4),
    "rmsprop": (3, 4),
    "adagrad": (3, 4),
    "adadelta": (4, 4),
    "rprop": (4, 4),
}
"""How many copies of the parameters there are, and bytes of numbers for each tensor."""


# Words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "rmsprop", "amsgrad": True}, "amsgrad: expected an optimizer that has it (adam, adamw), found"),
        ({"optimizer": "adam", "momentum": 0.9}, "(rmsprop; set in sgd-momentum, paper), found adam"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov: expected an optimizer that has it (sgd-momentum, paper), "),
        ({"optimizer": "nadam", "fused": True}, "(sgd, sgd-momentum, paper, adam, adamw, adagrad), found nadam"),
        ({"optimizer": "none", "foreach": True}, "adafactor, rprop), found none"),
        ({"foreach": True, "fused": True}, "fused: can't be combined with foreach; torch refuses both together"),
        ({"weight_decay": -1}, "weight_decay: expected a number of 0 or more, found -1"),
        ({"weight_decay": float("nan")}, "weight_decay: expected a number of 0 or more, found nan"),
        ({"weight_decay": "5e-4"}, "weight_decay: expected a number of 0 or more, found '5e-4'"),
        ({"weight_decay": True}, "weight_decay: expected a number of 0 or more, found True"),
        ({"foreach": "no"}, "foreach: expected True or False, found 'no'"),
        ({"optimizer": "none", "weight_decay": 0.1}, "adadelta, adafactor), found none"),
    ],
)
def test_options_that_an_optimizer_lacks_are_refused(options: dict[str, Any], said: str) -> None:
    """In one line, which names those that have them."""
    with pytest.raises(ArgumentError) as refused:
        vggkit.memory("A", **options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_title_says_which_options_were_given() -> None:
    """Behind the optimizer, and nothing of those that were not."""
    plan = vggkit.memory("A", optimizer="rmsprop", weight_decay=5e-4, foreach=False, momentum=0.9, centered=True)
    assert "training, rmsprop, weight decay 0.0005, no foreach, momentum 0.9, centered, cpu" in plan.title
    assert "training, paper, cpu" in vggkit.memory("A", optimizer="paper").title


@pytest.mark.parametrize(
    ("options", "applied"),
    [
        ({}, {"weight_decay": 0.0, "foreach": False, "fused": False, "nesterov": False}),
        ({"device": "cuda"}, {"weight_decay": 0.0, "foreach": True, "fused": False, "nesterov": False}),
        (
            {"device": "cuda", "fused": False},
            {"weight_decay": 0.0, "foreach": False, "fused": False, "nesterov": False},
        ),
        ({"device": "cuda", "fused": True}, {"weight_decay": 0.0, "foreach": False, "fused": True, "nesterov": False}),
        ({"optimizer": "adamw"}, {"weight_decay": 0.01, "foreach": False, "fused": False, "amsgrad": False}),
        ({"optimizer": "rmsprop"}, {"weight_decay": 0.0, "foreach": False, "momentum": 0.0, "centered": False}),
        ({"optimizer": "adafactor", "device": "cuda"}, {"weight_decay": 0.0, "foreach": False}),
        ({"optimizer": "rprop", "foreach": True}, {"foreach": True}),
        ({"mode": "inference"}, {}),
    ],
    ids=str,
)
def test_json_has_every_option_as_it_applies(options: dict[str, Any], applied: dict[str, Any]) -> None:
    """Also what torch chooses itself; null where the optimizer has none such."""
    data = vggkit.memory("A", **options).to_dict()
    assert {word: data[word] for word in Update.__struct_fields__} == {
        **dict.fromkeys(Update.__struct_fields__),
        **applied,
    }


def test_type_checkers_know_every_option() -> None:
    """The keywords are the fields."""
    assert tuple(UpdateArguments.__annotations__) == Update.__struct_fields__


def test_every_optimizer_is_in_the_docstring_of_memory() -> None:
    """It names them all, and which is the default."""
    named = either(OPTIMIZERS).replace("sgd-momentum", "sgd-momentum (the default; without weight decay)")
    assert named in " ".join(str(vggkit.memory.__doc__).split())


# A new one


LION = '''

class Lion(Optimizer):
    """Takes the sign of a moving average of the gradient: arXiv:2302.06675."""

    name = "lion"
    takes = ()

    def state(self, parameter: Parameter, update: Update, device: str) -> tuple[int, ...]:
        return (size_of(parameter),)

    def single(self, group: Sequence[Parameter], call: Call) -> None:
        call.like("step", group)

    def foreach(self, group: Sequence[Parameter], call: Call) -> None:
        for parameter in group:
            self.single([parameter], call)

    def torch_optimizer(self, parameters, update, optim):
        import torch

        class OfTorch(optim.Optimizer):
            @torch.no_grad()
            def step(self):
                for parameter in self.param_groups[0]["params"]:
                    state = self.state[parameter]
                    if not state:
                        state["exp_avg"] = torch.zeros_like(parameter)
                    step = state["exp_avg"].lerp(parameter.grad, 0.1).sign_()
                    parameter.add_(step, alpha=-1e-4)
                    state["exp_avg"].lerp_(parameter.grad, 0.01)

        return OfTorch(parameters, {})
'''

USE_LION = """
from click.testing import CliRunner
from vggkit.cli import main
from vggkit.cli.completion import optimizers
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import verify
from vggkit.network import Network
import vggkit
network = Network.of('A', input='3x32x32', width=0.25)
for batch in (1, 50):
    claims = list(verify(network, StepOptions(batch=batch, optimizer='lion')))
    assert all(claim.holds for claim in claims), claims
assert vggkit.memory('D', optimizer='lion').steady_bytes == 3 * 4 * 138_357_544
run = CliRunner().invoke
assert 'lion' in run(main, ['memory', 'D', '--optimizer', 'lion']).stdout
assert 'rprop or lion.' in ' '.join(run(main, ['memory', '--help']).stdout.split())
assert 'rprop, lion, found' in run(main, ['memory', 'D', '--optimizer', 'lyon']).stderr
assert optimizers(None, None, 'li') == ['lion']
assert 'training, lion' in vggkit.report('A').to_html()
"""


def test_a_new_optimizer_is_one_class(tmp_path: Path) -> None:
    """A class added to its family is planned, verified to the byte, asked for, completed and in the help."""
    family = scratch.package(tmp_path) / "footprint" / "optimizers" / "signs.py"
    family.write_text(family.read_text(encoding="utf-8") + LION, encoding="utf-8")
    scratch.run(tmp_path, USE_LION)
