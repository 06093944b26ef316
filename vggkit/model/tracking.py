"""What measures memory on fake tensors, which have sizes and no values: torch's own MemTracker."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._pytree import tree_leaves

COUNTS = {
    torch.ops.aten.empty.memory_format: (torch.int32, torch.int64),
    torch.ops.aten.zeros.default: (torch.int32,),
}
"""How DistributedDataParallel makes what it counts in, and of which dtypes; those of labels are not among them."""


class FakeTensors(FakeTensorMode):  # type: ignore[no-untyped-call]  # torch does not type its __init_subclass__
    """Fake tensors, but what torch reads is there.

    Some optimizers read a value: where there is none, they read 1. DistributedDataParallel reads numbers that it has
    written into tensors of integers: those are real.
    """

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        options = kwargs or {}
        if _is_counted(func, types, args, options):
            return func(*args, **options)
        try:
            return super().dispatch(func, types, args, kwargs)
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return 1.0


def _is_counted(func: Any, types: Any, args: Any, options: dict[str, Any]) -> bool:
    """Tell whether an operation makes a tensor to count in, or works on such alone."""
    if func in COUNTS:
        return options.get("dtype") in COUNTS[func]
    if types:  # of fake tensors among the arguments
        return False
    tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
    return bool(tensors) and not any(tensor.is_floating_point() for tensor in tensors)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Let tensors die with their last reference only, not when the collector happens to come by."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
