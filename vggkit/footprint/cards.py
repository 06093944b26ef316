"""Cards by name: how many bytes CUDA reports for them, and how many it takes itself.

A card has less memory than it is sold with: the driver and error correction (ECC) keep a part. What is left is
`total_bytes`, which torch gives as `torch.cuda.get_device_properties(0).total_memory`. Of that CUDA itself takes
`context_bytes` before torch's allocator has anything. Each figure has its source beside it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple, SupportsIndex

from vggkit.base.errors import ArgumentError, nearest, shorten
from vggkit.base.numbers import parse_bytes, whole


class Card(NamedTuple):
    """The memory of a card.

    Args:
        name: what the card is called; None for a plain size.
        total_bytes: what CUDA reports for it (`cudaDeviceProp.totalGlobalMem`).
        context_bytes: what CUDA itself takes of it by default, before torch's allocator has anything.
    """

    name: str | None
    total_bytes: int
    context_bytes: int


class Context(NamedTuple):
    """What a process that runs torch has on a card beside torch's own memory: the context of CUDA with its kernels.

    Args:
        total_bytes: a measured size.
        source: where somebody measured it.
    """

    total_bytes: int
    source: str


DEFAULT_CONTEXT = Context(426 * 2**20, "unslothai/unsloth-zoo#1053")
"""For a plain size, and for cards whose architecture is not in `CONTEXTS`."""

CONTEXTS: dict[str, Context] = {
    "Ada": Context(426 * 2**20, "unslothai/unsloth-zoo#1053"),  # RTX 6000 Ada, torch 2.10, CUDA 13.0
}
"""By architecture."""


class NamedCard(NamedTuple):
    """A card that can be asked for by name.

    Args:
        name: what it is called here; it ends in its size where there are cards of several sizes.
        gigabytes: the memory that it is sold with.
        architecture: NVIDIA's name for its architecture.
        reported: what CUDA reports for it, as the source prints it: bytes, or a rounded number of MiB or GiB.
        source: a GitHub issue, or a page, that shows it.
        also: other names, such as those that `torch.cuda.get_device_name()` gives.
    """

    name: str
    gigabytes: int
    architecture: str
    reported: str
    source: str
    also: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """The fewest bytes that are printed as what is reported: half of its last digit may have been rounded up."""
        if self.reported.endswith(" B"):
            return int(self.reported.removesuffix(" B"))
        number, unit = self.reported.split()
        _, _, decimals = number.partition(".")
        last_digit = Fraction(1, 10 ** len(decimals))
        return int((Fraction(number) - last_digit / 2) * {"MiB": 2**20, "GiB": 2**30}[unit])

    @property
    def context_bytes(self) -> int:
        """What CUDA takes of it by default."""
        return CONTEXTS.get(self.architecture, DEFAULT_CONTEXT).total_bytes

    @property
    def spellings(self) -> set[str]:
        """What finds it: each of its names, with and without its size."""
        size = f"-{self.gigabytes}GB"
        models = {name.removesuffix(size) for name in (self.name, *self.also)}
        return {_compact(model + ending) for model in models for ending in ("", size)}


CARDS = (
    NamedCard("RTX 2080 Ti", 11, "Turing", "11019 MiB", "ultralytics/yolov5#1629"),
    NamedCard("A100-40GB", 40, "Ampere", "42298834944 B", "bottlerocket-os/bottlerocket#3873", ("A100-SXM4-40GB",)),
    NamedCard("A100-80GB", 80, "Ampere", "81049 MiB", "ekondis/mixbench#47", ("A100-SXM4-80GB", "A100 80GB PCIe")),
    NamedCard("RTX A6000", 48, "Ampere", "48670 MiB", "ultralytics/ultralytics#19084"),
    NamedCard("RTX 3090", 24, "Ampere", "23.70 GiB", "GaoLii/DSP#10"),
    NamedCard("RTX 6000 Ada", 48, "Ada", "50865307648 B", "unslothai/unsloth-zoo#1053"),
    NamedCard("RTX 4090", 24, "Ada", "23.64 GiB", "ali-vilab/VGen#104"),
    NamedCard("RTX 5090", 32, "Blackwell", "32120 MiB", "ultralytics/ultralytics#19833"),
)
"""Cards that have a name here, from the oldest architecture to the newest."""

MAKERS = ("nvidia", "geforce", "tesla", "quadro")
"""What does not matter in a name."""


def _compact(name: str) -> str:
    """Return what of a name tells cards apart: letters and digits, without the maker's brands.

    >>> _compact("NVIDIA GeForce RTX 4090"), _compact("A100-40GB"), _compact("3090ti")
    ('4090', 'a10040gb', '3090ti')
    """
    words = re.sub("|".join(MAKERS), "", re.sub(r"[^a-z0-9]", "", name.lower()))
    return re.sub("^(rtx|gtx)|generation$", "", words)


def card_of(limit: str | SupportsIndex) -> Card:
    """Return the card that somebody means.

    Args:
        limit: a card's name, as in `CARDS`; a size such as "24GiB"; or bytes. In a name letter case, spaces, hyphens
            and NVIDIA, GeForce, Tesla and Quadro don't matter.

    Raises:
        ArgumentError: if it is none of these, or if several cards have this name.

    >>> card_of("24GiB").total_bytes, card_of("rtx4090").name
    (25769803776, 'RTX 4090')
    """
    if not isinstance(limit, str):
        return Card(None, _whole_bytes(limit), DEFAULT_CONTEXT.total_bytes)
    spelled = _compact(limit)
    meant = [card for card in CARDS if spelled in card.spellings]
    if len(meant) > 1:
        names = " or ".join(repr(card.name) for card in meant)
        raise ArgumentError(f"there are several cards called {shorten(limit)}; expected {names}")
    if meant:
        return Card(meant[0].name, meant[0].total_bytes, meant[0].context_bytes)
    if _is_name(limit):
        raise ArgumentError(_unknown(limit))
    return Card(None, parse_bytes(limit), DEFAULT_CONTEXT.total_bytes)


def _whole_bytes(limit: SupportsIndex) -> int:
    try:
        return whole(limit, "limit")
    except ArgumentError:
        raise ArgumentError(f"limit: expected bytes or text such as '24GiB', found {shorten(limit)}") from None


def _is_name(text: str) -> bool:
    """Tell a name from a size: a size begins with its number."""
    return re.match(r"\s*[a-zA-Z]", text) is not None


def _unknown(name: str) -> str:
    known = {spelling: card.name for card in CARDS for spelling in card.spellings}
    match = nearest(_compact(name), known)
    advice = f" Did you mean '{known[match]}'?" if match else ""
    return f"expected a size such as 24GiB, or a card such as 'RTX 4090', found {shorten(name)}.{advice}"
