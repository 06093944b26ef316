"""The configuration that a file of our own states: what Keras does not say, such as blocks."""

from __future__ import annotations

from typing import Any

from vggkit.base.errors import LayerError
from vggkit.exchange.files import Given, network_stated
from vggkit.exchange.keras.archive import CONFIG, METADATA, KerasArchive
from vggkit.exchange.keras.writing import STATEMENT, description, model_of
from vggkit.network import Network


def stated(archive: KerasArchive, given: Given) -> Network | None:
    """Return the network that a file states, if its layers are what is written for that; None if it is any other.

    A model may have been changed since it was written, and a statement may be a stranger's.

    Args:
        archive: the file's content.
        given: the file.
    """
    metadata: Any = archive.json(METADATA)
    text = metadata.get(STATEMENT) if isinstance(metadata, dict) else None
    network = network_stated(text, given) if isinstance(text, str) else None
    if network is None:
        return None
    try:
        wanted = description(network, model_of(network))
    except LayerError:
        return None
    return network if archive.json(CONFIG) == wanted else None
