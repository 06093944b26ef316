"""What a file says of its own network: vggkit's files carry their configuration, Keras's models a description."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import Literal

import msgspec

from vggkit.base.errors import VggkitError
from vggkit.model.weights.container import CONFIG_KEY
from vggkit.model.weights.described import Departure, described_config
from vggkit.model.weights.layouts import Checkpoint, StoredLayer
from vggkit.network import Network
from vggkit.notation.layers import Flatten
from vggkit.notation.zoo import loads


class Own(msgspec.Struct, frozen=True):
    """What a file says of itself.

    Args:
        network: all that a configuration can say of it; None if that is no network.
        departures: the rest.
    """

    network: Network | None
    departures: tuple[Departure, ...] = ()


def own_network(checkpoint: Checkpoint) -> Own | None:
    """Return the network that a file says it is of; None if it says nothing.

    Args:
        checkpoint: an open file.

    Raises:
        ConfigError: if a configuration in it makes no sense.
    """
    text = checkpoint.container.metadata.get(CONFIG_KEY)
    if text is not None:
        return _configured(text, checkpoint.path)
    return _described(checkpoint) if checkpoint.described.layers else None


@lru_cache(maxsize=4)  # a file is asked several times while its layers are matched
def _configured(text: str, path: str) -> Own:
    return Own(Network.of(loads(text, f"{path}, its configuration")))


def _described(checkpoint: Checkpoint) -> Own:
    first = next(layer for layer in checkpoint.layers if layer.kind in ("conv", "fc"))
    config, departures = described_config(checkpoint.described, plain_name(checkpoint.path), first.shapes["weight"][1])
    network = None
    if config is not None:
        with suppress(VggkitError):
            network = Network.of(config)
    return Own(network, departures)


def plain_name(path: str) -> str:
    """Return a network's name after a file's."""
    stem = re.split(r"[/\\]", path)[-1].split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9_-]", "", stem)
    return plain if re.match(r"[A-Za-z]", plain) else f"network{plain}"


def flatten_order(checkpoint: Checkpoint, stored: StoredLayer) -> Literal["chw", "hwc"]:
    """Return the order in which a layer of a file has the values of flattened maps.

    Args:
        checkpoint: the file.
        stored: a layer of it that takes them.
    """
    if stored.axes == "keras":
        return "hwc"
    own = None
    if stored.kind != "conv":
        with suppress(VggkitError):  # whoever asks for the network itself is told
            own = own_network(checkpoint)
    layers = (placed.layer for placed in (own.network if own else None) or ())
    return next((layer.order for layer in layers if isinstance(layer, Flatten)), "chw")
