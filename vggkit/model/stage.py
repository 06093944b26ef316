"""Some of a model's layers as a module of their own: what a rank of a pipeline runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as run_again

from vggkit.model.module import VGG, hold_statistics
from vggkit.network import PlacedLayer


class Stage(nn.Module):
    """Consecutive layers of a model, under the names that they have there: their state dicts together are the model's.

    Args:
        model: whose modules it takes; frozen ones stay so, and blocks that are run again in the backward pass are.
        layers: which of them.
    """

    def __init__(self, model: VGG, layers: Sequence[PlacedLayer]) -> None:
        super().__init__()
        for placed in layers:
            block, _, child = placed.module.rpartition(".")
            if block and block not in self._modules:
                self.add_module(block, nn.Sequential())
            self.get_submodule(block).add_module(child, model.get_submodule(placed.module))
        self.checkpoint = model.checkpoint & set(self._modules)
        self._held = [model.get_submodule(placed.module) for placed in layers if placed.name in model.frozen]
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last layer.

        Args:
            x: the images, or what the stage before has returned.
        """
        for name, module in self.named_children():
            x = run_again(module, x, use_reentrant=False) if name in self.checkpoint else module(x)
        return x

    def train(self, mode: bool = True) -> Stage:
        """Set training or evaluation mode, as the model does.

        Args:
            mode: whether it is training mode.

        Returns:
            The stage itself.
        """
        super().train(mode)
        for module in self._held:
            hold_statistics(module)
        return self
