"""Models whose parameters are divided among ranks: DTensors, of which each rank has a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def divided_parameters(model: nn.Module) -> Iterator[None]:
    """Give a model its DTensors as parameters, where DistributedDataParallel has taken them apart.

    It takes out the part that is trained, and in a forward pass makes a DTensor of it that is no parameter
    (torch/distributed/tensor/parallel/ddp.py). The parameters here share its memory.

    Args:
        model: the model; afterwards it is as it was.
    """
    taken: list[tuple[nn.Module, str, Tensor]] = []
    for module in model.modules():
        words = ("weight", "bias") if isinstance(module, nn.Linear) else ()
        taken += [(module, word, tensor) for word in words if _is_taken_apart(tensor := getattr(module, word))]
    for module, word, tensor in taken:
        delattr(module, word)
        module.register_parameter(word, nn.Parameter(_dtensor(tensor), requires_grad=False))
    try:
        yield
    finally:
        for module, word, tensor in taken:
            delattr(module, word)
            setattr(module, word, tensor)


def _is_taken_apart(tensor: Tensor | None) -> bool:
    if tensor is None:
        return False
    return hasattr(tensor, "_st_info") or (is_divided(tensor) and not isinstance(tensor, nn.Parameter))


def _dtensor(tensor: Any) -> Tensor:
    if is_divided(tensor):
        divided: Tensor = tensor.detach()
        return divided
    from torch.distributed.tensor import DTensor

    spec = tensor._st_info
    return DTensor.from_local(
        tensor.detach(), spec.mesh, spec.placements, run_check=False, shape=spec.shape, stride=spec.stride
    )


def is_divided(tensor: Tensor) -> bool:
    """Tell whether a tensor is a DTensor, without the half a second that torch takes to import the class."""
    return hasattr(tensor, "full_tensor")


def part_of(tensor: Tensor, like: Any) -> Tensor:
    """Return this rank's part of a tensor, if it is for one that is divided: each rank has read it itself.

    Args:
        tensor: the whole.
        like: what it is for.
    """
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def whole(tensor: Any) -> Tensor:
    """Return a tensor whose parts lie with several ranks as one, in memory that no card has to have."""
    gathered: Tensor = tensor.full_tensor().cpu() if is_divided(tensor) else tensor
    return gathered


def is_first(model: nn.Module) -> bool:
    """Tell whether this is the first of the ranks among which a model is divided, or it is not divided."""
    divided: Iterator[Any] = filter(is_divided, model.parameters())
    first = next(divided, None)
    return first is None or not any(first.device_mesh.get_coordinate())
