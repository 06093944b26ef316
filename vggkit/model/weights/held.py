"""A torch module as a checkpoint: what its layers hold, by the names of the network that it is described as."""

from __future__ import annotations

from torch import Tensor, nn

from vggkit.base.errors import ArgumentError
from vggkit.model.weights.checkpoint import Checkpoint
from vggkit.model.weights.container import CONFIG_KEY, Container, Stored
from vggkit.model.weights.layouts import LAYOUTS
from vggkit.modules.describe import Described, described, own_config, suited
from vggkit.modules.trace import bare
from vggkit.network import place
from vggkit.notation.layers import Shape


class Held(Container):
    """The tensors of a module in memory.

    Args:
        name: for messages.
        tensors: by their names.
        config: the configuration that goes with them, as YAML.
    """

    format = "a torch module"
    ordered = True
    inflation = 1

    def __init__(self, name: str, tensors: dict[str, Tensor], config: str) -> None:
        self.location = self.path = name
        self.file_size = self.claimed = sum(tensor.nbytes for tensor in tensors.values())
        self.metadata = {CONFIG_KEY: config}
        self.held = tensors
        self.tensors = {
            name: Stored(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.nbytes)
            for name, tensor in tensors.items()
        }

    def read(self, name: str) -> Tensor:
        """Return a copy of one tensor: two models share no values."""
        return self.held[name].detach().clone()


def _known(module: nn.Module, image: Shape) -> Described:
    """Describe a module for an image, or for one with the channels that its first convolution takes."""
    other = suited(image, module)
    try:
        return described(module, image)
    except ArgumentError:
        if other == image:
            raise
    return described(module, other)


def checkpoint_in(module: nn.Module, image: Shape) -> Checkpoint:
    """Return a module's weights as a checkpoint in vggkit's layout.

    Args:
        module: one that runs as a chain of layers.
        image: the shape of one image; its channels may be other than the module's.

    Raises:
        ArgumentError: if it can't be described, or has no values.
    """
    module = bare(module)
    known = _known(module, image)
    config = own_config(module) or known.config
    network = place(config)
    holding = (part for part in known.modules if next(part.parameters(), next(part.buffers(), None)) is not None)
    tensors = {
        f"{placed.module}.{role}": getattr(part, role)
        for placed, part in zip((placed for placed in network if placed.held), holding, strict=True)
        for role in placed.held
    }
    if any(tensor.is_meta for tensor in tensors.values()):
        raise ArgumentError("weights: the module is on the meta device and has no values")
    return LAYOUTS["vggkit"].read(Held(type(module).__name__, tensors, str(config)))
