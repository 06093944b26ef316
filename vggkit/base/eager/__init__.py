"""What eager PyTorch allocates and frees in a step, storage by storage, without PyTorch.

The operations of a network's layers run here on tensors that have a size but no values, in the order in which torch
dispatches them. A storage dies when its last reference goes: a Python variable, a saved tensor of the autograd graph,
or a gradient that is not used yet. After each operation the alive bytes are noted, as torch's MemTracker notes them.

Bytes are counted in two parts, those that grow with the batch and those that don't, so that a single walk answers for
every batch. Which operations a layer consists of is defined with the layer: its `run` is given an `Eager`, as its
`module` is given `torch.nn`.

`tensors` has what there is, and each class stands on the one before: `memory`, `graph`, `autocast`, `operations`,
`losses`, and `engine` with `Eager`, which runs layers forward and backward.
"""

from vggkit.base.eager.engine import Eager, PlacedRun, Runs
from vggkit.base.eager.tensors import (
    ACTIVATIONS,
    BUFFERS,
    COMMUNICATION,
    CUDA_BLOCK,
    GRADIENTS,
    INDEX_BYTES,
    INPUTS,
    MEMORY_KINDS,
    OPTIMIZER,
    PARAMETERS,
    START,
    TEMPORARIES,
    WIDE,
    Event,
    GradientHook,
    Gradients,
    Moment,
    Node,
    Parameter,
    Storage,
    Tensor,
)

__all__ = [
    "ACTIVATIONS",
    "BUFFERS",
    "COMMUNICATION",
    "CUDA_BLOCK",
    "GRADIENTS",
    "INDEX_BYTES",
    "INPUTS",
    "MEMORY_KINDS",
    "OPTIMIZER",
    "PARAMETERS",
    "START",
    "TEMPORARIES",
    "WIDE",
    "Eager",
    "Event",
    "GradientHook",
    "Gradients",
    "Moment",
    "Node",
    "Parameter",
    "PlacedRun",
    "Runs",
    "Storage",
    "Tensor",
]
