"""The tensors of a file → weight layers in order, whatever their names, axes and wrapping; and back to names.

PyTorch's convolutions are out × in × height × width and its FC layers out × in; Keras's are height × width × in × out
and in × out, and its flattened maps run over height, width, channels. From here on all are as PyTorch's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from vggkit.base.errors import CheckpointError, escaped, shorten
from vggkit.model.weights.container import CONFIG_KEY, MOST_NAME, Container, Hdf5, Stored
from vggkit.model.weights.keras_layers import MOST_LAYERS, KerasLayers, keras_layers
from vggkit.notation.layers import Shape, elements

if TYPE_CHECKING:
    import torch

Kind = Literal["conv", "fc", "norm", "other"]

LAYOUTS = ("torchvision", "timm", "keras", "keras3", "vggkit")
"""The layouts that can be written: Keras's legacy .h5 and its own .weights.h5 are two."""


class Reorder(NamedTuple):
    """How flattened maps are put into another order.

    Args:
        maps: channels × height × width, before they are flattened.
        order: the wanted one, chw as PyTorch's or hwc as Keras's; there is no third.
    """

    maps: Shape
    order: Literal["chw", "hwc"]


class StoredLayer(msgspec.Struct, frozen=True):
    """A layer's tensors in a file, not read yet.

    Args:
        name: in the file's words, without what wraps all of them.
        kind: what the shapes tell that it is.
        tensors: by torch's names (weight, bias, running_mean, …).
        shapes: the same in torch's order of axes; an FC layer that is kept as a convolution is flat.
        axes: whose order of axes the file has.
        maps: channels × height × width of what an FC layer takes, if it is kept as a convolution.
    """

    name: str
    kind: Kind
    tensors: dict[str, Stored]
    shapes: dict[str, Shape]
    axes: Literal["torch", "keras"] = "torch"
    maps: Shape | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """An open file whose layers are known.

    Args:
        container: the file.
        layout: one of LAYOUTS, or "PyTorch" for other names.
        layers: those with tensors, in order.
        others: names of layers without any, where the file has them: pools, flatten.
        ordered: whether the file itself says the order.
        described: what a description of the model in the file says.
    """

    container: Container
    layout: str
    layers: tuple[StoredLayer, ...]
    others: tuple[str, ...] = ()
    ordered: bool = True
    described: KerasLayers = KerasLayers()

    @property
    def path(self) -> str:
        """The file, as the user gave it."""
        return self.container.path

    @property
    def says_something(self) -> bool:
        """Whether the file says of itself what its network is."""
        return CONFIG_KEY in self.container.metadata or bool(self.described.layers)

    def read(self, layer: StoredLayer, role: str, shape: Shape, reorder: Reorder | None) -> torch.Tensor:
        """Read a tensor of a layer in torch's order of axes.

        Args:
            layer: whose.
            role: torch's name: weight, bias, running_mean, …
            shape: the wanted one, of as many elements.
            reorder: how flattened maps, the tensor's inputs, are reordered; None leaves their order.
        """
        tensor = self.container.read(layer.tensors[role].name)
        if layer.axes == "keras" and tensor.ndim > 1:
            tensor = _from_keras(tensor, reorder.maps if reorder else None)
        elif reorder is not None:
            tensor = reordered(tensor, reorder)
        return tensor.reshape(shape)


def reordered(tensor: torch.Tensor, reorder: Reorder) -> torch.Tensor:
    """Put flattened maps into another order.

    Args:
        tensor: a value for each of theirs, or units with so many each.
        reorder: the maps and the order.
    """
    channels, height, width = reorder.maps
    if reorder.order == "chw":
        return tensor.reshape(-1, height, width, channels).permute(0, 3, 1, 2).reshape(tensor.shape)
    return tensor.reshape(-1, channels, height, width).permute(0, 2, 3, 1).reshape(tensor.shape)


def _from_keras(tensor: torch.Tensor, maps: Shape | None) -> torch.Tensor:
    """Reorder Keras's axes, in new memory, one position of the maps at a time."""
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    if maps is None:
        return tensor.T.contiguous() if tensor.ndim == 2 else tensor
    channels, height, width = maps
    return tensor.view(height, width, channels, -1).permute(3, 2, 0, 1).reshape(tensor.shape[1], -1)


def to_keras(tensor: torch.Tensor, maps: Shape | None) -> torch.Tensor:
    """Reorder torch's axes to Keras's: the inverse of reading.

    Args:
        tensor: a weight in torch's order, or what a normalisation has for each value.
        maps: channels × height × width whose values it takes in PyTorch's order; None if it takes none, or in Keras's.
    """
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 1, 0).contiguous()
    if maps is None:
        return tensor.T.contiguous() if tensor.ndim == 2 else tensor
    channels, height, width = maps
    return tensor.view(-1, channels, height, width).permute(2, 3, 1, 0).reshape(-1, *tensor.shape[:-1])


def checkpoint_of(container: Container) -> Checkpoint:
    """Find the layers of an open file.

    Raises:
        CheckpointError: if it has none.
    """
    checkpoint = _hdf5(container) if isinstance(container, Hdf5) else _state_dict(container)
    if not any(layer.kind in ("conv", "fc") for layer in checkpoint.layers):
        names = ", ".join(list(container.tensors)[:3]) or "no tensor at all"
        raise CheckpointError(f"{container.path}: expected weights of convolutions or FC layers, found {names}")
    return checkpoint


# PyTorch's and ours

WRAPPINGS = ("module.", "_orig_mod.")
ROLES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _state_dict(container: Container) -> Checkpoint:
    groups: dict[str, dict[str, Stored]] = {}
    strip = _wrapping(container.tensors)
    for name, stored in container.tensors.items():
        layer, _, role = name[len(strip) :].rpartition(".")
        groups.setdefault(layer, {})[role] = stored
    layout = _torch_layout(groups, CONFIG_KEY in container.metadata)
    names = list(groups) if container.ordered else sorted(groups, key=_natural_place)
    layers = [_torch_layer(name, groups[name], layout) for name in names]
    return Checkpoint(container, layout, tuple(layers), ordered=container.ordered or layout != "PyTorch")


def _wrapping(names: Iterable[str]) -> str:
    """Return the prefix, of those that wrappers add, that all names have."""
    wrappings = [_wrapped(name) for name in names]
    return _wrapped(os.path.commonprefix(wrappings))  # noqa: RUF071  # these are no paths


def _wrapped(name: str) -> str:
    match = re.match("|".join(map(re.escape, WRAPPINGS)).join(("(?:", ")*")), name)
    return match[0] if match else ""


def _torch_layout(groups: Iterable[str], configured: bool) -> str:
    names = [name for name in groups if name]
    if any(re.fullmatch(r"pre_logits\.fc\d|head\.fc", name) for name in names):
        return "timm"
    if names and all(re.fullmatch(r"(features|classifier)\.\d+", name) for name in names):
        return "torchvision"
    if configured or all(re.match(r"block\d+\.|(fc|norm)\d+$|predictions$", name) for name in names):
        return "vggkit"
    return "PyTorch"


def _torch_layer(name: str, tensors: dict[str, Stored], layout: str) -> StoredLayer:
    shapes = {role: stored.shape for role, stored in tensors.items()}
    kind, maps = _kind(shapes), None
    if layout == "timm" and name.startswith("pre_logits.") and len(shapes.get("weight", ())) == 4:
        kind, maps = "fc", shapes["weight"][1:]
        shapes["weight"] = (shapes["weight"][0], elements(maps))
    return StoredLayer(name, kind, tensors, shapes, maps=maps)


def _kind(shapes: dict[str, Shape]) -> Kind:
    weight = shapes.get("weight")
    if not set(shapes) <= set(ROLES):
        return "other"
    if weight is None:
        return "norm" if "running_mean" in shapes else "other"
    kinds: dict[int, Kind] = {4: "conv", 2: "fc", 1: "norm"}
    return kinds.get(len(weight), "other")


_PLACES = {"features": 0, "block": 0, "pre_logits": 1, "head": 2}


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts features.10 behind features.9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d{1,18}|\D+", name)]


def _natural_place(name: str) -> tuple[int, list[tuple[int, int, str]]]:
    first = re.match(r"[a-z_]*", name.split(".")[0])
    return _PLACES.get(first.group() if first else "", 1), natural(name)


# Keras's

_KERAS_ROLES = (
    ("weight", r"kernel|gamma|.*_W(_\d+)?"),
    ("bias", r"bias|beta|.*_b(_\d+)?"),
    ("running_mean", r"moving_mean|running_mean"),
    ("running_var", r"moving_var(iance)?|running_(var|std)"),
    ("num_batches_tracked", r"num_batches_tracked"),
)


def _hdf5(container: Hdf5) -> Checkpoint:
    roots = [path for path in ("/", "model_weights") if container.attribute(path, "layer_names") is not None]
    return _legacy(container, roots[0].strip("/")) if roots else _keras3(container)


def _own_name(container: Hdf5, path: str, otherwise: str) -> str:
    """Return the name that Keras 3 keeps as an attribute of a layer's variables."""
    said = container.attribute(path, "name")
    return otherwise if said is None else _plain(container, str(said))


def _words(container: Hdf5, path: str, attribute: str) -> list[str]:
    """Return a list of names that an attribute holds."""
    said = container.attribute(path or "/", attribute)
    with container.reading():
        words = [] if said is None else [word.decode() if isinstance(word, bytes) else str(word) for word in said]
    if len(words) > MOST_LAYERS or len({*words}) < len(words):
        raise CheckpointError(
            f"{container.path}: {attribute}: expected up to {MOST_LAYERS:,} names, each once, found {len(words):,}"
        )
    return [_plain(container, word) for word in words]


def _plain(container: Hdf5, name: str) -> str:
    """Return a name that an attribute holds, if it is as short and plain as a tensor's."""
    if len(name) > MOST_NAME or name != escaped(name):
        raise CheckpointError(f"{container.path}: expected a layer's name, found {escaped(shorten(name))}")
    return name


def _legacy(container: Hdf5, root: str) -> Checkpoint:
    """Read the layout of keras.applications: a group per layer, and attributes that list them in order."""
    layers: list[StoredLayer] = []
    others: list[str] = []
    inside = _by_groups(container.tensors)
    for name in _words(container, root, "layer_names"):
        path = f"{root}/{name}" if root else name
        weights = [f"{path}/{weight}" for weight in _words(container, path, "weight_names")]
        order = [weight for weight in weights if weight in container.tensors] or list(inside.get(path, ()))
        counted = {*order}
        order += [t for t in inside.get(path, ()) if t not in counted and t.endswith("num_batches_tracked")]
        groups: dict[str, dict[str, Stored]] = {}
        for tensor in order:
            owner, _, last = tensor.rpartition("/")
            owner = name if _is_own(owner, path, name) else owner.removeprefix(f"{path}/")
            role = _keras_role(last.removesuffix(":0"))
            groups.setdefault(owner, {})[role] = container.tensors[tensor]
        layers += [_keras_layer(owner, tensors) for owner, tensors in groups.items()]
        if not groups:
            others.append(name)
    described = keras_layers(container.description())
    return Checkpoint(container, "keras", tuple(layers), tuple(others), described=described)


def _by_groups(tensors: Iterable[str]) -> dict[str, list[str]]:
    """Return the tensors in each group, those in the groups inside it too."""
    inside: dict[str, list[str]] = {}
    for tensor in tensors:
        path = tensor
        while path := path.rpartition("/")[0]:
            inside.setdefault(path, []).append(tensor)
    return inside


def _is_own(owner: str, path: str, name: str) -> bool:
    """Tell whether a tensor belongs to the layer of its group, and not to one of a model inside that."""
    return owner == path or owner.rpartition("/")[2] == name or owner.count("/") == path.count("/")


def _keras_role(word: str) -> str:
    return next((role for role, pattern in _KERAS_ROLES if re.fullmatch(pattern, word)), word)


def _keras_layer(name: str, tensors: dict[str, Stored]) -> StoredLayer:
    shapes: dict[str, Shape] = {role: stored.shape for role, stored in tensors.items()}
    weight = shapes.get("weight", ())
    if len(weight) == 4:
        shapes["weight"] = (weight[3], weight[2], weight[0], weight[1])
    if len(weight) == 2:
        shapes["weight"] = (weight[1], weight[0])
    return StoredLayer(name, _kind(shapes), tensors, shapes, axes="keras")


_CLASSES: dict[str, tuple[str, ...]] = {
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
    "group_normalization": ("weight", "bias"),
}


def _keras3(container: Hdf5) -> Checkpoint:
    """Read Keras 3's layout: `layers/CLASS_NUMBER/vars/0`, the layer's own name as an attribute."""
    groups: dict[str, list[Stored]] = {}
    for tensor, stored in container.tensors.items():
        owner, _, last = tensor.rpartition("/")
        if owner.startswith(("layers/", "_layer_checkpoint_dependencies/")) and owner.endswith("/vars"):
            groups.setdefault(owner, []).append(stored)
        elif last == "num_batches_tracked":
            groups.setdefault(f"{owner}/vars", []).append(stored)
    described = keras_layers(container.description())
    said = described.names
    layers = []
    series: dict[Kind, set[str]] = {}
    for owner in sorted(groups, key=natural):
        name = _own_name(container, owner, owner.removesuffix("/vars").rpartition("/")[2])
        counts = [stored for stored in groups[owner] if stored.name.endswith("num_batches_tracked")]
        values = sorted((s for s in groups[owner] if s not in counts), key=lambda stored: natural(stored.name))
        if not all(stored.dtype.startswith(("float", "bfloat")) for stored in values):
            continue  # the state of a random generator
        tensors = dict(zip(_roles(owner, values), values))
        if counts:
            tensors["num_batches_tracked"] = counts[0]
        layers.append(_keras_layer(name, tensors))
        series.setdefault(layers[-1].kind, set()).add(re.sub(r"(_\d+)?/vars$", "", owner))
    numbered = all(len(classes) == 1 for classes in series.values())  # each class in the model's order
    names = [_own_name(container, path, "") for path in _empty_groups(container, groups)]
    if said:
        places = {name: place for place, name in reversed([*enumerate(said)])}
        layers.sort(key=lambda layer: places.get(layer.name, len(said)))
        names.sort(key=lambda name: places.get(name, len(said)))
    others = tuple(filter(None, names))
    return Checkpoint(container, "keras3", tuple(layers), others, bool(said) or numbered, described)


def _roles(owner: str, values: Sequence[Stored]) -> tuple[str, ...]:
    kind = re.sub(r"_\d+$", "", owner.removesuffix("/vars").rpartition("/")[2])
    usual = _CLASSES.get(kind) or (ROLES[:2] if len(values) <= 2 else ROLES[:4])
    return usual if len(values) <= len(usual) else tuple(str(number) for number in range(len(values)))


def _empty_groups(container: Hdf5, taken: Iterable[str]) -> list[str]:
    found: list[str] = []
    with container.reading():
        container.file.visit(lambda name: found.append(name) if name.endswith("/vars") else None)
    taken = set(taken)
    return [path for path in found if path not in taken and path.count("/") > 1]
