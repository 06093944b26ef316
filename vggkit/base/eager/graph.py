"""Operations, and the autograd graph that they record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from vggkit.base.eager.memory import Memory
from vggkit.base.eager.tensors import LEAF_ORDER, Backward, Edge, Frame, Gradients, Node, Parameter, Storage, Tensor
from vggkit.base.shapes import Kept, Shape, elements
from vggkit.base.sums import PartialSums


class RecomputedEnough(Exception):  # noqa: N818  # a signal: torch stops a recomputation at its last saved tensor
    """The last tensor that was asked for has been made again."""


class Graph(Memory):
    """The graph that operations record.

    Args:
        batch: number of images.
        device: "cpu" or "cuda".
        training: whether a graph is recorded, dropout drops, and batch norm computes statistics of the batch.

    Attributes:
        autograd: whether operations are recorded now.
        kept: each storage that is kept for the backward pass, and the first layer that keeps it.
    """

    def __init__(self, batch: int, device: Literal["cpu", "cuda"], *, training: bool) -> None:
        super().__init__(batch, device)
        self.training = training
        self.autograd = training
        self.kept: dict[Storage, str] = {}
        self._layer = ""
        self._order = 0
        self._frame: Frame | None = None
        self._recomputed: Frame | None = None
        self._expanded: set[Storage] = set()

    def node(self, edges: Sequence[Edge], *, always: bool = False) -> Node | None:
        """Record a node, if any of its inputs needs a gradient.

        Args:
            edges: where the inputs' gradients go.
            always: whether it is recorded without gradients, too, as are casts that autocast keeps.
        """
        if not (self.autograd or always) or not any(edge is not None for edge in edges):
            return None
        self._order += 1
        return Node(self._layer, self._order, edges, self._frame)

    def leaf(self, gradients: list[Storage], name: str = "images") -> Node:
        """Return the node of a tensor that requires a gradient, and that no operation made.

        Args:
            gradients: a list to put the gradient into.
            name: what the tensor is called in the timeline.
        """

        def backward(gradient: Storage) -> Gradients:
            gradients.append(self.hold(gradient))
            self.note()
            return []

        node = Node(name, LEAF_ORDER, (), None)
        node.backward = backward
        return node

    def keep(self, node: Node, storage: Storage) -> None:
        """Keep a storage for the backward pass; inside a checkpointed block only note that it will be needed."""
        frame = self._recomputed
        if frame is not None:
            frame.recomputing += 1
            if not storage.is_parameter:
                storage.references += 1  # held by the frame, beyond the recomputation's own references
                frame.recomputed[frame.recomputing] = storage
            if frame.recomputing + 1 == frame.packs:
                raise RecomputedEnough
        elif self._frame is not None:
            node.packs.append((self._frame.packs, storage.is_parameter))
            self._frame.packs += 1
            self._frame.alive += 1
        elif not storage.is_parameter:
            node.saved.append(self.hold(storage))
            self.kept.setdefault(storage, self._layer)

    def op(
        self,
        x: Tensor,
        *others: Tensor | Parameter | None,
        shape: Shape | None = None,
        element_bytes: int | None = None,
        keeps: Iterable[Tensor | Parameter] = (),
        keeps_output: bool = False,
        extras_before: Sequence[tuple[int, int]] = (),
        extras: Sequence[tuple[int, int]] = (),
        temporaries: Sequence[tuple[int, int]] = (),
        sums: PartialSums | None = None,
        in_place: bool = False,
        backward: Backward | None = None,
        adjust: Callable[[Storage, Gradients], Gradients] | None = None,
    ) -> Tensor:
        """Run one operation.

        Args:
            x: its input.
            others: its other inputs.
            shape: of the output, for one image; the input's if absent.
            element_bytes: of the output; the input's if absent.
            keeps: inputs that its backward pass needs.
            keeps_output: whether its backward pass needs the output.
            extras_before: bytes per image and constant bytes of each further tensor that it makes for its backward
                pass, before it makes the output.
            extras: the same, after it has made the output.
            temporaries: the same of each tensor that it frees again when it has run.
            sums: those that it makes, perhaps in parts.
            in_place: whether the output is written over the input.
            backward: makes the inputs' gradients from the output's; if absent, one as large as each input.
            adjust: what the engine does to those gradients before it passes them on.

        Returns:
            The output; the caller holds a reference to it.
        """
        shape = x.shape if shape is None else shape
        element_bytes = element_bytes or x.element_bytes
        inputs = (x, *others)
        edges = [None if tensor is None else tensor.edge for tensor in inputs]
        # real tensors, unlike fake ones, have the view made anew from what is viewed (AsStridedBackward0)
        renews_view = in_place and x.is_view and self.device == "cuda"
        if renews_view and x.node is not None:
            edges[0] = x.node.edges[0]
        node = self.node(edges)
        if node is not None:
            node.backward = backward or self._makes(
                *(None if one is None or edge is None else one.size for one, edge in zip(inputs, node.edges))
            )
            if in_place and x.is_view:
                node.backward = self._through_view(x, node.backward)
            node.adjust = adjust
            for tensor in keeps:
                self.keep(node, tensor.storage)
        made = [self.new(*extra) for extra in extras_before]
        storage = self.hold(x.storage) if in_place else self.new(elements(shape) * element_bytes)
        made += [self.new(*extra) for extra in extras]
        used = [self.new(*temporary) for temporary in temporaries]
        used += self.scratch(sums)
        self.note()
        self.release(*used)
        if node is not None:
            for extra in made:
                self.keep(node, extra)
            if keeps_output:
                self.keep(node, storage)
        self.release(*made)
        if renews_view:
            node = self.node([node])
            if node is not None:
                node.backward = self._makes(x.size)
        return Tensor(storage, shape, element_bytes, node, is_view=in_place and x.is_view)

    def apply(
        self,
        x: Tensor,
        parameters: dict[str, Parameter],
        *,
        shape: Shape,
        keeps: Iterable[Kept],
        in_place: bool = False,
    ) -> Tensor:
        """Run a layer as one operation, as its rules describe it.

        Args:
            x: its input.
            parameters: its other inputs.
            shape: of the output, for one image.
            keeps: what its backward pass needs.
            in_place: whether the output is written over the input.
        """
        inputs: list[Tensor | Parameter] = []
        extras = []
        keeps_output = clones = False
        for kept in keeps:
            if kept.what == "input":
                inputs.append(x)
            elif kept.what == "output":
                keeps_output = True
            elif kept.what == "clone of the input":
                clones = x.edge is not None and self.autograd
            else:
                size = elements(kept.shape) * (kept.element_bytes or x.element_bytes)
                extras.append((size, 0) if kept.per_image else (0, size))
        copy = self.like(x) if clones else None
        if copy is not None:
            inputs.append(copy)
        y = self.op(
            x,
            *parameters.values(),
            shape=shape,
            keeps=inputs,
            keeps_output=keeps_output,
            extras=extras,
            in_place=in_place,
        )
        self.release(copy)
        return y

    def view(self, x: Tensor, shape: Shape) -> Tensor:
        """Return a view: the same storage in another shape."""
        node = self.node([x.edge])
        if node is not None:
            node.backward = lambda gradient: [self.hold(gradient)]
        return Tensor(self.hold(x.storage), shape, x.element_bytes, node, is_view=True)

    def _through_view(self, x: Tensor, backward: Backward) -> Backward:
        """Return how a gradient comes through an operation in place on a view.

        The operation changes the viewed tensor, too. So autograd copies that tensor's gradient, passes a clone of the
        viewed part to the operation, and copies the result back (torch/csrc/autograd/functions/tensor.cpp, CopySlices).
        """

        def copied(_: Storage) -> Gradients:
            whole, part = self.new(*x.size), self.new(*x.size)
            self.note()
            made, *others = backward(part)
            self.release(part, made)
            return [whole, *others]

        return copied

    def alias(self, x: Tensor) -> Tensor:
        """Return the tensor itself, with one more reference."""
        self.hold(x.storage)
        return x

    def like(self, x: Tensor) -> Tensor:
        """Return a tensor of the same size, outside the graph: a copy, or noise."""
        storage = self.new(*x.size)
        self.note()
        return Tensor(storage, x.shape, x.element_bytes)

    def _makes(
        self,
        *sizes: tuple[int, int] | None,
        first: Sequence[tuple[int, int]] = (),
        last: Sequence[tuple[int, int]] = (),
    ) -> Backward:
        """Return a backward pass that makes the inputs' gradients.

        Args:
            sizes: of the gradients, None where none is wanted.
            first: of the temporaries that are made before them.
            last: of those that are made after them.
        """

        def backward(_: Storage) -> Gradients:
            temporaries = [self.new(*size) for size in first]
            made = [None if size is None else self.new(*size) for size in sizes]
            temporaries += [self.new(*size) for size in last]
            self.note()
            self.release(*temporaries)
            return made

        return backward

    def _casts_back(self, x: Tensor, wide: int) -> Callable[[Storage, Gradients], Gradients]:
        """Return how the engine casts a gradient to the dtype of the operation's input x, if it was made in another.

        Args:
            x: the first input.
            wide: bytes of an element of the gradient that the operation makes.
        """

        def adjust(_: Storage, made: Gradients) -> Gradients:
            if wide == x.element_bytes or made[0] is None:
                return made
            cast = self.new(*x.size)
            self.note()
            self.release(made[0])
            return [cast, *made[1:]]

        return adjust

    def _expands(self, gradient: Storage) -> Gradients:
        """Return the gradient of what was added up: an expanded view of the sum's."""
        self._expanded.add(gradient)
        return [self.hold(gradient)]

    def _passes_on(self, edges: Sequence[Edge]) -> Backward:
        """Return a backward pass in which the inputs' gradients are the output's own."""
        return lambda gradient: [None if edge is None else self.hold(gradient) for edge in edges]
