"""What the shell completes: names of configurations and layers, and the words of options.

Each set of words is imported where it is asked for, so that a shell waits for no other, and never for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from vggkit.base.errors import ArgumentError, VggkitError

Complete = Callable[[click.Context, click.Parameter, str], list[Any]]
"""What click calls with the beginning of a word."""


def configurations(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names and aliases of shipped configurations, and files."""
    from vggkit.notation.zoo import known_names

    return [*map(CompletionItem, _beginning(known_names(), incomplete)), CompletionItem(incomplete, type="file")]


def _beginning(words: Iterable[str], begun: str) -> list[str]:
    return [word for word in words if word.lower().startswith(begun.lower())]


def words_of(known: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """Return what completes a word, or the last of several that commas separate.

    Args:
        known: returns the words that there are, for the context and the beginning.
    """

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        try:
            return [f"{before}{comma}{word}" for word in _beginning(known(ctx, begun), begun)]
        except VggkitError:  # a configuration that is wrong has no words
            return []

    return complete


@words_of
def compared(*_: object) -> Iterable[str]:
    """Complete what `compare --only` shows."""
    from vggkit.figures.compare import EVERYTHING

    return EVERYTHING


@words_of
def figures(*_: object) -> Iterable[str]:
    """Complete the name of a figure."""
    from vggkit.figures.measures import FOUND

    return FOUND


@words_of
def devices(*_: object) -> Iterable[str]:
    """Complete a device."""
    from vggkit.footprint.steps.options import DEVICES

    return DEVICES


@words_of
def cards(*_: object) -> Iterable[str]:
    """Complete a card's name; its spaces are hyphens, which mean the same and need no quotes."""
    from vggkit.footprint.cards import CARDS

    return [card.name.replace(" ", "-") for card in CARDS]


@words_of
def modes(*_: object) -> Iterable[str]:
    """Complete what memory is planned for."""
    from vggkit.footprint.steps.options import MODES

    return MODES


@words_of
def losses(*_: object) -> Iterable[str]:
    """Complete the name of a loss."""
    from vggkit.footprint.steps.losses import LOSSES

    return LOSSES


@words_of
def zero_grads(*_: object) -> Iterable[str]:
    """Complete what becomes of gradients before a step."""
    from vggkit.footprint.steps.options import ZERO_GRADS

    return ZERO_GRADS


@words_of
def strategies(*_: object) -> Iterable[str]:
    """Complete what several ranks do."""
    from vggkit.footprint.ranks import STRATEGIES

    return STRATEGIES


@words_of
def group_figures(*_: object) -> Iterable[str]:
    """Complete what strategies are sorted by."""
    from vggkit.footprint.group_plan import SORTS

    return SORTS


@words_of
def units(*_: object) -> Iterable[str]:
    """Complete what fsdp gathers together."""
    from vggkit.footprint.ranks import UNITS

    return UNITS


@words_of
def mixed_dtypes(*_: object) -> Iterable[str]:
    """Complete what fsdp gathers parameters in, and adds gradients up in."""
    from vggkit.footprint.ranks import MIXED_DTYPES

    return MIXED_DTYPES


@words_of
def schedules(*_: object) -> Iterable[str]:
    """Complete the order of a pipeline's microbatches."""
    from vggkit.footprint.ranks import SCHEDULES

    return SCHEDULES


@words_of
def balances(*_: object) -> Iterable[str]:
    """Complete what a pipeline's cuts balance."""
    from vggkit.footprint.ranks import BALANCES

    return BALANCES


@words_of
def optimizers(*_: object) -> Iterable[str]:
    """Complete the name of an optimizer."""
    from vggkit.footprint.optimizers import OPTIMIZERS

    return OPTIMIZERS


@words_of
def dtypes(*_: object) -> Iterable[str]:
    """Complete the type of numbers."""
    from vggkit.network import ELEMENT_BYTES

    return ELEMENT_BYTES


@words_of
def pictures(*_: object) -> Iterable[str]:
    """Complete a kind of picture."""
    from vggkit.pictures.plot import PICTURE_KINDS

    return PICTURE_KINDS


@words_of
def picture_formats(*_: object) -> Iterable[str]:
    """Complete a format of pictures."""
    from vggkit.pictures.plot import FORMATS

    return FORMATS


@words_of
def layers(ctx: click.Context, begun: str) -> Iterable[str]:
    """Complete a layer's name here; once it is begun, in Caffe and torchvision too."""
    from vggkit.network import all_names

    every = all_names(_network(ctx))
    others = [name for names in every for name in (names.authors, names.torchvision) if begun and name]
    return dict.fromkeys([*(names.name for names in every), *others])


@words_of
def blocks(ctx: click.Context, *_: object) -> Iterable[str]:
    """Complete a block's name."""
    return dict.fromkeys(placed.block for placed in _network(ctx) if placed.block)


@words_of
def parts(ctx: click.Context, *_: object) -> Iterable[str]:
    """Complete the name of a block or of a layer with weights."""
    placed = _network(ctx).weight_layers
    return dict.fromkeys([*(one.block for one in placed if one.block), *(one.name for one in placed)])


def _network(ctx: click.Context) -> Any:
    """Return the network of the configuration and the changes that the command line has."""
    from vggkit.network import Network
    from vggkit.notation.document import setting

    # where an option lacks its value, as it does while that is typed, click leaves the arguments unread
    source = ctx.params.get("source") or next(iter(ctx.args), None)
    if source is None:
        raise ArgumentError("no configuration yet")
    return Network.of(source, **dict(map(setting, ctx.params.get("settings") or ())))


def settings(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an override's name, and after it the values that have names."""
    from vggkit.notation.overrides import OVERRIDES

    word, equals, values = incomplete.partition("=")
    if not equals:
        return [CompletionItem(f"{name}=", help=OVERRIDES[name].meaning) for name in _beginning(OVERRIDES, word)]
    before, comma, begun = values.rpartition(",")
    return [CompletionItem(f"{word}={before}{comma}{value}") for value in _beginning(_values(word), begun)]


def _values(word: str) -> list[str]:
    """Return the names of an override's values; none where they are numbers."""
    from vggkit.notation.layers import KINDS
    from vggkit.notation.overrides import OVERRIDES

    schema = OVERRIDES[word].schema if word in OVERRIDES else {}
    if schema.get("type") == "boolean":
        return ["true", "false"]
    if word == "activation":
        return [*(kind.keyword for kind in KINDS if kind.is_activation), "none"]
    return [*schema.get("enum", ())]
