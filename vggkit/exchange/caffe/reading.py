"""A network as Caffe has it → layers with their values.

Both dialects are read, that with `layers { type: CONVOLUTION }` and that with `layer { type: "Convolution" }`, and
networks for training as well as deployed ones. What counts is the network that runs in the phase TEST.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vggkit.base.errors import LayerError, TooSmallError, escaped, shorten
from vggkit.base.shapes import Shape, elements, times
from vggkit.exchange.caffe.kinds import CAFFE_KINDS
from vggkit.exchange.caffe.rules import Sought
from vggkit.exchange.caffe.schema import NEW_TYPES, OLD_LAYER, OPTIONS
from vggkit.exchange.chain import Chain, Imported, likely_sides
from vggkit.exchange.files import plain_name
from vggkit.exchange.layers import told
from vggkit.exchange.messages import MalformedError, Message
from vggkit.exchange.values import MisfitError, Values, in_file, listed
from vggkit.notation.config import Config
from vggkit.notation.preprocess import LARGEST_SIDE, Preprocess, parse_preprocess


class CaffeLayer(NamedTuple):
    """A layer of either dialect.

    Args:
        name: its own.
        type: in today's words.
        bottoms: the names of what it takes.
        tops: the names of what it makes.
        message: the rest.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Message

    @property
    def told(self) -> str:
        """Its name and type, for messages."""
        return told(self.name, self.type)

    @property
    def is_loss(self) -> bool:
        """Whether it compares the output with labels."""
        return self.type.endswith("Loss")

    def options(self, word: str) -> Message:
        """Return its options of a name, empty if it has none."""
        return self.message.message(word) if word in self.message.schema.fields else Message(OPTIONS[word][0])

    def runs_in(self, phase: str) -> bool:
        """Tell whether it runs in a phase, without stages (`Net::StateMeetsRule`)."""
        include, exclude = self.message.messages("include"), self.message.messages("exclude")
        if include:
            return any(_is_met(rule, phase) for rule in include)
        return not any(_is_met(rule, phase) for rule in exclude)


def _is_met(rule: Message, phase: str) -> bool:
    return (
        rule.get("phase", phase) == phase
        and rule.get("min_level", 0) <= 0 <= rule.get("max_level", 0)
        and "stage" not in rule
    )


def layers_of(net: Message) -> list[CaffeLayer]:
    """Return a network's layers, whatever their dialect.

    Raises:
        MalformedError: if it has layers of both dialects, or of the first of all.
    """
    new, old = net.messages("layer"), net.messages("layers")
    if new and old:
        raise MalformedError("expected layer { … } or layers { … }, found both")
    found = []
    for message in new or old:
        kind = str(message.get("type", ""))
        if message.schema is OLD_LAYER:
            if "layer" in message:
                raise MalformedError(
                    "it is in Caffe's format of 2013; Caffe's upgrade_net_proto_text brings it up to date"
                )
            kind = NEW_TYPES.get(kind, kind.title().replace("_", ""))
        bottoms, tops = tuple(message.all("bottom")), tuple(message.all("top"))
        found.append(CaffeLayer(message.get("name", ""), kind, bottoms, tops, message))
    return found


# What the network begins with

DATA_TYPES = ("Data", "ImageData", "MemoryData", "DummyData", "HDF5Data", "WindowData", "AnnotatedData", "Input")


class _Beginning(NamedTuple):
    """What a file says of a network's images.

    Args:
        names: of the images and what comes with them, the images first.
        sizes: channels, height and width; 0 or None for what it does not say.
        preprocess: what becomes of pictures.
        notes: what it says that is not read.
    """

    names: tuple[str, ...]
    sizes: tuple[int | None, ...] = (None, None, None)
    preprocess: Preprocess | None = None
    notes: tuple[str, ...] = ()


def _beginning(net: Message, layers: Sequence[CaffeLayer]) -> _Beginning:
    inputs = tuple(net.all("input"))
    if inputs:
        dims = net.messages("input_shape")
        sizes = dims[0].all("dim") if dims else net.all("input_dim")[:4]
        return _Beginning(inputs, _sizes(sizes))
    data = [layer for layer in layers if layer.type in DATA_TYPES and not layer.bottoms]
    tested = [layer for layer in data if layer.runs_in("TEST")]
    if not data:
        raise MalformedError("it says nothing of its input: expected input, an Input layer or a layer with data")
    first = (tested or data)[0]
    if not first.tops:
        raise MalformedError(f"{first.told} has no top")
    names = (first.tops[0], *(top for layer in data for top in layer.tops if top != first.tops[0]))
    if first.type == "Input":
        shapes = first.options("input_param").messages("shape")
        return _Beginning(names, _sizes(shapes[0].all("dim")) if shapes else (None, None, None))
    return _data(first, names)


def _sizes(dims: Sequence[int]) -> tuple[int | None, ...]:
    if len(dims) != 4:
        return None, None, None
    return tuple(dims[1:])


def _data(layer: CaffeLayer, names: tuple[str, ...]) -> _Beginning:
    """Read a layer that loads pictures: the transformation of each, which older files have among its own options."""
    image, memory, dummy = (layer.options(f"{word}_data_param") for word in ("image", "memory", "dummy"))
    own = image if layer.type == "ImageData" else layer.options("data_param")
    given = layer.options("transform_param")

    def said(word: str, default: Any = None) -> Any:
        return given.get(word, own.get(word, default) if word in own.schema.fields else default)

    crop = said("crop_size", 0) or None
    means, notes = given.all("mean_value"), []
    height, width = image.get("new_height", 0), image.get("new_width", 0)
    is_grey = given.get("force_gray", False) or not image.get("is_color", True)
    channels = (
        memory.get("channels")
        or dummy.get("channels")
        or (1 if is_grey else None)
        or (len(means) if len(means) > 1 else None)
    )
    file = said("mean_file")
    if file:
        notes.append(f"{layer.told}: its mean is in another file, {escaped(shorten(file))}, which is not read")
    sizes: tuple[int | None, ...] = (channels, crop, crop)
    if not crop:
        sizes = (channels, memory.get("height") or height, memory.get("width") or width)
    shapes = dummy.messages("shape")
    if shapes and not crop:
        sizes = _sizes(shapes[0].all("dim"))
    scale = said("scale", 1.0)
    states = means or scale != 1 or height
    preprocess = (
        _preprocess(channels or 3, height and width and (height, width), crop, means, scale) if states else None
    )
    return _Beginning(names, sizes, preprocess, tuple(notes))


def _preprocess(
    channels: int, resize: Any, crop: int | None, means: Sequence[float], scale: float
) -> Preprocess | None:
    """Return how Caffe prepares a picture: blue first, the mean subtracted, then multiplied by scale."""
    colours = {3: "bgr", 1: "grey"}
    if channels not in colours or len(means) not in (0, 1, channels):
        raise MalformedError(f"expected a mean_value for each of {channels} channels, found {len(means)}")
    whole = {
        "resize": resize and times(resize),
        "crop": crop,
        "scale": 1.0,
        "mean": (list(means) if len(means) > 1 else means[0]) if means else 0.0,
        "std": float(f"{1 / scale:.9g}") if scale else 0.0,
        "colour": colours[channels],
    }
    try:
        return parse_preprocess({key: value for key, value in whole.items() if value})
    except ValueError as error:
        raise MalformedError(f"what it says of pictures can't be said here: {error}") from None


# The layers


def _blob(blob: Message) -> Values:
    """Return a blob's values."""
    if "shape" in blob:
        shape: Shape = tuple(blob.message("shape").all("dim"))
    else:
        shape = tuple(blob.get(word, 0) for word in ("num", "channels", "height", "width"))
    if not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape) or len(shape) > 8:
        raise LayerError(f"its blob has the shape {shorten(shape)}")
    word, dtype = ("double_data", "float64") if "double_data" in blob else ("data", "float32")
    pieces = blob.values.get(word, [])
    if not pieces and not elements(shape):
        return in_file(memoryview(b""), shape, dtype)
    return listed(pieces, lambda: blob.all(word), shape, dtype)


IGNORED = ("Accuracy", "Silence", "ArgMax")
"""What looks at the network's output, and changes nothing."""


class _Walk:
    """Follows the layers from the images on.

    Args:
        beginning: what the network begins with.
        image: the shape of one image.
        blobs: each layer's, by its name.
    """

    def __init__(self, beginning: _Beginning, image: Shape, blobs: Mapping[str, Sequence[Message]]) -> None:
        self.chain = Chain(image)
        self.current = {beginning.names[0]}
        self.others = {*beginning.names[1:]} - self.current
        self.blobs = blobs
        self.makers = {beginning.names[0]: "the image"}
        self.shared: dict[str, str] = {}

    def follow(self, layers: Sequence[CaffeLayer]) -> None:
        for layer in layers:
            if layer.type in IGNORED or (layer.type in DATA_TYPES and not layer.bottoms):
                continue
            if layer.type == "Split" and len({*layer.bottoms}) == 1:
                same = self.current if layer.bottoms[0] in self.current else self.others
                same.update(layer.tops)
                continue
            taken = [name for name in layer.bottoms if name not in self.others]
            if layer.is_loss and layer.type not in CAFFE_KINDS:
                continue
            if len(taken) != 1 or taken[0] not in self.current:
                raise LayerError(self.branch(layer, taken))
            self.add(layer)

    def branch(self, layer: CaffeLayer, taken: Sequence[str]) -> str:
        """Say why a layer is no link of a chain."""
        made = [self.makers.get(name, shorten(name)) for name in taken]
        several = " and ".join(made[:2]) + (f" and {len(made) - 2} more" if len(made) > 2 else "")
        return f"{layer.told} takes {several or 'nothing'}; a network here is a chain, each layer feeding only the next"

    def add(self, layer: CaffeLayer) -> None:
        kind = CAFFE_KINDS.get(layer.type)
        if kind is None:
            given = f" for an input of {times(self.chain.shape)}"
            raise LayerError(f"no layer of a configuration does what {layer.told} does{given}")
        for param in layer.message.all("param"):
            name = param.get("name") if isinstance(param, Message) else param
            if name and self.shared.setdefault(name, layer.told) != layer.told:
                raise LayerError(
                    f"{layer.told} shares its weights with {self.shared[name]}; expected weights of its own"
                )
        options = layer.options(kind.options) if kind.options else Message(layer.message.schema)
        try:
            blobs = [_blob(blob) for blob in self.blobs.get(layer.name, ())]
            kind.extend(self.chain, layer.name, Sought(options, self.chain.shape, blobs))
        except LayerError as error:
            raise type(error)(f"{layer.told}: {error}") from None
        except MalformedError as error:
            raise LayerError(f"{layer.told}: {error}") from None
        self.current = {*layer.tops[:1]}
        self.makers[layer.tops[0] if layer.tops else ""] = layer.told


def imported(net: Message, *, image: Shape | None, stem: str, weights: Message | None = None) -> Imported:
    """Read a network.

    Args:
        net: the network.
        image: the shape of one image, if the user says it.
        stem: its name, if it has none itself.
        weights: the same network with its weights, by the names of its layers; None if they are in the first.

    Raises:
        MalformedError: if it is no network.
        LayerError: if it is no chain, or has a layer that no configuration says.
    """
    layers = layers_of(net)
    if not layers:
        raise MalformedError("it has no layers")
    beginning = _beginning(net, layers)
    blobs = {layer.name: layer.message.messages("blobs") for layer in layers_of(weights or net)}
    run = [layer for layer in layers if layer.runs_in("TEST")]
    if weights is not None:
        _check_names(run, blobs)
    walk = _walked(beginning, run, blobs, image)
    notes = list(beginning.notes)
    if image is None and not all(beginning.sizes[1:]):
        notes.append(f"it does not say the size of its images: {times(walk.chain.image)} fits; --input says another")
    name = plain_name(net.get("name") or stem)
    network, tensors = walk.chain.network(name, beginning.preprocess)
    return Imported(network, tensors, tuple(notes))


def _check_names(layers: Sequence[CaffeLayer], blobs: Mapping[str, Sequence[Message]]) -> None:
    """Refuse weights in which a layer is missing."""
    for layer in layers:
        if layer.type in ("Convolution", "InnerProduct") and not blobs.get(layer.name):
            known = ", ".join(name for name, held in blobs.items() if held)
            raise MalformedError(f"the weights have none for {layer.told}; they have {escaped(shorten(known, 100))}")


def _walked(
    beginning: _Beginning, layers: Sequence[CaffeLayer], blobs: Mapping[str, Sequence[Message]], image: Shape | None
) -> _Walk:
    """Follow the layers, for the first image that fits if the file does not say which."""
    error: LayerError | None = None
    for shape in [image] if image else _images(beginning, layers, blobs):
        walk = _Walk(beginning, shape, blobs)
        try:
            walk.follow(layers)
        except (TooSmallError, MisfitError) as found:
            error = error or found
            continue
        return walk
    assert error is not None
    raise error


def _images(
    beginning: _Beginning, layers: Sequence[CaffeLayer], blobs: Mapping[str, Sequence[Message]]
) -> Iterator[Shape]:
    """Yield the images that a network may be for: what the file says, and for what it does not say what fits."""
    channels, height, width = beginning.sizes
    if channels is None:
        channels = Config("").input[0]
        first = next((layer for layer in layers if layer.type == "Convolution" and blobs.get(layer.name)), None)
        if first is not None:
            group = first.options("convolution_param").get("group", 1)
            shape = _blob(blobs[first.name][0]).shape
            channels = shape[1] * group if len(shape) == 4 else channels
    if not isinstance(channels, int) or not 1 <= channels <= 2**20:
        raise MalformedError(f"expected an image with channels, found {shorten(channels)}")
    if height and width:
        if not 1 <= height <= LARGEST_SIDE or not 1 <= width <= LARGEST_SIDE:
            raise MalformedError(f"expected sides from 1 to {LARGEST_SIDE:,}, found {height}×{width}")
        yield channels, height, width
        return
    if not any(blobs.values()):
        raise MalformedError("it does not say the size of its images; --input says it")
    for side in likely_sides():
        yield channels, side, side
