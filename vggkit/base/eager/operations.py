"""The operations of layers that are more than one that makes its output and keeps its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from vggkit.base.eager.autocast import Autocast
from vggkit.base.eager.tensors import NOTHING, WIDE, Backward, Edge, Gradients, Node, Parameter, Storage, Tensor
from vggkit.base.shapes import Kept, Shape, elements
from vggkit.base.sums import PartialSums, channel_sums, column_sums


class Operations(Autocast):
    """Operations of layers.

    Args:
        batch: number of images.
        device: "cpu" or "cuda".
        training: as of `Graph`.

    Attributes:
        refused: the normalisations that torch refuses to run, because they would take statistics of a single value.
    """

    def __init__(self, batch: int, device: Literal["cpu", "cuda"], *, training: bool) -> None:
        super().__init__(batch, device, training=training)
        self.refused: list[str] = []

    def linear(self, x: Tensor, weight: Parameter, bias: Parameter | None, shape: Shape) -> Tensor:
        """Run `torch.nn.functional.linear`: addmm, or mm without a bias."""
        x, weight, bias, casts = self.lower(x, weight, bias)
        of_x, of_weight, of_bias = x.edge, weight.edge, bias.edge if bias else None
        # of a group of ranks some may have no units
        sums = column_sums(elements(shape), max(x.element_bytes, WIDE)) if elements(shape) else None

        def backward(gradient: Storage) -> Gradients:
            wanted = [x.size if of_x else None, weight.size if of_weight else None]
            step = 1 if bias else -1  # addmm makes the input's gradient first, mm the weight's
            made = [None if size is None else self.new(*size) for size in wanted[::step]][::step]
            self.note()
            return [made[0], self.hold(gradient) if of_bias else None, made[1]]

        def adjust(_: Storage, made: Gradients) -> Gradients:
            if bias is None or not of_bias:
                return made
            total = self.new(*bias.size)  # the engine sums the gradient over the batch
            scratch = self.scratch(sums)
            self.note()
            self.release(*scratch, made[1])
            return [made[0], total, made[2]]

        keeps: list[Tensor | Parameter] = [*([x] if of_weight else []), *([weight] if of_x else [])]
        # the bias comes first, as the weight's gradient goes through its transpose
        y = self.op(x, bias, weight, shape=shape, keeps=keeps, backward=backward, adjust=adjust)
        self.release(*casts)
        return y

    def batch_norm(self, x: Tensor, parameters: dict[str, Parameter], statistics: Sequence[Kept]) -> Tensor:
        """Run a batch normalisation.

        Args:
            x: its input.
            parameters: its weight and bias, if it is affine.
            statistics: those that it computes and keeps; empty where it uses running statistics.
        """
        if self.device == "cpu":
            extras = self._statistics(x, statistics, x.element_bytes)
            # the kernel of fake tensors makes the input's gradient even if nobody wants it
            return self._normalize(x, parameters, extras, self._makes(x.size, *_wanted(parameters)))
        wide = max(x.element_bytes, WIDE)
        of_channel = 0, x.shape[0] * wide
        extras = self._statistics(x, statistics, wide)
        # cuDNN takes affine ones of maps (aten/src/ATen/native/Normalization.cpp, _select_batch_norm_backend)
        by_cudnn = len(x.shape) > 1 and "weight" in parameters and x.element_bytes >= WIDE
        of_x, of_parameters = x.size if x.edge else None, _wanted(parameters)
        of_cudnn = by_cudnn and bool(statistics)
        # torch's own kernels add up apart where channels lie side by side (aten/src/ATen/native/cuda/Normalization.cu)
        adds_up = bool(statistics) or any(of_parameters)
        adds_apart = not of_cudnn and adds_up and 1 in (x.shape[0], elements(x.shape[1:]))
        # behind cuDNN's, which has kept nothing, they work the deviation out again, unless one kernel does everything
        does_everything = of_x and adds_up and not adds_apart
        first = [of_channel] if by_cudnn and not of_cudnn and not does_everything else []
        of_all = [parameter.size for parameter in parameters.values()]  # made even if nobody wants them
        backward = self._makes(of_x, *of_parameters, first=first)
        if of_cudnn:
            backward = self._makes(x.size, *of_all)
        elif adds_apart:
            sums = channel_sums(x.shape[0], elements(x.shape[1:]), 2 * wide)

            def backward(_: Storage) -> Gradients:
                temporaries = [self.new(*size) for size in (*first, of_channel, of_channel)]
                others = [self.new(*size) for size in of_all]
                scratch = self.scratch(sums)
                self.note()
                self.release(*scratch)
                made = self.new(*of_x) if of_x else None
                self.note()
                self.release(*temporaries)
                return [made, *others]

        if not statistics and not by_cudnn:
            extras = [of_channel, of_channel]
        is_flat = not by_cudnn and statistics and elements(x.shape[1:]) == 1
        sums_of_x = channel_sums(x.shape[0], 1, 4 * wide) if is_flat else None
        return self._normalize(x, parameters, extras, backward, sums=sums_of_x)

    def group_norm(self, x: Tensor, parameters: dict[str, Parameter], statistics: Sequence[Kept]) -> Tensor:
        """Run a group normalisation; the arguments are those of `batch_norm`."""
        weight = parameters.get("weight")
        extras = self._statistics(x, statistics, x.element_bytes)
        if self.device == "cpu":
            # fake tensors run the backward pass as separate operations
            mixed = weight is not None and weight.element_bytes != x.element_bytes
            wide = WIDE if mixed else x.element_bytes
            backward = self._makes(x.cast_size(wide) if x.edge else None, *_wanted(parameters))
            return self._normalize(x, parameters, extras, backward, self._casts_back(x, wide))
        # aten/src/ATen/native/cuda/group_norm_kernel.cu
        wide = max(x.element_bytes, WIDE)
        of_group, of_channel = (elements(statistics[0].shape) * wide, 0), (x.shape[0] * wide, 0)
        is_flat = elements(x.shape[1:]) == 1
        temporaries = [of_group, of_group] if x.element_bytes < WIDE else []
        if weight and not is_flat:
            temporaries += [of_channel, of_channel]
        of_x = x.size if x.edge else None
        sums = [] if is_flat else [of_channel, of_channel]
        if of_x:
            sums += [of_group, of_group, *([of_channel] if weight and not is_flat else [])]
        backward = self._makes(of_x, *_wanted(parameters), last=sums)
        return self._normalize(x, parameters, extras, backward, temporaries=temporaries)

    def _statistics(self, x: Tensor, statistics: Sequence[Kept], element_bytes: int) -> list[tuple[int, int]]:
        """Return the bytes per image and constant bytes of each; note where torch refuses to compute one."""
        sizes = []
        for kept in statistics:
            if self.batch * elements(x.shape) == elements(kept.shape):  # torch/nn/functional.py, _verify_batch_size
                self.refused.append(self._layer)
            size = elements(kept.shape) * element_bytes
            sizes.append((size, 0) if kept.per_image else (0, size))
        return sizes

    def _normalize(
        self,
        x: Tensor,
        parameters: dict[str, Parameter],
        extras: Sequence[tuple[int, int]],
        backward: Backward,
        adjust: Callable[[Storage, Gradients], Gradients] | None = None,
        temporaries: Sequence[tuple[int, int]] = (),
        sums: PartialSums | None = None,
    ) -> Tensor:
        keeps: list[Tensor | Parameter] = [x, *([parameters["weight"]] if "weight" in parameters else [])]
        y = self.op(
            x,
            *parameters.values(),
            keeps=keeps,
            extras=extras,
            temporaries=temporaries,
            sums=sums,
            backward=backward,
            adjust=adjust,
        )
        if y.node is not None and not extras:
            self.keep(y.node, NOTHING)
        return y

    def softmax(self, x: Tensor) -> Tensor:
        """Run soft-max y; on CUDA its gradient needs g · y (aten/src/ATen/native/cuda/SoftMax.cu)."""
        scores, cast = self.raise_precision(x, only_on="cuda")
        product = [scores.size] if self.device == "cuda" else []
        y = self.op(scores, keeps_output=True, backward=self._makes(scores.size, last=product))
        self.release(cast)
        return y

    def add_number(self, x: Tensor) -> Tensor:
        """Run x + number, whose gradient is the output's own."""
        return self.op(x, backward=lambda gradient: [self.hold(gradient)])

    def power(self, x: Tensor) -> Tensor:
        """Run x ** number; its gradient is g · (exponent · x ** (exponent − 1))."""

        def backward(_: Storage) -> Gradients:
            power, product, made = self.new(*x.size), self.new(*x.size), self.new(*x.size)
            self.note()
            self.release(power, product)
            return [made]

        return self.op(x, keeps=(x,), backward=backward)

    def divide(self, x: Tensor, divisor: Tensor) -> Tensor:
        """Run x / divisor; the divisor's gradient, −g · ((x / divisor) / divisor), is made first."""
        wide = divisor.element_bytes
        size = x.cast_size(wide)

        def backward(_: Storage) -> Gradients:
            temporaries = [self.new(*size) for _ in range(3)]
            of_divisor = self.new(*size)
            self.note()
            self.release(*temporaries)
            of_x = self.new(*size)
            self.note()
            return [of_x, of_divisor]

        adjust = self._casts_back(x, wide)
        return self.op(x, divisor, element_bytes=wide, keeps=(x, divisor), backward=backward, adjust=adjust)

    def pad_circular(self, x: Tensor, shape: Shape, pads: tuple[int, int]) -> Tensor:
        """Pad with values from the opposite side as torch does: into a new tensor, slices are copied one by one."""
        whole = elements(shape) * x.element_bytes
        storage = self.new(whole)
        self.note()
        node: Node | None = None
        if self.autograd and x.edge is not None:
            first = self._slice(x.edge, x.size[0])
            node = self._copy_slice(whole, x.size[0], None, self._slice(first, x.size[0]))
            rows = shape[0] * shape[1] * pads[1] * x.element_bytes
            columns = shape[0] * pads[0] * shape[2] * x.element_bytes
            for size in filter(None, (rows, rows, columns, columns)):
                node = self._copy_slice(whole, size, node, self._slice(node, whole))
        return Tensor(storage, shape, x.element_bytes, node)

    def _slice(self, edge: Edge, size: int) -> Node:
        """Record a slice, whose gradient has the size of the whole."""
        node = self.node([edge])
        assert node is not None
        node.backward = self._makes((size, 0))
        return node

    def _copy_slice(self, whole: int, size: int, before: Node | None, source: Node) -> Node:
        """Record a copy into a slice: its gradients are the whole with the slice set to zero, and the slice's."""

        def backward(_: Storage) -> Gradients:
            of_whole, of_slice = self.new(whole), self.new(size)
            self.note()
            if before is not None:
                zeros = self.new(size)
                self.note()
                self.release(zeros)
            return [of_whole, of_slice]

        node = self.node([before, source])
        assert node is not None
        node.backward = backward
        return node


def _wanted(parameters: dict[str, Parameter]) -> list[tuple[int, int] | None]:
    """Return the sizes of the gradients of parameters, None where none is wanted."""
    return [parameter.size if parameter.edge else None for parameter in parameters.values()]
