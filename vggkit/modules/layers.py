"""A torch module → the layer that builds such a module: the fields of a kind have torch's names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from vggkit.notation.layers import KINDS, Flatten, Layer, Shape
from vggkit.notation.spelling import fields, typed


class _Traits(NamedTuple):
    """Everything that defines a module except its values."""

    kind: type[nn.Module]
    settings: dict[str, Any]
    tensors: dict[str, Shape]
    children: tuple[_Traits, ...]


def _traits(module: nn.Module) -> _Traits:
    settings = {
        name: _collapsed(value) for name, value in vars(module).items() if name[0] != "_" and name != "training"
    }
    tensors = {name: tuple(tensor.shape) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    return _Traits(type(module), settings, tensors, tuple(map(_traits, module.children())))


def _collapsed(value: Any) -> Any:
    """Return a pair of equal sizes as one, and a list as a tuple: torch takes either."""
    if not isinstance(value, (list, tuple)):
        return value
    sizes = tuple(value)
    alike = bool(sizes) and all(isinstance(size, int) and size == sizes[0] for size in sizes)
    return sizes[0] if alike else sizes


@lru_cache(1024)
def _built(layer: Layer, x: Shape) -> _Traits:
    with unset_fake_temporarily(), torch.device("meta"):
        return _traits(layer.module(x, nn))


def _same_kind(found: type[nn.Module], built: type[nn.Module]) -> bool:
    if issubclass(found, nn.SyncBatchNorm):  # a batch norm whose batch is that of all processes
        return issubclass(built, nn.modules.batchnorm._BatchNorm)
    return issubclass(found, built) and found.forward is built.forward


def _alike(found: _Traits, built: _Traits) -> bool:
    """Tell whether a layer builds this module; a tool may have replaced its class by a subclass."""
    return (
        _same_kind(found.kind, built.kind)
        and "forward" not in found.settings
        and all(name in found.settings and found.settings[name] == built.settings[name] for name in built.settings)
        and found.tensors == built.tensors
        and len(found.children) == len(built.children)
        and all(map(_alike, found.children, built.children))
    )


def builds(layer: Layer, x: Shape, module: nn.Module) -> bool:
    """Tell whether a layer builds such a module.

    Args:
        layer: the layer.
        x: the shape of its input.
        module: the module; its values don't matter.
    """
    return _alike(_traits(module), _built(layer, x))


def layer_of(module: nn.Module, x: Shape) -> Layer | None:
    """Return the layer that builds such a module, with the fewest options; None if no layer does.

    Args:
        module: the module.
        x: the shape of its input.
    """
    found = _traits(module)
    for kind in sorted(KINDS, key=lambda kind: len(kind.__struct_fields__)):
        with suppress(TypeError, ValueError):  # it is another kind's module, or has what no layer has
            layer = kind(**dict(_fields(kind, module)))
            if _alike(found, _built(layer, x)):
                return _plainest(layer, found, x)
    turned = Flatten("hwc")  # several modules, none of which says the order
    return turned if len(x) == 3 and _alike(found, _built(turned, x)) else None


def _plainest(layer: Layer, found: _Traits, x: Shape) -> Layer:
    """Return a layer with the defaults that make no difference: a padding of 1 is `same` for a kernel of 3."""
    for field in fields(type(layer)).values():
        if not field.required and getattr(layer, field.name) != field.default:
            plainer = replace(layer, **{field.name: field.default})
            with suppress(ValueError):  # a default that does not fit this input
                layer = plainer if _alike(found, _built(plainer, x)) else layer
    return layer


def _fields(kind: type[Layer], module: nn.Module) -> Iterator[tuple[str, Any]]:
    for field in fields(kind).values():
        if field.name in module._parameters:
            yield field.name, module._parameters[field.name] is not None
        elif hasattr(module, field.name):
            yield field.name, typed(_collapsed(getattr(module, field.name)), field.type)
