"""The operations of losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vggkit.base.eager.operations import Operations
from vggkit.base.eager.tensors import INDEX_BYTES, WIDE, Backward, Edge, Tensor
from vggkit.base.shapes import elements
from vggkit.base.sums import PartialSums, total


class Losses(Operations):
    """Operations behind the last layer."""

    def start_loss(self) -> None:
        """Begin what follows the last layer."""
        self._layer, self.event = "loss", "forward of loss"

    def log_softmax(self, x: Tensor) -> Tensor:
        """Run log-softmax."""
        return self.op(x, keeps_output=True)

    def nll_loss(self, log_softmax: Tensor, labels: Tensor) -> Tensor:
        """Run `torch.nn.functional.nll_loss`: the likelihood of the labels."""
        likelihoods, cast = self.raise_precision(log_softmax)
        node = self.node([likelihoods.edge])
        if node is not None:
            node.backward = self._makes(likelihoods.size)
            self.keep(node, likelihoods.storage)
            self.keep(node, labels.storage)
        loss, weight = self.new(0, likelihoods.element_bytes), self.new(0, likelihoods.element_bytes)
        if len(likelihoods.shape) > 1:  # a loss for each position: nll_loss2d makes the two the other way round
            loss, weight = weight, loss
        self.note()
        if node is not None:
            self.keep(node, weight)
        self.release(weight, cast)
        return Tensor(loss, (), likelihoods.element_bytes, node)

    def mse_loss(self, x: Tensor, target: Tensor) -> Tensor:
        """Run `torch.nn.functional.mse_loss`, whose mean is over all values."""
        wide_target, of_target = self.raise_precision(target)
        wide_x, of_x = self.raise_precision(x)
        node = self.node([wide_x.edge])
        if node is not None:
            node.backward = self._makes(wide_x.size)
            self.keep(node, wide_x.storage)
            self.keep(node, wide_target.storage)
        if self.device == "cpu":
            loss = self.new(0, wide_x.element_bytes)
            self.note()
        else:
            # the output is made as large as the input and then made a single value, in the memory that it has
            # (aten/src/ATen/native/BinaryOps.cpp, mse_loss); the squares, of which the mean is taken, are another
            loss, squares = self.new(*wide_x.size), self.new(*wide_x.size)
            scratch = self.scratch(self._total(wide_x))
            self.note()
            self.release(squares, *scratch)
        self.release(of_x, of_target)
        return Tensor(loss, (), wide_x.element_bytes, node)

    def add_losses(self, losses: Iterable[Tensor]) -> Tensor:
        """Run `sum(losses)`, which begins with 0 + the first. Takes over the caller's references to them."""
        total: Tensor | None = None
        for loss in losses:
            added = self.add_numbers(loss, *([total] if total else []))
            self.release(total, loss)
            total = added
        assert total is not None
        return total

    def sum_classes(self, x: Tensor) -> Tensor:
        """Run x.sum(1), whose gradient is an expanded view of the output's; autocast on CUDA adds up in float32."""
        wide = WIDE if self.autocast and self.device == "cuda" else x.element_bytes
        return self.op(
            x,
            shape=x.shape[1:],
            element_bytes=wide,
            backward=self._expands,
            adjust=self._casts_back(x, wide),
        )

    def multiply(self, x: Tensor, factor: Tensor) -> Tensor:
        """Run x · factor, which gets no gradient; the result has the wider elements of the two."""
        wide = max(x.element_bytes, factor.element_bytes)
        size = x.cast_size(wide)
        adjust = self._casts_back(x, wide)
        return self.op(x, element_bytes=wide, keeps=(factor,), backward=self._makes(size), adjust=adjust)

    def mask(self, x: Tensor) -> Tensor:
        """Run a comparison or a negation of truth values: a byte for each value."""
        storage = self.new(elements(x.shape))
        self.note()
        return Tensor(storage, x.shape, 1)

    # Single values

    def sum(self, x: Tensor) -> Tensor:
        """Run x.sum(), whose gradient is an expanded view of the output's."""
        return self._number([x.edge], x.element_bytes, self._expands, self._total(x))

    def count(self, mask: Tensor) -> Tensor:
        """Run mask.sum(), an int64; on CUDA the truth values are cast first (aten/src/ATen/native/ReduceOps.cpp)."""
        storage = self.new(0, INDEX_BYTES)
        cast = [self.new(*mask.cast_size(INDEX_BYTES))] if self.device == "cuda" else []
        scratch = self.scratch(total(elements(mask.shape), INDEX_BYTES))
        self.note()
        self.release(*cast, *scratch)
        return Tensor(storage, (), INDEX_BYTES)

    def scale_number(self, x: Tensor) -> Tensor:
        """Run −x, x · number or x / number."""
        return self._number([x.edge], x.element_bytes, self._makes((0, x.element_bytes)))

    def divide_number(self, x: Tensor, count: Tensor) -> Tensor:
        """Run x / count, which gets no gradient."""
        quotient = self.scale_number(x)
        if quotient.node is not None:
            self.keep(quotient.node, count.storage)
        return quotient

    def add_numbers(self, *numbers: Tensor) -> Tensor:
        """Run the sum of single values."""
        edges = [number.edge for number in numbers]
        return self._number(edges, numbers[0].element_bytes, self._passes_on(edges))

    def _total(self, x: Tensor) -> PartialSums:
        return total(elements(x.shape), max(x.element_bytes, WIDE))

    def _number(
        self, edges: Sequence[Edge], element_bytes: int, backward: Backward, sums: PartialSums | None = None
    ) -> Tensor:
        node = self.node(edges)
        if node is not None:
            node.backward = backward
        storage = self.new(0, element_bytes)
        scratch = self.scratch(sums)
        self.note()
        self.release(*scratch)
        return Tensor(storage, (), element_bytes, node)
