"""A torch module → the operations that run from its image to its output, told by running it on tensors without values.

Nothing of the module is changed: while it runs, its tensors are replaced by ones without values, and everything else
that a run may set is put back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, resolve_name

from vggkit.base.errors import ArgumentError, LayerError, shorten
from vggkit.base.shapes import Shape, times
from vggkit.modules.steps import Called, chain, local_response_norm

BATCH = 2
"""Images in a run. With more than one, what mixes them up or drops their dimension shows."""

MOST_OPERATIONS = 10_000
"""More than any chain of a configuration's size has; a module that never ends has more."""

HANDED_ON = {
    getattr(Tensor, word)
    for word in ("clone", "contiguous", "detach", "double", "float", "half", "bfloat16", "to", "type_as")
}
"""What returns the values as they are, unless it changes their dtype."""


def public(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method or function that does what an operation of an exported graph does; any other as it is."""
    if not isinstance(function, OpOverload) or function.namespace != "aten":
        return function
    word = function._opname
    known: Callable[..., Any] = getattr(Tensor, word, getattr(torch, word, function))
    return known


WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
"""Modules that run another one, `module`, in several places."""


class Given:
    """Stands for the output of the step before, in the arguments of a step."""


class Step(NamedTuple):
    """An operation on a value that comes from the image.

    Args:
        path: of the module that does it; empty for the outermost.
        function: what is called: a module of `torch.nn`, or a function.
        args: with `Given` for the value.
        kwargs: the same.
        sources: the numbers of the values that it takes: 0 for the image, n for the output of the n-th step.
        input_shape: of the first of them.
        output_shape: of what it returns; None if that is not one tensor of the same dtype.
        stale: whether one of the values had been overwritten.
    """

    path: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    sources: tuple[int, ...]
    input_shape: Shape
    output_shape: Shape | None
    stale: bool

    @property
    def name(self) -> str:
        """What it is called, with its place."""
        if isinstance(self.function, nn.Module):
            return f"{self.path} ({type(self.function).__name__})" if self.path else type(self.function).__name__
        called = resolve_name(self.function) or getattr(self.function, "__name__", "a function")
        return f"{called} in {self.path}" if self.path else called


def bare(module: nn.Module) -> nn.Module:
    """Return the module inside torch.compile's wrapper and those that run it in several places."""
    while True:
        inner = module.module if isinstance(module, WRAPPERS) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def trace(module: nn.Module, image: Shape) -> list[Step]:
    """Run a module in evaluation mode on images without values; return the steps from the image to its output.

    Args:
        module: without wrappers.
        image: the shape of one image.

    Raises:
        ArgumentError: if it can't be run, or what runs is no chain.
    """
    for path, part in module.named_modules():
        _check_runnable(path or "it", part)
    tensors = [*module.parameters(), *module.buffers()]
    fake = next((tensor.fake_mode for tensor in tensors if isinstance(tensor, FakeTensor)), None)
    mode = fake or FakeTensorMode(allow_non_fake_inputs=True)
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    with _without_values(module, mode) as real:
        recorder = _Recorder(real)
        with recorder.following(module), _quiet(), torch.inference_mode(False), torch.no_grad(), mode:
            output = recorder.run(module, image, first)
        number = recorder.number_of(output)
    try:
        return chain(_joined(recorder.steps), number)
    except LayerError as error:
        raise ArgumentError(f"model: {error}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what an operation without values refuses; an error says it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _check_runnable(path: str, module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise ArgumentError(
            f"model: {path} is TorchScript, which is not followed; expected the module it was made of, or its file in"
            " import_config"
        )
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and is_lazy(tensor):
            raise ArgumentError(f"model: the size of {path}.{name} is not known yet; run the model once on an image")


@contextmanager
def _without_values(module: nn.Module, mode: FakeTensorMode) -> Iterator[dict[int, Tensor]]:
    """Give a module tensors without values, no hooks for gradients and no wrappers inside; put all back in the end.

    Yields:
        The tensors that it really has, by the ids of those that stand for them.
    """
    before = [
        (part, type(part), [(held, held.copy()) for held in (vars(part), *vars(part).values()) if _is_filled(held)])
        for part in module.modules()
    ]
    stand_ins: dict[int, Tensor] = {}
    real: dict[int, Tensor] = {}
    try:
        for part, _, _ in before:
            held_tensors: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for tensors in held_tensors:
                for name, tensor in tensors.items():
                    if tensor is not None:
                        stand_in = stand_ins.setdefault(id(tensor), mode.from_tensor(tensor))
                        tensors[name] = stand_in
                        real[id(stand_in)] = tensor
            for name, child in part._modules.items():
                part._modules[name] = child if child is None else bare(child)
            part._backward_hooks.clear()
            part._backward_pre_hooks.clear()
            part._compiled_call_impl = None
            part.training = False
        yield real
    finally:
        for part, kind, filled in before:
            for held, values in filled:
                held.clear()
                held.extend(values) if isinstance(held, list) else held.update(values)
            part.__class__ = kind


def _is_filled(value: Any) -> bool:
    """Tell whether a value is a collection that a run may change: of tensors, children, hooks, or a module's own."""
    return isinstance(value, (dict, list, set))


def _is_whole(module: nn.Module) -> bool:
    """Tell whether a module is one of torch's own, which is read as a whole; others are followed inside."""
    replaced = (name for name, value in vars(module).items() if callable(value) and hasattr(type(module), name))
    return (
        type(module).__module__.startswith("torch.nn.modules.")
        and next(replaced, None) is None
        and next(module.children(), None) is None
    )


class _Value(NamedTuple):
    number: int
    version: int


class _Recorder(TorchFunctionMode):
    """Notes every operation on a value that comes from the image.

    Args:
        real: the tensors that a module has, by the ids of those that stand for them.
    """

    def __init__(self, real: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.real = real
        self.steps: list[Step] = []
        self.values: dict[int, _Value] = {}
        self.alive: list[Tensor] = []  # no other tensor gets the id of one of these
        self.paths = [""]
        self.whole: nn.Module | None = None  # one of torch's that runs right now

    def run(self, module: nn.Module, image: Shape, like: Tensor) -> Any:
        """Run a module, and turn whatever it raises into one line.

        Args:
            module: the module.
            image: the shape of one image.
            like: a tensor with the images' dtype and device.
        """
        try:
            images = torch.empty(BATCH, *image, dtype=like.dtype, device=like.device)
            self.note(0, images)
            with self:
                return module(images)
        except ArgumentError:
            raise
        except DataDependentOutputException as error:
            raise ArgumentError(
                f"model: {self.place} reads values of its images ({error.func}); a network here does the same for all"
            ) from None
        except Exception as error:  # a stranger's module can raise anything
            said = shorten(" ".join(str(error).split()), 120)
            raise ArgumentError(
                f"model: {self.place} can't run on {BATCH} images of {times(image)}: {type(error).__name__}: {said};"
                " input= gives the shape of one image"
            ) from None

    @property
    def place(self) -> str:
        """The module that runs right now."""
        return self.paths[-1] or "it"

    @contextmanager
    def following(self, module: nn.Module) -> Iterator[None]:
        """Know which of a module's parts runs. What other hooks do before or after a part is not part of it."""
        handles = []
        for path, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(self._entering(path), with_kwargs=True))
            handles.append(part.register_forward_hook(self._left, with_kwargs=True, prepend=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.paths.append(path)
            if self.whole is None and _is_whole(module):
                self.whole = module
                self.entry = self.sources(args, kwargs)

        return enter

    def _left(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.whole is module:
            self.whole = None
            self.add(module, args, kwargs, output, *self.entry)
        self.paths.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.whole is not None:
            return func(*args, **(kwargs or {}))
        taken, stale = self.sources(args, kwargs or {})
        output = func(*args, **(kwargs or {}))
        self.add(func, args, kwargs or {}, output, taken, stale)
        return output

    def sources(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Tensor], bool]:
        """Return the tensors among arguments that come from the image, and whether one of them was overwritten."""
        taken = [tensor for tensor in _tensors([args, kwargs]) if id(tensor) in self.values]
        return taken, any(tensor._version != self.values[id(tensor)].version for tensor in taken)

    def add(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        output: Any,
        taken: Sequence[Tensor],
        stale: bool,
    ) -> None:
        """Note a step, if it makes tensors of what comes from the image."""
        made = _tensors([output])
        if not taken or not made:
            return
        source = taken[0]
        same = output is made[0] and output.dtype == source.dtype
        sources = tuple(self.values[id(tensor)].number for tensor in taken)
        if public(function) in HANDED_ON and same and len(taken) == 1 and not stale:
            self.note(sources[0], output)
            return
        if len(self.steps) >= MOST_OPERATIONS:
            raise ArgumentError(f"model: {self.place}: expected at most {MOST_OPERATIONS:,} operations, found more")
        shape = tuple(output.shape) if same else None
        settled = [self.settled(value) for value in args], {word: self.settled(value) for word, value in kwargs.items()}
        path = self.paths[-1]
        step = Step(path, function, tuple(settled[0]), settled[1], sources, tuple(source.shape), shape, stale)
        self.steps.append(step)
        for tensor in made:
            self.note(len(self.steps), tensor)

    def settled(self, value: Any) -> Any:
        """Return an argument of a step as it is outside the run."""
        if not isinstance(value, Tensor):
            return value
        return Given if id(value) in self.values else self.real.get(id(value), value)

    def note(self, number: int, tensor: Tensor) -> None:
        """Note that a tensor now has a value that comes from the image."""
        self.values[id(tensor)] = _Value(number, tensor._version)
        self.alive.append(tensor)

    def number_of(self, output: Any) -> int:
        """Return which value the output is.

        Raises:
            ArgumentError: if it is not one tensor that comes from the image.
        """
        if not isinstance(output, Tensor):
            raise ArgumentError(f"model: expected one tensor as its output, found {shorten(type(output).__name__)}")
        value = self.values.get(id(output))
        if value is None or value.version != output._version:
            raise ArgumentError("model: its output is not computed from its image by operations that can be followed")
        return value.number


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """Return the tensors in nested values, in order."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
        elif isinstance(value, Mapping):
            found += _tensors(list(value.values()))
    return found


def _joined(steps: Sequence[Step]) -> list[Step]:
    """Return steps in which a function that an exported graph has as several operations is one."""
    called = [_operation(step) for step in steps]
    found = [*steps]
    for number, step in enumerate(steps, start=1):
        if together := local_response_norm(called, number):
            source, shape, args = together
            found[number - 1] = step._replace(
                function=functional.local_response_norm,
                args=(Given, *args),
                kwargs={},
                sources=(source,),
                input_shape=shape,
            )
    return found


def _operation(step: Step) -> Called | None:
    """Return the operation of ATen that a step is; None if it is none."""
    if not isinstance(step.function, OpOverload):
        return None
    args = tuple(arg for arg in step.args if arg is not Given)
    return Called(step.function._opname, args, step.sources, step.input_shape)
