"""Cards by name: how many bytes CUDA reports for them, and how many it takes itself.

A card has less memory than it is sold with: the driver and error correction (ECC) keep a part. What is left is
`total_bytes`, which torch gives as `torch.cuda.get_device_properties(0).total_memory`. Of that CUDA itself takes
`context_bytes` before torch's allocator has anything. The cards are in cards.yaml, each figure with its source.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import msgspec
import yaml

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


def _at_least(printed: str) -> int:
    """Return the fewest bytes that are printed like this: half of the last digit may have been rounded up.

    >>> _at_least("23.64 GiB"), _at_least("25386352640 B")
    (25377888010, 25386352640)
    """
    return parse_bytes(printed) - _half_digit(printed)


def _at_most(printed: str) -> int:
    """Return the most bytes that are printed like this.

    >>> _at_most("23.64 GiB")
    25388625428
    """
    return parse_bytes(printed) + _half_digit(printed)


def _half_digit(printed: str) -> int:
    number, unit = printed.split()
    decimals = len(number.partition(".")[2])
    return parse_bytes(f"0.{'0' * decimals}5 {unit}")


# What CUDA itself takes


class Context(NamedTuple):
    """What a process that runs torch has on a card beside torch's own memory: CUDA's context and the kernels in it.

    When torch runs out of memory, it says for example: "this process has 14.56 GiB memory in use. Of the allocated
    memory 13.86 GiB is allocated by PyTorch, and 213.20 MiB is reserved by PyTorch but unallocated". The rest of what
    is in use is the context.

    Args:
        card: where that was said.
        in_use: all that the process has on the card.
        allocated: what of it torch has allocated.
        unallocated: what of it torch has reserved besides.
        source: the thread on GitHub, or the page of this project.
    """

    card: str
    in_use: str
    allocated: str
    unallocated: str
    source: str

    @property
    def total_bytes(self) -> int:
        """The most bytes that the context can have had, since the numbers are rounded."""
        return _at_most(self.in_use) - _at_least(self.allocated) - _at_least(self.unallocated)


CONTEXTS = {
    "7.5": Context("T4", "13.92 GiB", "13.61 GiB", "185.38 MiB", "jingyaogong/minimind#307"),
    "8.0": Context("A100-80GB", "9.25 GiB", "8.27 GiB", "500.38 MiB", "lianqi1008/Control-GIC#6"),
    "8.6": Context("RTX 3090", "7.46 GiB", "7.13 GiB", "87.15 MiB", "Stable-X/StableNormal#33"),
    "8.9": Context("RTX 4090", "14.56 GiB", "13.86 GiB", "213.20 MiB", "3DTopia/Phidias-Diffusion#8"),
    "9.0": Context("H200", "7439450112 B", "6633291776 B", "0 B", "card.md#on-a-real-card"),
}
"""The context by compute capability, each measured once, in somebody's program.

The H200's is from `vggkit verify E --batch 32 --optimizer sgd --device cuda`, where all that torch had reserved is
listed as allocated. They are rough: the kernels that a program runs, the driver and the number of multiprocessors
make a difference. Others measured 0.40 GiB on an A100 (HiDream-ai/VAREdit#6), 0.20 GiB on an RTX A4000
(DengKaiCQ/VGGT-Long#6), and 426 MiB on an RTX 6000 Ada before the first kernel (unslothai/unsloth-zoo#1053). Since
CUDA 11.7 a kernel is loaded when it is first run. Earlier, or with CUDA_MODULE_LOADING=EAGER, all are loaded at once,
which takes several hundred MiB more (pytorch/pytorch#86509).
"""

DEFAULT_CONTEXT_BYTES = CONTEXTS["8.9"].total_bytes
"""For a plain size, which is mostly a desktop's card, and for a card whose compute capability has no measurement."""


# The cards


class NamedCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A card that can be asked for by name, as cards.yaml has it.

    Args:
        name: what it is called here.
        gibibytes: the memory that it is sold with.
        capability: its compute capability.
        reported: what CUDA reports for it, as the source prints it.
        source: where it is printed.
        family: a name that it shares with others, if there is one.
        also: other names of its own.
    """

    name: str
    gibibytes: int
    capability: str
    reported: str
    source: str
    family: str | None = None
    also: tuple[str, ...] = ()

    @property
    def card(self) -> Card:
        """Its memory: the fewest bytes that are printed as what is reported, and the context of its capability."""
        context = CONTEXTS.get(self.capability)
        return Card(
            self.name, _at_least(self.reported), DEFAULT_CONTEXT_BYTES if context is None else context.total_bytes
        )

    @property
    def spellings(self) -> set[str]:
        """What finds it, as `_compact` writes it: each of its own names, with or without its size."""
        names = {_compact(name) for name in (self.name, *self.also)}
        return names | {f"{name}{self.gibibytes}gb" for name in names}


def _named_cards() -> tuple[NamedCard, ...]:
    text = Path(__file__).with_name("cards.yaml").read_text(encoding="utf-8")
    said = yaml.load(text, Loader=yaml.CSafeLoader)
    return tuple(
        msgspec.convert({**card, "capability": capability}, NamedCard)
        for capability, cards in said.items()
        for card in cards
    )


def _compact(name: str) -> str:
    """Return what of a name tells cards apart: letters and digits, without the names of product lines.

    >>> _compact("NVIDIA GeForce RTX 4090"), _compact("A100-40GB"), _compact("NVIDIA RTX 6000 Ada Generation")
    ('4090', 'a10040gb', '6000ada')
    """
    words = re.sub("nvidia|geforce|tesla|quadro", "", re.sub("[^a-z0-9]", "", name.lower()))
    return re.sub("^(rtx|gtx)|generation$", "", words)


CARDS = _named_cards()
"""The cards that have a name here, from the oldest compute capability to the newest."""


def card_of(limit: str | SupportsIndex) -> Card:
    """Return the card that somebody means.

    Args:
        limit: a card's name, as in `CARDS`; a size such as "24GiB"; or bytes. In a name letter case, spaces, hyphens
            and NVIDIA, GeForce, Tesla, Quadro, RTX and GTX don't matter.

    Raises:
        ArgumentError: if it is none of these, or if several cards have this name.

    >>> card_of("24GiB").total_bytes, card_of("rtx4090").name
    (25769803776, 'RTX 4090')
    """
    if not isinstance(limit, str):
        return Card(None, _whole_bytes(limit), DEFAULT_CONTEXT_BYTES)
    spelled = _compact(limit)
    for card in CARDS:
        if spelled in card.spellings:
            return card.card
    relatives = [card.name for card in CARDS if card.family and spelled == _compact(card.family)]
    if relatives:
        names = " or ".join(map(repr, relatives))
        raise ArgumentError(
            f"there are several cards called {shorten(limit)}; expected {names}, or a size such as 24GiB"
        )
    if re.match(r"\s*[a-zA-Z]", limit):  # a size begins with its number
        advice = _did_you_mean_card(spelled)
        raise ArgumentError(
            f"expected a size such as 24GiB, or a card such as 'RTX 4090', found {shorten(limit)}.{advice}"
        )
    return Card(None, parse_bytes(limit), DEFAULT_CONTEXT_BYTES)


def _whole_bytes(limit: SupportsIndex) -> int:
    try:
        return whole(limit, "limit")
    except ArgumentError:
        raise ArgumentError(f"limit: expected bytes or text such as '24GiB', found {shorten(limit)}") from None


def _did_you_mean_card(spelled: str) -> str:
    """Return " Did you mean 'x'?" for the card with the nearest spelling, or an empty string."""
    known = {spelling: card.name for card in CARDS for spelling in card.spellings}
    match = nearest(spelled, known)
    return f" Did you mean '{known[match]}'?" if match else ""
