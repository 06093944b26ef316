"""The layouts of checkpoints, a class each: how to recognise one, read it, name its layers and write it."""

from __future__ import annotations

import io
import os
import re
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ClassVar

from vggkit.base.errors import CheckpointError, escaped, shorten
from vggkit.exchange.keras.description import MOST_LAYERS, KerasLayer, keras_layers
from vggkit.exchange.keras.kinds import KERAS_KINDS
from vggkit.model.weights.checkpoint import Checkpoint, Export, Flattened, Layout, StoredKind, StoredLayer, reordered
from vggkit.model.weights.container import (
    CONFIG_KEY,
    MOST_NAME,
    Container,
    Exchanged,
    Hdf5,
    Stored,
    open_container,
    write_safetensors,
)
from vggkit.network import Network, all_names
from vggkit.notation.layers import Linear, Shape, elements

if TYPE_CHECKING:
    from torch import Tensor

ROLES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def open_checkpoint(path: str | os.PathLike[str], likely: Shape | None = None) -> Checkpoint:
    """Open a file with weights in it.

    Args:
        path: the file.
        likely: the shape of an image that its network may well be for, where it does not say it.

    Raises:
        CheckpointError: if it is no checkpoint, damaged, or would execute code.
    """
    checkpoint = checkpoint_in_container(open_container(path, likely))
    container = checkpoint.container
    if not any(layer.kind in ("conv", "fc") for layer in checkpoint.layers):
        names = ", ".join(list(container.tensors)[:3]) or "no tensor at all"
        raise CheckpointError(f"{container.path}: expected weights of convolutions or FC layers, found {names}")
    return checkpoint


def checkpoint_in_container(container: Container) -> Checkpoint:
    """Find the layers of an open file; there may be none.

    Raises:
        CheckpointError: if what the file says of them can't be read.
    """
    layouts = (ExchangedLayers(), *LAYOUTS.values(), PyTorchNames())
    return next(layout for layout in layouts if layout.recognises(container)).read(container)


def _kind(shapes: dict[str, Shape]) -> StoredKind:
    weight = shapes.get("weight")
    if not set(shapes) <= set(ROLES):
        return "other"
    if weight is None:
        return "norm" if "running_mean" in shapes else "other"
    kinds: dict[int, StoredKind] = {4: "conv", 2: "fc", 1: "norm"}
    return kinds.get(len(weight), "other")


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts features.10 behind features.9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d{1,18}|\D+", name)]


# PyTorch's and ours


class StateDict(Layout):
    """Names with tensors in PyTorch's order of axes, in a file of PyTorch or safetensors."""

    endings = (".pth", ".safetensors", ".pt", ".bin")
    default_endings: ClassVar[tuple[str, ...]] = ()
    norm_epsilon = None
    has_convolved_fc = True
    are_names_ordered = True
    """Whether its names say in which order the layers run."""
    places: ClassVar[dict[str, int]] = {"features": 0, "block": 0, "pre_logits": 1, "head": 2}
    """The order of a model's parts, by how their names begin; others stand in the middle."""

    def recognises(self, container: Container) -> bool:
        return not isinstance(container, Hdf5) and self.has_names([name for name in _layers(container) if name])

    @abstractmethod
    def has_names(self, names: Sequence[str]) -> bool:
        """Tell whether layers with tensors are called so in this layout."""

    def read(self, container: Container) -> Checkpoint:
        groups = _layers(container)
        names = list(groups) if container.ordered else sorted(groups, key=self.place)
        layers = tuple(self.layer(name, groups[name]) for name in names)
        return Checkpoint(container, self, layers, ordered=container.ordered or self.are_names_ordered)

    def place(self, name: str) -> tuple[int, list[tuple[int, int, str]]]:
        """Return a key that sorts layers as the model has them."""
        first = re.match(r"[a-z_]*", name.split(".")[0])
        return self.places.get(first.group() if first else "", 1), _natural(name)

    def layer(self, name: str, tensors: dict[str, Stored]) -> StoredLayer:
        """Return a layer of a file."""
        shapes = {role: stored.shape for role, stored in tensors.items()}
        return StoredLayer(name, _kind(shapes), tensors, shapes)

    def to_torch(self, tensor: Tensor, to: Flattened | None) -> Tensor:
        return tensor if to is None else reordered(tensor, to)

    def from_torch(self, tensor: Tensor, to: Flattened | None) -> Tensor:
        return self.to_torch(tensor, to)

    def state(self, export: Export) -> OrderedDict[str, Tensor]:
        """Read all tensors that are to be written."""
        return OrderedDict(
            (f"{layer.name}.{role}", read()) for layer in export.layers for role, read in layer.tensors.items()
        )

    def write(self, file: IO[bytes], ending: str, export: Export) -> None:
        import torch

        state, config = self.state(export), str(export.config)
        if ending == ".safetensors":
            write_safetensors(file, state, {"format": "pt", CONFIG_KEY: config})
            return
        # torch keeps a state dict's metadata when it saves it, and passes by what it doesn't know when it loads it
        state._metadata = {CONFIG_KEY: {"yaml": config}}  # type: ignore[attr-defined] # torch's own
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch can't end its archive where a write has failed
                raise error.__context__ from None
            raise


def _layers(container: Container) -> dict[str, dict[str, Stored]]:
    """Return the tensors of each layer, without what wrappers of the model put before all names."""

    def wrapping(name: str) -> str:
        found = re.match(r"(?:module\.|_orig_mod\.)*", name)
        return found[0] if found else ""

    common = wrapping(os.path.commonprefix([*map(wrapping, container.tensors)]))  # noqa: RUF071  # these are no paths
    groups: dict[str, dict[str, Stored]] = {}
    for name, stored in container.tensors.items():
        layer, _, role = name.removeprefix(common).rpartition(".")
        groups.setdefault(layer, {})[role] = stored
    return groups


class Torchvision(StateDict):
    """A state dict of torchvision's VGG."""

    name = "torchvision"
    title = "torchvision's state dict"
    library = "torchvision"
    preset = "torch"
    default_endings = (".pth", ".pt")
    order = "chw"
    is_indexed = True
    stretches_to = (7, 7)
    pattern = r"(features|classifier)\.\d+"
    """Of every layer's name."""

    def has_names(self, names: Sequence[str]) -> bool:
        return bool(names) and all(re.fullmatch(self.pattern, name) for name in names)

    def vocabularies(self, network: Network) -> list[list[str | None]]:
        return [[names.torchvision for names in all_names(network)]]


class Timm(StateDict):
    """A state dict of timm's VGG, whose first two FC layers are convolutions: over all maps, and 1×1."""

    name = "timm"
    title = "timm's state dict"
    library = "timm"
    preset = "timm"
    default_endings = (".bin",)
    order = "chw"
    is_indexed = True
    stretches_to = (7, 7)
    convolved = ("pre_logits.fc1", "pre_logits.fc2")
    head = (*convolved, "head.fc")

    def has_names(self, names: Sequence[str]) -> bool:
        return any(re.fullmatch(r"pre_logits\.fc\d|head\.fc", name) for name in names)

    def vocabularies(self, network: Network) -> list[list[str | None]]:
        head = iter(self.head)
        found: list[str | None] = []
        for placed, names in zip(network, all_names(network)):
            if placed.block is not None:
                found.append(names.torchvision)
            else:
                found.append(next(head, None) if placed.layer.is_weight_layer else None)
        return [found]

    def layer(self, name: str, tensors: dict[str, Stored]) -> StoredLayer:
        layer = super().layer(name, tensors)
        weight = layer.shapes.get("weight", ())
        if len(weight) != 4 or not name.startswith("pre_logits."):
            return layer
        shapes = {**layer.shapes, "weight": (weight[0], elements(weight[1:]))}
        return StoredLayer(name, "fc", tensors, shapes, maps=weight[1:])

    def check(self, export: Export) -> None:
        head = [layer for layer in export.layers if layer.tensors and layer.placed.block is None]
        plain = [layer for layer in head if isinstance(layer.placed.layer, Linear) and layer.placed.layer.bias]
        if head and (len(head) != len(self.head) or plain != head):
            raise CheckpointError(
                f"{export.path}: timm's layout has three FC layers with biases behind the blocks;"
                f" {export.config.name} has {', '.join(layer.placed.name for layer in head)}"
            )
        super().check(export)

    def state(self, export: Export) -> OrderedDict[str, Tensor]:
        state = super().state(export)
        for layer in export.layers:
            if layer.name in self.convolved:
                maps = layer.flattened.maps if layer.flattened else (layer.placed.input_shape[0], 1, 1)
                state[f"{layer.name}.weight"] = state[f"{layer.name}.weight"].reshape(-1, *maps)
        return state


class Vggkit(StateDict):
    """A state dict of vggkit's own model."""

    name = "vggkit"
    title = "vggkit's own names"
    library = "vggkit"
    preset = None
    default_endings = (".safetensors",)
    order = None
    is_indexed = False
    stretches_to = None

    def recognises(self, container: Container) -> bool:
        is_configured = not isinstance(container, Hdf5) and CONFIG_KEY in container.metadata
        return is_configured or super().recognises(container)

    def has_names(self, names: Sequence[str]) -> bool:
        return all(re.match(r"block\d+\.|(fc|norm)\d+$|predictions$", name) for name in names)

    def vocabularies(self, network: Network) -> list[list[str | None]]:
        return [[placed.module for placed in network]]


class ExchangedLayers(Vggkit):
    """The layers of a network in another tool's file. It is written by `vggkit.export`, not as a checkpoint."""

    title = "another tool's layers, by vggkit's names"

    def recognises(self, container: Container) -> bool:
        return isinstance(container, Exchanged)


class PyTorchNames(StateDict):
    """A state dict with names that are nobody's: perhaps ours, the authors' or Keras's. It is never written."""

    name = "PyTorch"
    title = "a state dict with other names"
    library = "PyTorch"
    preset = None
    order = None
    is_indexed = False
    stretches_to = None
    are_names_ordered = False

    def has_names(self, names: Sequence[str]) -> bool:
        return True

    def vocabularies(self, network: Network) -> list[list[str | None]]:
        known = all_names(network)
        return [[names.module for names in known], [names.authors for names in known], [names.name for names in known]]


# Keras's


class KerasFile(Layout):
    """Layers in an HDF5 file, in Keras's order of axes and of flattened maps."""

    library = "Keras"
    preset = "keras"
    order = "hwc"
    norm_epsilon = 0.001
    is_indexed = False
    stretches_to = None
    has_convolved_fc = False

    def vocabularies(self, network: Network) -> list[list[str | None]]:
        return [[placed.name for placed in network]]

    def layer(self, name: str, tensors: dict[str, Stored]) -> StoredLayer:
        """Return a layer of a file."""
        shapes: dict[str, Shape] = {role: stored.shape for role, stored in tensors.items()}
        weight = shapes.get("weight", ())
        if len(weight) == 4:
            shapes["weight"] = (weight[3], weight[2], weight[0], weight[1])
        if len(weight) == 2:
            shapes["weight"] = (weight[1], weight[0])
        return StoredLayer(name, _kind(shapes), tensors, shapes)

    def to_torch(self, tensor: Tensor, to: Flattened | None) -> Tensor:
        """In new memory, one position of the maps at a time."""
        import torch

        if tensor.ndim == 4:
            turned = tensor.permute(3, 2, 0, 1)
            # not contiguous(), which leaves strides to axes of one value as they are, for which kernels round otherwise
            return turned.clone(memory_format=torch.contiguous_format)
        turned = tensor.T if tensor.ndim == 2 else tensor
        return reordered(turned, to) if to else turned.contiguous()

    def from_torch(self, tensor: Tensor, to: Flattened | None) -> Tensor:
        if tensor.ndim == 4:
            return tensor.permute(2, 3, 1, 0).contiguous()
        if to is None:
            return tensor.T.contiguous() if tensor.ndim == 2 else tensor
        channels, height, width = to.maps
        return tensor.view(-1, channels, height, width).permute(2, 3, 1, 0).reshape(-1, *tensor.shape[:-1])

    def write(self, file: IO[bytes], ending: str, export: Export) -> None:
        import numpy

        config = str(export.config).encode()
        with _hdf5(file) as hdf5:
            if len(config) < MOST_ATTRIBUTE:
                hdf5.attrs[CONFIG_KEY] = numpy.bytes_(config)
            self.write_layers(hdf5, export)

    @abstractmethod
    def write_layers(self, hdf5: Any, export: Export) -> None:
        """Write the layers into an open HDF5 file."""


MOST_ATTRIBUTE = 60_000
"""HDF5 keeps attributes up to 64 KiB."""


@contextmanager
def _hdf5(file: IO[bytes]) -> Iterator[Any]:
    """Write HDF5 through Python's file, whose errors are exceptions: HDF5's own files crash on a full disk."""
    import h5py

    place = file if file.readable() else io.BytesIO()  # HDF5 goes back and forth, which no pipe allows
    with h5py.File(place, "w") as hdf5:
        yield hdf5
    if isinstance(place, io.BytesIO):
        file.write(place.getbuffer())


def _array(export: Export, tensor: Tensor) -> Any:
    import torch

    if tensor.dtype == torch.bfloat16:
        raise CheckpointError(f"{export.path}: HDF5 has no bfloat16; it can't be written there unchanged")
    return tensor.numpy()


def _said_names(container: Hdf5, path: str, attribute: str) -> list[str]:
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


class Keras(KerasFile):
    """Keras's legacy layout, that of keras.applications: a group per layer, and attributes that list them in order."""

    name = "keras"
    title = "Keras's legacy layers"
    endings = (".h5",)
    default_endings = (".h5",)
    WORDS = (
        ("weight", r"kernel|gamma|.*_W(_\d+)?"),
        ("bias", r"bias|beta|.*_b(_\d+)?"),
        ("running_mean", r"moving_mean|running_mean"),
        ("running_var", r"moving_var(iance)?|running_(var|std)"),
        ("num_batches_tracked", r"num_batches_tracked"),
    )
    """How Keras calls each tensor."""

    def recognises(self, container: Container) -> bool:
        return isinstance(container, Hdf5) and bool(self.roots(container))

    def roots(self, container: Hdf5) -> list[str]:
        """Return the groups that list layers; a file of `model.save` has the weights in one of their own."""
        return [path for path in ("/", "model_weights") if container.attribute(path, "layer_names") is not None]

    def read(self, container: Container) -> Checkpoint:
        assert isinstance(container, Hdf5)
        root = self.roots(container)[0].strip("/")
        inside: dict[str, list[str]] = {}  # the tensors in each group, those in the groups inside it too
        for tensor in container.tensors:
            path = tensor
            while path := path.rpartition("/")[0]:
                inside.setdefault(path, []).append(tensor)
        layers: list[StoredLayer] = []
        others: list[str] = []
        for name in _said_names(container, root, "layer_names"):
            path = f"{root}/{name}" if root else name
            weights = [f"{path}/{weight}" for weight in _said_names(container, path, "weight_names")]
            order = [weight for weight in weights if weight in container.tensors] or list(inside.get(path, ()))
            listed = {*order}
            order += [t for t in inside.get(path, ()) if t not in listed and t.endswith("num_batches_tracked")]
            groups: dict[str, dict[str, Stored]] = {}
            for tensor in order:
                owner, _, last = tensor.rpartition("/")
                is_own = owner == path or owner.rpartition("/")[2] == name or owner.count("/") == path.count("/")
                owner = name if is_own else owner.removeprefix(f"{path}/")  # of a model inside the layer's group
                word = last.removesuffix(":0")
                role = next((role for role, pattern in self.WORDS if re.fullmatch(pattern, word)), word)
                groups.setdefault(owner, {})[role] = container.tensors[tensor]
            layers += [self.layer(owner, tensors) for owner, tensors in groups.items()]
            if not groups:
                others.append(name)
        described = keras_layers(container.description())
        return Checkpoint(container, self, tuple(layers), tuple(others), described=described)

    def write_layers(self, hdf5: Any, export: Export) -> None:
        shown = [layer for layer in export.layers if layer.tensors or layer.placed.layer.role == "other"]
        hdf5.attrs["layer_names"] = [str(layer.name).encode() for layer in shown]
        hdf5.attrs["backend"] = b"tensorflow"
        hdf5.attrs["keras_version"] = b"2.15.0"
        for layer in shown:
            group = hdf5.create_group(layer.name)
            is_norm = layer.placed.layer.is_norm
            words = ("gamma", "beta", "moving_mean", "moving_variance") if is_norm else ("kernel", "bias")
            names = {role: f"{layer.name}/{word}:0" for word, role in zip(words, ROLES) if role in layer.tensors}
            group.attrs["weight_names"] = [name.encode() for name in names.values()]
            for role, read in layer.tensors.items():
                # a batch norm's counter has no name in Keras, which passes by what is not listed
                group[names.get(role, role)] = _array(export, read())


class Keras3(KerasFile):
    """Keras 3's layout: `layers/CLASS_NUMBER/vars/0`, the layer's own name as an attribute."""

    name = "keras3"
    title = "Keras 3's layers"
    endings = (".weights.h5",)
    default_endings = (".weights.h5",)
    CLASSES: ClassVar[dict[str, str]] = {
        "conv": "conv2d",
        "FC": "dense",
        "batchnorm": "batch_normalization",
        "groupnorm": "group_normalization",
        "maxpool": "max_pooling2d",
        "avgpool": "average_pooling2d",
        "flatten": "flatten",
        "global-avgpool": "global_average_pooling2d",
        "LRN": "lrn",
    }
    """Keras's classes in snake case, by our keywords; other layers without tensors are part of those before them."""
    VARIABLES: ClassVar[dict[str, tuple[str, ...]]] = {
        "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
        "group_normalization": ("weight", "bias"),
    }
    """The numbered tensors of classes whose number of tensors does not tell them."""

    def recognises(self, container: Container) -> bool:
        return isinstance(container, Hdf5)

    def read(self, container: Container) -> Checkpoint:
        assert isinstance(container, Hdf5)
        groups: dict[str, list[Stored]] = {}
        for tensor, stored in container.tensors.items():
            owner, _, last = tensor.rpartition("/")
            if owner.startswith(("layers/", "_layer_checkpoint_dependencies/")) and owner.endswith("/vars"):
                groups.setdefault(owner, []).append(stored)
            elif last == "num_batches_tracked":
                groups.setdefault(f"{owner}/vars", []).append(stored)
        described = keras_layers(container.description())
        said, roles_said = described.names, {layer.path: _roles(layer) for layer in described.layers}
        layers = []
        series: dict[StoredKind, set[str]] = {}
        for owner in sorted(groups, key=_natural):
            in_file = owner.removesuffix("/vars").rpartition("/")[2]
            counts = [stored for stored in groups[owner] if stored.name.endswith("num_batches_tracked")]
            values = sorted((s for s in groups[owner] if s not in counts), key=lambda stored: _natural(stored.name))
            if not all(stored.dtype.startswith(("float", "bfloat")) for stored in values):
                continue  # the state of a random generator
            usual = self.VARIABLES.get(re.sub(r"_\d+$", "", in_file)) or (ROLES[:2] if len(values) <= 2 else ROLES[:4])
            roles = roles_said.get(f"/{owner.removesuffix('/vars')}") or usual
            if len(values) > len(roles):
                roles = tuple(str(number) for number in range(len(values)))
            tensors = dict(zip(roles, values))
            if counts:
                tensors["num_batches_tracked"] = counts[0]
            layers.append(self.layer(self.own_name(container, owner, in_file), tensors))
            series.setdefault(layers[-1].kind, set()).add(re.sub(r"(_\d+)?/vars$", "", owner))
        is_numbered = all(len(classes) == 1 for classes in series.values())  # each class in the model's order
        names = [self.own_name(container, path, "") for path in self.empty_groups(container, groups)]
        if said:
            places = {name: place for place, name in reversed([*enumerate(said)])}
            layers.sort(key=lambda layer: places.get(layer.name, len(said)))
            names.sort(key=lambda name: places.get(name, len(said)))
        others = tuple(filter(None, names))
        return Checkpoint(container, self, tuple(layers), others, bool(said) or is_numbered, described)

    def own_name(self, container: Hdf5, path: str, otherwise: str) -> str:
        """Return the name that Keras 3 keeps as an attribute of a layer's variables."""
        said = container.attribute(path, "name")
        return otherwise if said is None else _plain(container, str(said))

    def empty_groups(self, container: Hdf5, taken: Iterable[str]) -> list[str]:
        """Return the groups of layers without tensors."""
        found: list[str] = []
        with container.reading():
            container.file.visit(lambda name: found.append(name) if name.endswith("/vars") else None)
        taken = set(taken)
        return [path for path in found if path not in taken and path.count("/") > 1]

    def write_layers(self, hdf5: Any, export: Export) -> None:
        counts: dict[str, int] = {}
        hdf5.create_group("vars").attrs["name"] = export.config.name
        hdf5.create_group("layers/input_layer/vars").attrs["name"] = "input_layer"
        for layer in export.layers:
            keyword = layer.placed.layer.keyword
            kind = self.CLASSES.get(keyword, keyword if layer.tensors else None)
            if kind is None:
                continue
            number = counts[kind] = counts.get(kind, -1) + 1
            owner = hdf5.create_group(f"layers/{kind}_{number}" if number else f"layers/{kind}")
            group = owner.create_group("vars")
            group.attrs["name"] = layer.name
            variables = [role for role in ROLES[:4] if role in layer.tensors]
            for role, read in layer.tensors.items():
                place, name = (group, str(variables.index(role))) if role in variables else (owner, role)
                place[name] = _array(export, read())


def _roles(layer: KerasLayer) -> tuple[str, ...]:
    """Return what the tensors of a layer are that a description has."""
    kind = KERAS_KINDS.get(layer.word)
    return () if kind is None else kind.roles(layer.options)


LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (Torchvision(), Timm(), Keras(), Keras3(), Vggkit())}
"""The layouts that can be written, by name; a file has the first that recognises it."""
