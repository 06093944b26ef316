"""Each optimizer, held against torch's own, and a new one added in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vggkit
from tests import scratch
from vggkit.cli.options import either
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import training_peak
from vggkit.network import Network


def test_steady_bytes_are_parameters_gradients_and_state() -> None:
    """Between steps stay the parameters, their gradients, and as many copies as the optimizer keeps."""
    parameters = vggkit.summarize("A").totals.parameter_bytes
    tensors = 22
    expected = {"none": 2 * parameters, "sgd": 2 * parameters, "sgd-momentum": 3 * parameters}
    expected |= dict.fromkeys(("adam", "adamw"), 4 * parameters + 4 * tensors)
    assert set(expected) == set(OPTIMIZERS)
    assert {name: vggkit.memory("A", optimizer=name).steady_bytes for name in expected} == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_torchs(name: str) -> None:
    """It is what torch's optimizer keeps for a parameter after a step, tensor by tensor."""
    parameter = torch.nn.Parameter(torch.zeros(3, 5))
    parameter.grad = torch.ones(3, 5)
    optimizer: torch.optim.Optimizer | None = OPTIMIZERS[name].torch_optimizer([parameter], torch.optim)
    state: dict[str, Any] = {}
    if optimizer is not None:
        optimizer.step()
        state = optimizer.state[parameter]
    kept = sorted(value.nbytes for value in state.values() if isinstance(value, torch.Tensor))
    assert sorted(OPTIMIZERS[name].state(4 * 3 * 5, "cpu")) == kept


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("batch", [1, 50])
def test_the_peak_of_a_step_is_memtrackers(name: str, batch: int) -> None:
    """It is so where the optimizer's own temporaries make the peak, and where the activations do."""
    network = Network.of("A", input="3x32x32", width=0.25)
    options = StepOptions(batch=batch, optimizer=name)
    assert plan_step(network, options).by_kind == training_peak(network, options)


@pytest.mark.parametrize("function", [vggkit.memory, vggkit.compare, vggkit.find])
def test_every_optimizer_is_in_the_docstring_of_what_takes_one(function: Any) -> None:
    """The docstrings name them all, and which is the default."""
    words = either(OPTIMIZERS).replace("sgd-momentum", "sgd-momentum (the default; without weight decay)")
    assert words in " ".join(function.__doc__.split())


RMSPROP = '''


class RMSprop(Optimizer):
    """Divides by the root of the mean square of the gradients (torch/optim/rmsprop.py)."""

    name = "rmsprop"

    def state(self, size: int, device: str) -> tuple[int, ...]:
        return (COUNTER_BYTES, size) if device == "cpu" else (size,)

    def step(self, sizes: Sequence[int], eager: Eager) -> None:
        eager.note()
        average: Storage | None = None
        for size in sizes:  # _single_tensor_rmsprop: the root lives until `avg` is bound to the next one
            root = eager.new(0, size)
            eager.note()
            eager.release(average)
            average = root
        eager.release(average)

    def torch_optimizer(self, parameters: Sequence[Any], optim: Any) -> Any:
        return optim.RMSprop(parameters)
'''

USE_RMSPROP = """
from click.testing import CliRunner
from vggkit.cli import main
from vggkit.cli.completion import optimizers
from vggkit.footprint.steps.options import StepOptions
from vggkit.model.verify import verify
from vggkit.network import Network
import vggkit
network = Network.of('A', input='3x32x32', width=0.25)
for batch in (1, 50):
    claims = list(verify(network, StepOptions(batch=batch, optimizer='rmsprop')))
    assert all(claim.holds for claim in claims), claims
assert vggkit.memory('D', optimizer='rmsprop').steady_bytes == 3 * 4 * 138_357_544 + 4 * 32
run = CliRunner().invoke
assert 'rmsprop' in run(main, ['memory', 'D', '--optimizer', 'rmsprop']).stdout
assert 'sgd-momentum, adam, adamw or rmsprop.' in ' '.join(run(main, ['memory', '--help']).stdout.split())
assert 'adamw, rmsprop, found' in run(main, ['memory', 'D', '--optimizer', 'rmspop']).stderr
assert optimizers(None, None, 'rms') == ['rmsprop']
assert 'training, rmsprop' in vggkit.report('A').to_html()
"""


def test_a_new_optimizer_is_one_class(tmp_path: Path) -> None:
    """A class added to optimizers.py is planned, verified to the byte, asked for, completed and in the help."""
    scratch.add(scratch.package(tmp_path) / "footprint" / "optimizers.py", "\n\nOPTIMIZERS: dict", RMSPROP)
    scratch.run(tmp_path, USE_RMSPROP)
