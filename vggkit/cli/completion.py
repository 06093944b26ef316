"""What the shell offers to complete: names of configurations and layers, and the words of options; without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from vggkit.base.errors import ArgumentError, VggkitError

Complete = Callable[[click.Context, click.Parameter, str], list[Any]]
"""What click calls with what is begun."""


def configurations(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001  # click's
    """Complete the names and aliases of shipped configurations, and files."""
    from vggkit.notation.zoo import known_names

    return [*map(CompletionItem, _beginning(known_names(), incomplete)), CompletionItem(incomplete, type="file")]


def _beginning(words: Iterable[str], begun: str) -> list[str]:
    return [word for word in words if word.lower().startswith(begun.lower())]


def words_of(known: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """Return what completes one of some words, or the last one of several that commas separate.

    Args:
        known: gives the words, for the context and what is begun.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  # click's
        before, comma, begun = incomplete.rpartition(",")
        try:
            return [f"{before}{comma}{word}" for word in _beginning(known(ctx, begun), begun)]
        except VggkitError:  # a configuration that is wrong has no words
            return []

    return complete


def _words(option: str) -> Iterable[str]:
    """Return the words of an option from where they are defined; only a shell that wants them waits for the imports."""
    from vggkit.figures.compare import EVERYTHING
    from vggkit.figures.measures import FOUND
    from vggkit.footprint.optimizers import OPTIMIZERS
    from vggkit.footprint.plan import DEVICES, MODES
    from vggkit.network import ELEMENT_BYTES
    from vggkit.pictures.plot import PICTURE_KINDS

    known: dict[str, Iterable[str]] = {
        "compared": EVERYTHING,
        "device": DEVICES,
        "dtype": ELEMENT_BYTES,
        "figure": FOUND,
        "mode": MODES,
        "optimizer": OPTIMIZERS,
        "picture": PICTURE_KINDS,
    }
    return known[option]


def _option(name: str) -> Complete:
    return words_of(lambda ctx, begun: _words(name))  # noqa: ARG005


compared, devices, dtypes, figures = map(_option, ("compared", "device", "dtype", "figure"))
modes, optimizers, pictures = map(_option, ("mode", "optimizer", "picture"))


@words_of
def layers(ctx: click.Context, begun: str) -> Iterable[str]:
    """Complete a layer's name here; once it is begun, in Caffe and torchvision too."""
    from vggkit.network import all_names

    every = all_names(_network(ctx))
    others = [name for names in every for name in (names.authors, names.torchvision) if begun and name]
    return dict.fromkeys([*(names.name for names in every), *others])


@words_of
def blocks(ctx: click.Context, begun: str) -> Iterable[str]:  # noqa: ARG001
    """Complete a block's name."""
    return dict.fromkeys(placed.block for placed in _network(ctx) if placed.block)


@words_of
def parts(ctx: click.Context, begun: str) -> Iterable[str]:  # noqa: ARG001
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


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001  # click's
    """Complete an override's name, and behind it the values that have names."""
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
