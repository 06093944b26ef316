"""What a file says of its own network: vggkit's files carry their configuration."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Literal

from vggkit.errors import VggkitError
from vggkit.layers import Flatten
from vggkit.network import Network
from vggkit.weights.container import CONFIG_KEY
from vggkit.weights.layouts import Checkpoint, StoredLayer
from vggkit.zoo import loads


def own_network(checkpoint: Checkpoint) -> Network | None:
    """Return the network that a file says it is of; None if it says nothing.

    Args:
        checkpoint: an open file.

    Raises:
        ConfigError: if what it says makes no sense.
    """
    text = checkpoint.container.metadata.get(CONFIG_KEY)
    return None if text is None else _configured(text, checkpoint.path)


@lru_cache(maxsize=4)  # a file is asked several times while its layers are matched
def _configured(text: str, path: str) -> Network:
    return Network.of(loads(text, f"{path}, its configuration"))


def flatten_order(checkpoint: Checkpoint, stored: StoredLayer) -> Literal["chw", "hwc"]:
    """Return the order in which a layer of a file has the values of flattened maps.

    Args:
        checkpoint: the file.
        stored: a layer of it that takes them.
    """
    if stored.axes == "keras":
        return "hwc"
    network = None
    if stored.kind != "conv":
        with suppress(VggkitError):  # whoever asks for the network itself is told
            network = own_network(checkpoint)
    layers = (placed.layer for placed in network or ())
    return next((layer.order for layer in layers if isinstance(layer, Flatten)), "chw")
