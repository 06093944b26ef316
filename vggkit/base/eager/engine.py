"""The layers of a network, run forward and backward."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, Protocol

from vggkit.base.eager.graph import RecomputedEnough
from vggkit.base.eager.losses import Losses
from vggkit.base.eager.tensors import (
    ACTIVATIONS,
    GRADIENTS,
    RECOMPUTATION,
    TEMPORARIES,
    Frame,
    GradientHook,
    Gradients,
    Node,
    Parameter,
    Storage,
    Tensor,
)


class Runs(Protocol):
    """What runs on tensors without values: a layer."""

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Return the output, with a reference to it."""


class PlacedRun(NamedTuple):
    """A layer with its name and its parameters, ready to run; a frozen one runs in evaluation mode."""

    name: str
    layer: Runs
    parameters: dict[str, Parameter]
    frozen: bool = False


class Eager(Losses):
    """A step of eager PyTorch.

    Args:
        batch: number of images.
        device: "cpu" or "cuda".
        training: whether dropout drops, batch norm computes statistics of the batch, and a graph is recorded.

    Attributes:
        frozen: whether the layer that runs is frozen: its batch norm uses running statistics, in training too.
        outputs: bytes of each layer's output, 0 if that is in another's memory.
        added: each gradient of a parameter that was added to one that was there, and that one.
        run_again: names of the layers that a backward pass has run again to their end.
    """

    def __init__(self, batch: int, device: Literal["cpu", "cuda"] = "cpu", *, training: bool = True) -> None:
        super().__init__(batch, device, training=training)
        self.frozen = False
        self.outputs: dict[str, int] = {}
        self.added: dict[Storage, Storage] = {}
        self.run_again: set[str] = set()
        self._hook: GradientHook | None = None

    # Forward pass

    def run_layers(self, layers: Sequence[PlacedRun], x: Tensor, word: str = "forward") -> Tensor:
        """Run layers as `nn.Sequential` does: each input is released when its layer has returned.

        Takes over the caller's reference to x; the output comes with one.
        """
        for placed in layers:
            self._layer, self.event, self.frozen = placed.name, f"{word} of {placed.name}", placed.frozen
            y = placed.layer.run(x, placed.parameters, self)
            if word == "forward":
                self.outputs[placed.name] = 0 if y.storage is x.storage else y.storage.size
            elif word == RECOMPUTATION:
                self.run_again.add(placed.name)
            self.release(x)
            x = y
        return x

    def run_checkpoint(self, layers: Sequence[PlacedRun], x: Tensor, word: str = "forward") -> Tensor:
        """Run layers as `torch.utils.checkpoint.checkpoint(…, use_reentrant=False)` does."""
        if not self.autograd:
            return self.run_layers(layers, x, word)
        self._frame = frame = Frame(x, lambda: self.run_layers(layers, self.alias(x), RECOMPUTATION))
        self.hold(x.storage)  # the frame's own
        y = self.run_layers(layers, x, word)
        self._frame = None
        if frame.alive == 0:
            self.release(x)
        else:
            self.kept.setdefault(x.storage, layers[0].name)
        return y

    @property
    def is_recomputing(self) -> bool:
        """Whether a checkpointed block runs again."""
        return self._recomputed is not None

    def _recompute(self, frame: Frame) -> None:
        """Run a checkpointed block again, as far as its last saved tensor."""
        before = self.event, self.kind, self._casts, self.autocast, self._layer
        self._recomputed, self._scope = frame, {}
        self.kind, self.autograd, self._casts, self.autocast = ACTIVATIONS, True, {}, self._cast_in_backward
        with suppress(RecomputedEnough):
            frame.run()
        scope, self._scope, self._recomputed = self._scope, None, None
        self.event, self.kind, self._casts, self.autocast, self._layer = before
        self.autograd = False
        for storage, references in scope.items():  # the recomputation's variables, graph and casts are freed
            self.release(*[storage] * references)

    # Backward pass

    def backward(
        self,
        output: Tensor,
        hook: GradientHook | None = None,
        end: Callable[[], None] | None = None,
        gradient: Storage | None = None,
    ) -> None:
        """Run the backward pass as the engine does: of the nodes that are ready, the one made last runs first.

        Args:
            output: where it begins: a loss, or the output of a part of a network.
            hook: is called with each parameter that has its gradient (`register_post_accumulate_grad_hook`).
            end: is called when all have theirs (the engine's `queue_callback`).
            gradient: the output's; if absent it is a loss, whose gradient is made.
        """
        root = output.node
        assert root is not None
        self.event = f"backward of {root.layer}"
        first = self._ones(output) if gradient is None else self.hold(gradient)
        before = self.kind, self.autograd
        self.kind, self.autograd, self._hook = TEMPORARIES, False, hook
        _count_dependencies(root)
        root.gradient = self.hold(first)
        ready = [(-root.order, root)]
        while ready:
            _, node = heapq.heappop(ready)
            self.event = f"backward of {node.layer}"
            for edge in self._run_node(node):
                heapq.heappush(ready, (-edge.order, edge))
        if end is not None:
            end()
        self.release(first)
        self.kind, self.autograd = before

    def _ones(self, loss: Tensor) -> Storage:
        """Make the gradient of a loss."""
        ones = self.new(0, loss.element_bytes)
        self.note()
        return ones

    def _run_node(self, node: Node) -> list[Node]:
        """Run a node; return the nodes that are ready now."""
        gradient, node.gradient, frame = node.gradient, None, node.frame
        assert gradient is not None
        assert node.backward is not None
        if node.before is not None:
            node.before()
        unpacked: list[Storage] = []
        if node.packs and frame is not None:
            if frame.recomputing < 0:
                self._recompute(frame)
            unpacked = [frame.recomputed.pop(index) for index, is_parameter in node.packs if not is_parameter]
        made = node.backward(gradient)
        self.release(*unpacked)
        if node.adjust is not None:
            made = node.adjust(gradient, made)
        self.release(gradient, *node.saved)
        if node.packs and frame is not None:
            frame.alive -= len(node.packs)
            if frame.alive == 0:
                self.release(frame.x)
        node.saved, node.backward, node.before, node.adjust = [], None, None, None
        return self._hand_on(node, made)

    def _hand_on(self, node: Node, made: Gradients) -> list[Node]:
        ready = []
        for storage, edge in zip(made, node.edges):
            if storage is None or not isinstance(edge, Node):
                continue
            if edge.gradient is None:
                edge.gradient = self.hold(storage)
            elif self.device == "cpu" or edge.gradient in self._expanded:
                # two uses of one tensor: fake tensors' gradients are added out of place, real ones' in place unless the
                # first is a view (torch/csrc/autograd/input_buffer.cpp, can_accumulate_inplace)
                total = self.new(storage.per_image, storage.constant)
                self.note()
                self.release(edge.gradient)
                edge.gradient = total
            edge.dependencies -= 1
            if edge.dependencies == 0:
                ready.append(edge)
        for storage, edge in zip(made, node.edges):
            if storage is not None and not isinstance(edge, Parameter):
                self.release(storage)
        for storage, edge in zip(made, node.edges):
            if storage is not None and isinstance(edge, Parameter):
                self._accumulate(edge, storage)
        return ready

    def _accumulate(self, parameter: Parameter, gradient: Storage) -> None:
        """Make a gradient that of a parameter, or add it to the one that it has, in place.

        The latter is case 2.3 of torch/csrc/autograd/functions/accumulate_grad.h.
        """
        self.move(gradient, GRADIENTS)
        self.note()
        if parameter.gradient is None:
            parameter.gradient = gradient
        else:
            self.added[gradient] = parameter.gradient
            self.release(gradient)
        if self._hook is not None:
            self._hook(parameter)


def _count_dependencies(root: Node) -> None:
    seen, stack = {root}, [root]
    while stack:
        for edge in stack.pop().edges:
            if isinstance(edge, Node):
                edge.dependencies += 1
                if edge not in seen:
                    seen.add(edge)
                    stack.append(edge)
