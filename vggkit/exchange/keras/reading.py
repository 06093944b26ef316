"""A Keras model → layers with their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.shapes import Shape, elements, times
from vggkit.exchange.chain import Chain, Imported
from vggkit.exchange.files import Given
from vggkit.exchange.keras.archive import CONFIG, WEIGHTS, KerasArchive
from vggkit.exchange.keras.description import KerasLayer, KerasLayers, keras_layers
from vggkit.exchange.keras.kinds import KERAS_KINDS, found, is_for_training
from vggkit.exchange.keras.stated import stated
from vggkit.exchange.keras.walk import Walk, is_flattened_in_any_order
from vggkit.exchange.keras.writing import model_of
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.values import MisfitError, Tensors, Values
from vggkit.network import Network
from vggkit.notation.layers import Flatten, Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

INFLATION = 16
"""All tensors together may be this many times as large as the file, as in a checkpoint of HDF5."""


class Step(NamedTuple):
    """A layer that was read.

    Args:
        path: its name in the file.
        layer: it.
        values: of its parameters and buffers, by torch's names.
    """

    path: str
    layer: Layer
    values: Mapping[str, Values]


def imported(archive: KerasArchive, given: Given) -> Imported:
    """Read a network.

    Raises:
        MalformedError: if it is no model.
        LayerError: if it is no chain, or has a layer that no configuration says.
    """
    said = keras_layers(archive.json(CONFIG))
    if not said.layers:
        raise MalformedError(f"expected a {CONFIG} that describes layers, found none")
    if said.branches:
        raise LayerError(
            f"there is more than one way through {shorten(said.branches[0])}; a network here is a chain, each layer"
            f" feeding only the next"
        )
    walk = Walk(*_image(said, given.image))
    weights = Weights(archive) if archive.has_weights else None
    own = stated(archive, given)
    if own is not None and given.image in (None, own.input_shape):
        return Imported(own, {} if weights is None else _tensors(own, weights))
    steps = [*_followed(said, walk, weights)]
    if walk.image is None:
        raise MalformedError("it does not say the size of its images; --input says it")
    chain = Chain(walk.image)
    for step in _in_torchs_order(steps, walk.image):
        try:
            chain.add(step.path, step.layer, step.values)
        except LayerError as error:
            raise type(error)(f"{step.path}: {error}") from None
    network, tensors = chain.network(given.stem, walk.preparation.preprocess())
    return Imported(network, tensors, tuple(_notes(said, network.input_shape)))


def _image(said: KerasLayers, asked: Shape | None) -> tuple[Shape | None, int]:
    channels = said.channels or (asked[0] if asked else None)
    if channels is None:
        raise MalformedError("it does not say the size of its images; --input says it")
    if asked and asked[0] != channels:
        raise MalformedError(f"its images have {channels} channels, not {asked[0]}")
    return asked or said.input, channels


def _tensors(network: Network, weights: Weights) -> Tensors:
    """Return the tensors of a network whose layers are those of the file."""
    return {
        (one.placed.name, role): _channels_first(_turned(values), one.maps)
        for one in model_of(network)
        if one.said.roles
        for role, values in zip(one.said.roles, weights.of(one.path, len(one.said.roles)))
    }


def _notes(said: KerasLayers, image: Shape) -> Iterator[str]:
    _, height, width = image
    yield f"its images are {height}×{width} with the channels last; here these are first"
    for layer in said.layers:
        policy = layer.options.get("dtype")
        policy = policy.get("config", {}).get("name") if isinstance(policy, dict) else policy
        if is_for_training(layer):
            yield f"{layer.name} ({layer.word}) does nothing when the network runs, and is left out"
        elif policy not in (None, "float32"):
            yield f"{layer.name} computes in {escaped(shorten(policy))}; here everything is float32"


def _followed(said: KerasLayers, walk: Walk, weights: Weights | None) -> Iterator[Step]:
    """Yield the layers.

    Raises:
        LayerError: names the first that no configuration can express, and says why.
    """
    for layer in said.layers:
        if is_for_training(layer):
            continue
        try:
            for one in found(layer, walk):
                if isinstance(one, str):
                    raise LayerError(f"no configuration can express {one} of {layer.name}")
                yield Step(layer.name, one, _values(layer, one, weights))
        except (LayerError, MalformedError) as error:
            told = str(error) if str(error).endswith(f" of {layer.name}") else f"{layer.name}: {error}"
            raise LayerError(told) from None
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise LayerError(f"{layer.name}: its options make no sense: {shorten(str(error), 120)[1:-1]}") from None
    if walk.zeros or walk.is_turned:
        raise LayerError("no configuration ends in zeros around maps, or in channels put elsewhere")
    last = said.layers[-1].name
    yield from (Step(last, one, {}) for one in walk.finish())


def _values(layer: KerasLayer, one: Layer, weights: Weights | None) -> Mapping[str, Values]:
    """Return the values of a layer that has some, as torch has them."""
    roles = KERAS_KINDS[layer.word].roles(layer.options)
    if not roles or not (one.is_weight_layer or one.is_norm):
        return {}
    stored = weights.of(layer.path, len(roles)) if weights else None
    return {} if stored is None else {role: _turned(values) for role, values in zip(roles, stored)}


def _turned(values: Values) -> Values:
    """Return a kernel with its axes in torch's order: its outputs and inputs are its last ones in Keras."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(values.shape))
    if order is None:
        return values
    return Values(
        tuple(values.shape[axis] for axis in order),
        values.dtype,
        lambda: values.load().transpose(order),
        values.is_known,
    )


def _in_torchs_order(steps: list[Step], image: Shape) -> Iterator[Step]:
    """Yield the layers; where the values of flattened maps may have any order, they have torch's."""
    shape, maps = image, None
    for place, step in enumerate(steps):
        layer = step.layer
        if layer.flattens and len(shape) == 3:
            behind = [other.layer for other in steps[place + 1 :]]
            if layer == Flatten("hwc") and is_flattened_in_any_order(behind):
                maps, layer = shape, Flatten()
        values = {role: _channels_first(tensor, maps) for role, tensor in step.values.items()}
        yield Step(step.path, layer, values)
        maps = None if layer.needs_flat else maps
        flat = layer.needs_flat and len(shape) == 3
        shape = layer.output_shape((elements(shape),) if flat else shape)


def _channels_first(values: Values, maps: Shape | None) -> Values:
    """Return what takes flattened maps, if there are some, in the order that torch flattens them in."""
    if maps is None or values.shape[-1] != elements(maps):
        return values
    channels, height, width = maps

    def load() -> NDArray[Any]:
        whole = values.load().reshape(-1, height, width, channels)
        return whole.transpose(0, 3, 1, 2).reshape(values.shape)

    return Values(values.shape, values.dtype, load, values.is_known)


class Weights:
    """The tensors of an archive.

    Args:
        archive: it.

    Raises:
        MalformedError: if they can't be read.
    """

    def __init__(self, archive: KerasArchive) -> None:
        try:
            archive.rehearse()
            self._file = archive.weights()
        except KeyError:
            raise MalformedError(f"it has no {WEIGHTS}") from None
        except ValueError as error:
            raise MalformedError(f"its {WEIGHTS} can't be read: {error}") from None
        self._left = INFLATION * max(archive.size, 2**16)

    def of(self, path: str, number: int) -> list[Values]:
        """Return the tensors of a layer.

        Args:
            path: the layer's.
            number: how many it has.

        Raises:
            LayerError: if it has more or fewer, or they are no weights.
        """
        group = self._group(path)
        names = [] if group is None else sorted(group)
        if names != sorted(map(str, range(number))):
            raise MisfitError(f"expected {number} tensors, found {len(names)}")
        return [self._values(group[str(place)]) for place in range(number)]

    def _group(self, path: str) -> Any:
        paths = (path, path.replace("/layers/", "/_layer_checkpoint_dependencies/"))  # before Keras 3
        return next((self._file[f"{one}/vars"] for one in paths if f"{one}/vars" in self._file), None)

    def _values(self, dataset: Any) -> Values:
        shape, dtype = getattr(dataset, "shape", None), str(getattr(dataset, "dtype", "a group"))
        if dtype not in ("float16", "float32", "float64") or shape is None:
            raise LayerError(f"expected tensors of float16, float32 or float64, found {escaped(shorten(dtype))}")
        self._left -= dataset.nbytes
        if self._left < 0:
            raise LayerError(f"its tensor of {times(shape)} claims more than the file has")

        def load() -> NDArray[Any]:
            return dataset[...]  # type: ignore[no-any-return] # h5py has no types

        return Values(tuple(shape), dtype, load)
