"""Every class of Keras's layers that is read or written."""

from __future__ import annotations

from collections.abc import Iterator

from vggkit.exchange.keras.activations import ACTIVATIONS, activation
from vggkit.exchange.keras.description import KerasLayer
from vggkit.exchange.keras.head import Dense, Dropout, Flatten, Permute, Reshape
from vggkit.exchange.keras.norms import BatchNormalization, GroupNormalization, LayerNormalization
from vggkit.exchange.keras.preparing import CenterCrop, InputLayer, Normalization, Rescaling, Resizing
from vggkit.exchange.keras.rules import KerasKind, WrittenKind
from vggkit.exchange.keras.walk import Walk
from vggkit.exchange.keras.windows import (
    AdaptiveAveragePooling2D,
    AveragePooling2D,
    Conv2D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    MaxPooling2D,
    ZeroPadding2D,
)
from vggkit.notation.layers import Layer

_WRITTEN: tuple[WrittenKind, ...] = (
    Conv2D(), MaxPooling2D(), AveragePooling2D(), GlobalAveragePooling2D(), BatchNormalization(), GroupNormalization(),
    Dropout(), Flatten(), Dense(), *ACTIVATIONS.values(),
)  # fmt: skip

_READ: tuple[KerasKind, ...] = (
    InputLayer(), Rescaling(), Normalization(), Resizing(), CenterCrop(), ZeroPadding2D(), AdaptiveAveragePooling2D(),
    GlobalMaxPooling2D(), LayerNormalization(), Permute(), Reshape(),
)  # fmt: skip

KERAS_KINDS: dict[str, KerasKind] = {kind.word: kind for kind in (*_WRITTEN, *_READ)}
"""Every class that is read, by its name."""

WRITING: dict[type[Layer], WrittenKind] = {layer: kind for kind in _WRITTEN for layer in kind.takes}
"""What each layer is written as."""

TRAINING_ALONE = (
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
)
"""Layers that do nothing in inference and have no place in the notation; so do those that change pictures at random."""


def is_for_training(layer: KerasLayer) -> bool:
    """Tell whether a layer leaves values as they are when the network runs."""
    return layer.word.startswith("Random") or layer.word in TRAINING_ALONE


def found(layer: KerasLayer, walk: Walk) -> Iterator[Layer | str]:
    """Yield the layers that a layer of Keras's is, and words for what no configuration can express.

    Args:
        layer: it.
        walk: where it stands, which is taken on.

    Raises:
        ValueError, TypeError, KeyError, LayerError: if its options make no sense.
    """
    kind = KERAS_KINDS.get(layer.word)
    if kind is None:
        yield layer.word
        return
    if walk.zeros and not kind.takes_zeros:
        walk.take_zeros()
        yield "zeros around the input"
    if walk.is_turned and not isinstance(kind, Flatten):
        walk.is_turned = False
        yield "channels put first in the input"
    for one in kind.read(layer.options, walk):
        yield from walk.add(one) if isinstance(one, Layer) else [one]
    if "activation" in layer.options and layer.word != "Activation":
        for one in activation(layer.options["activation"], walk):
            yield from walk.add(one) if isinstance(one, Layer) else [one]
