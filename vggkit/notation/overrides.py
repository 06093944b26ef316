"""Changes that can be asked of any configuration, one entry of `OVERRIDES` each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex, TypedDict

from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, did_you_mean, shorten
from vggkit.base.numbers import plain
from vggkit.notation.config import Config, Entry, input_shape, last_weight
from vggkit.notation.document import scalar
from vggkit.notation.layers import (
    LARGEST,
    AvgPool2d,
    BatchNorm,
    Count,
    Dropout,
    Flag,
    InPlaceActivation,
    Layer,
    MaxPool2d,
    Positive,
    Rate,
)
from vggkit.notation.spelling import parse, parse_follower, typed


class Override(NamedTuple):
    """A change that can be asked of any configuration.

    Args:
        read: turns a plain value into the one that `apply` takes; a ValueError says what was expected.
        apply: makes the change; a ValueError says why it can't be made.
        meaning: what it does, for help texts.
        schema: its values as JSON Schema.
    """

    read: Callable[[Any], Any]
    apply: Callable[[Config, Any], Config]
    meaning: str
    schema: dict[str, Any]


class Overrides(TypedDict, total=False):
    """The keywords of `OVERRIDES` with their types; None changes nothing.

    A function takes them as `**overrides: Unpack[Overrides]`. If it collects more keywords than these, it takes a
    TypedDict that inherits from this one. Type checkers then know every keyword. `check_keywords` checks at run time.

    Args:
        head: "paper" for the FC layers of the paper, "gap" for a global average pool.
        num_classes: units of the last layer of the classifier.
        input: shape of one image, "3x224x224" or (3, 224, 224).
        in_channels: channels of the input.
        width: multiplies all channels and units except the classes: 0.5, or with a rounding "0.5 multiple of 8".
        pool: "max" or "avg", for the pools in the blocks.
        activation: replaces every activation, by name or with its options; "none" removes them.
        inplace: False gives each activation memory of its own.
        batch_norm: whether batch norm follows the convolutions.
        dropout: rate after the hidden FC layers; 0 for none.
    """

    head: str | None
    num_classes: SupportsIndex | None
    input: str | Sequence[SupportsIndex] | None
    in_channels: SupportsIndex | None
    width: str | SupportsFloat | None
    pool: str | None
    activation: str | Mapping[str, Any] | None
    inplace: bool | None
    batch_norm: bool | None
    dropout: SupportsFloat | None


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a configuration with changes made to it, in the order of `OVERRIDES`.

    Args:
        config: the one to change.
        changes: new values by the overrides' names; None changes nothing.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.

    >>> override(Config("x", input=(3, 224, 224)), {"in_channels": 1}).input
    (1, 224, 224)
    """
    for word in in_order(changes):
        if changes[word] is not None:
            config = apply_override(config, word, read_override(word, changes[word]))
    return config


def in_order(words: Iterable[str]) -> list[str]:
    """Return names of overrides in the order in which they are applied, unknown ones last."""
    order = list(OVERRIDES)
    return sorted(words, key=lambda word: order.index(word) if word in OVERRIDES else len(order))


def read_override(word: str, value: Any) -> Any:
    """Check the name and the value of an override; return the typed value.

    Raises:
        ArgumentError: names the override, what was found and what is allowed.
    """
    check_override(word)
    try:
        return OVERRIDES[word].read(plain(value))
    except ValueError as error:
        raise ArgumentError(f"{word}: {error}") from None


def check_override(word: str) -> None:
    """Check the name of an override.

    Raises:
        ArgumentError: if it is unknown; names the nearest one, or all.
    """
    if word not in OVERRIDES:
        advice = did_you_mean(word, OVERRIDES) or f" Known: {', '.join(OVERRIDES)}"
        raise ArgumentError(f"unknown override {shorten(word)}.{advice}")


def check_keywords(function: Callable[..., Any], given: Iterable[str], more: Iterable[str] = ()) -> None:
    """Check the keywords that a function collected as overrides.

    Args:
        function: the function.
        given: the names of the keywords.
        more: names that are allowed beside its own arguments and the overrides.

    Raises:
        ArgumentError: if a name is unknown; names the nearest one, or all.
    """
    known = (*(function.__kwdefaults__ or {}), *more, *OVERRIDES)
    for word in given:
        if word not in OVERRIDES and word not in more:
            advice = did_you_mean(word, known) or f" Known: {', '.join(known)}"
            raise ArgumentError(f"{function.__name__}: unknown keyword {shorten(word)}.{advice}")


def divided(
    function: Callable[..., Any], given: Mapping[str, Any], more: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the keywords that a function collected, and divide them.

    Args:
        function: the function.
        given: the keywords.
        more: names that are allowed beside its own arguments and the overrides.

    Returns:
        The overrides, and the others.

    Raises:
        ArgumentError: if a name is unknown; names the nearest one, or all.
    """
    check_keywords(function, given, more)
    overrides = {word: value for word, value in given.items() if word not in more}
    return overrides, {word: value for word, value in given.items() if word in more}


def apply_override(config: Config, word: str, value: Any) -> Config:
    """Make one change, whose value has been read.

    Raises:
        ArgumentError: if the change can't be made to this configuration.
    """
    try:
        changed = OVERRIDES[word].apply(config, value)
    except ValueError as error:
        raise ArgumentError(f"{word}: {error}") from None
    # published figures don't hold for a changed network
    return config if changed == config else replace(changed, reported=None)


def _map_entries(config: Config, change: Callable[[Entry], Entry | None]) -> Config:
    """Change each entry of a configuration. None drops an entry; a block that becomes empty is dropped, too."""

    def changed(entries: Iterable[Entry]) -> tuple[Entry, ...]:
        return tuple(new for entry in entries if (new := change(entry)) is not None)

    blocks = tuple(block for old in config.blocks if (block := changed(old)))
    return replace(config, blocks=blocks, classifier=changed(config.classifier))


def _units(layer: Layer) -> int:
    """Return the number of output channels or units of a layer with weights."""
    units: int = getattr(layer, str(layer.primary))
    return units


def _with_units(entry: Entry, units: int) -> Entry:
    return replace(entry, layer=replace(entry.layer, **{str(entry.layer.primary): units}))


_HEADS = {
    "paper": ("FC-4096", "FC-4096", "FC-{}", "soft-max"),
    "gap": ("global-avgpool", "FC-{}", "soft-max"),
}


def _with_head(config: Config, head: str) -> Config:
    last = last_weight(config)
    classes = _units(last.layer) if last else 1000
    specs = [(parse(text.format(classes)), None) for text in _HEADS[head]]
    return replace(config, classifier=config.defaults.classifier(specs))


def _with_num_classes(config: Config, count: int) -> Config:
    last = last_weight(config)
    if last is None:
        raise ValueError(f"{config.name} has no classifier; head=paper or head=gap adds one")
    return _map_entries(config, lambda entry: _with_units(entry, count) if entry is last else entry)


_WIDTH = re.compile(r"(\S+)(?: (?:(floor|ceil)|multiple of ([1-9][0-9]{0,17})))?")


class Width(NamedTuple):
    """A width multiplier.

    Args:
        factor: widths are multiplied by it.
        rounding: "floor", "ceil", or a number whose multiples the widths become.
    """

    factor: float
    rounding: str | int = "floor"

    @classmethod
    def parse(cls, value: Any) -> Width:
        """Read a width multiplier with its rounding rule.

        Raises:
            ValueError: says what was found and what was expected.

        >>> Width.parse("0.5 multiple of 8")
        Width(factor=0.5, rounding=8)
        """
        if not isinstance(value, str):
            return cls(typed(value, Positive))
        match = _WIDTH.fullmatch(value)
        try:
            if match is None:
                raise ValueError
            factor = typed(scalar(match.group(1)), Positive)
        except ValueError:
            expected = "a number above 0, alone or followed by floor, ceil or multiple of 8"
            raise ValueError(f"expected {expected}, found {shorten(value)}") from None
        _, word, multiple = match.groups()
        return cls(factor, int(multiple) if multiple else word or "floor")

    def of(self, width: int) -> int:
        """Return a number of channels or units times the factor, rounded.

        Raises:
            ValueError: if it becomes too large.

        >>> Width(0.3).of(64)
        19
        """
        from fractions import Fraction  # takes 3 ms to import, and few calls need it

        exact = width * Fraction(str(self.factor))  # 0.29 of 100 channels are 29, not ⌊28.999…⌋
        if isinstance(self.rounding, int):
            # MobileNetV2's rule (tensorflow/models, slim/nets/mobilenet, _make_divisible): the nearest multiple, halves
            # up, but never less than nine tenths
            wanted = max(self.rounding, floor((2 * exact + self.rounding) / (2 * self.rounding)) * self.rounding)
            wanted += 0 if 10 * wanted >= 9 * exact else self.rounding
        else:
            wanted = ceil(exact) if self.rounding == "ceil" else floor(exact)
        if wanted > LARGEST:
            raise ValueError(f"expected a factor that leaves widths up to {LARGEST:.0e}, found {self.factor}")
        return max(1, wanted)


def _with_width(config: Config, width: Width) -> Config:
    last = last_weight(config)

    def scale(entry: Entry) -> Entry:
        if not entry.layer.is_weight_layer or entry is last:
            return entry
        return _with_units(entry, width.of(_units(entry.layer)))

    return _map_entries(config, scale)


def _with_pool(config: Config, which: str) -> Config:
    wanted, other = (MaxPool2d, AvgPool2d) if which == "max" else (AvgPool2d, MaxPool2d)

    def swap(entry: Entry) -> Entry:
        pool = entry.layer
        if not isinstance(pool, (MaxPool2d, AvgPool2d)) or not isinstance(pool, other):
            return entry
        if isinstance(pool, MaxPool2d) and pool.dilation != (1, 1):
            raise ValueError("an average pool can't be dilated, and a pool of this network is")
        window = {name: getattr(pool, name) for name in ("kernel_size", "stride", "padding", "ceil_mode")}
        return replace(entry, layer=wanted(**window))

    return replace(config, blocks=tuple(tuple(map(swap, block)) for block in config.blocks))


def _with_activation(config: Config, activation: Layer | None) -> Config:
    def change(entry: Entry) -> Entry | None:
        if entry.layer.is_activation:
            return replace(entry, layer=activation) if activation else None
        return replace(entry, activation=activation) if entry.activation else entry

    config = replace(config, defaults=replace(config.defaults, activation=activation))
    return _map_entries(config, change)


def _with_inplace(config: Config, wanted: bool) -> Config:
    def switched(layer: Any) -> Any:
        return replace(layer, inplace=wanted) if isinstance(layer, InPlaceActivation) else layer

    config = replace(config, defaults=replace(config.defaults, activation=switched(config.defaults.activation)))
    return _map_entries(
        config, lambda entry: replace(entry, layer=switched(entry.layer), activation=switched(entry.activation))
    )


def _with_batch_norm(config: Config, wanted: bool) -> Config:
    if not wanted:
        return _without_batch_norm(config)

    def add(block: tuple[Entry, ...]) -> tuple[Entry, ...]:
        nexts = (*block[1:], None)
        return tuple(
            replace(entry, norm=BatchNorm())
            if "norm" in entry.layer.followers and not entry.norm and not (after and after.layer.is_norm)
            else entry
            for entry, after in zip(block, nexts)
        )

    defaults = replace(config.defaults, norm=config.defaults.norm or BatchNorm())
    return replace(config, defaults=defaults, blocks=tuple(map(add, config.blocks)))


def _without_batch_norm(config: Config) -> Config:
    def remove(entry: Entry) -> Entry | None:
        if isinstance(entry.layer, BatchNorm):
            return None
        return replace(entry, norm=None) if isinstance(entry.norm, BatchNorm) else entry

    if isinstance(config.defaults.norm, BatchNorm):
        config = replace(config, defaults=replace(config.defaults, norm=None))
    return _map_entries(config, remove)


def _with_dropout(config: Config, rate: float) -> Config:
    last = last_weight(config)
    standing_alone = any(entry.layer.is_dropout for entry in config.classifier)

    def change(entry: Entry) -> Entry | None:
        if isinstance(entry.layer, Dropout):
            return replace(entry, layer=Dropout(rate)) if rate else None
        hidden = "dropout" in entry.layer.followers and entry is not last and not standing_alone
        return replace(entry, dropout=rate) if hidden or entry.dropout else entry

    config = replace(config, defaults=replace(config.defaults, dropout=rate))
    return _map_entries(config, change)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, found {shorten(value)}")
        return str(value)

    return read


def _of_type(kind: Any) -> Callable[[Any], Any]:
    return lambda value: typed(value, kind)


OVERRIDES: dict[str, Override] = {
    "head": Override(
        read=_one_of(*_HEADS),
        apply=_with_head,
        meaning="classifier: paper (FC-4096, FC-4096, FC-classes) or gap (global average)",
        schema={"enum": list(_HEADS)},
    ),
    "num_classes": Override(
        read=_of_type(Count),
        apply=_with_num_classes,
        meaning="units of the last layer of the classifier",
        schema={"type": "integer", "minimum": 1},
    ),
    "input": Override(
        read=input_shape,
        apply=lambda config, shape: replace(config, input=shape),
        meaning="shape of one image, as 3x224x224",
        schema={"$ref": "#/$defs/input"},
    ),
    "in_channels": Override(
        read=_of_type(Count),
        apply=lambda config, count: replace(config, input=(count, *config.input[1:])),
        meaning="channels of the input",
        schema={"type": "integer", "minimum": 1},
    ),
    "width": Override(
        read=Width.parse,
        apply=_with_width,
        meaning="multiplies all channels and units except the classes; 0.5 rounds down, 0.5 ceil rounds up,"
        " 0.5 multiple of 8 to a multiple",
        schema={
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": "^[0-9.eE+-]+( (floor|ceil|multiple of [1-9][0-9]*))?$"},
            ]
        },
    ),
    "pool": Override(
        read=_one_of("max", "avg"),
        apply=_with_pool,
        meaning="max or avg, for the pools in the blocks",
        schema={"enum": ["max", "avg"]},
    ),
    "activation": Override(
        read=lambda value: parse_follower("activation", value),
        apply=_with_activation,
        meaning="replaces every activation; none removes them",
        schema={"$ref": "#/$defs/activation"},
    ),
    "inplace": Override(
        read=_of_type(Flag),
        apply=_with_inplace,
        meaning="whether activations work in place; false is for hooks that need each output",
        schema={"type": "boolean"},
    ),
    "batch_norm": Override(
        read=_of_type(Flag),
        apply=_with_batch_norm,
        meaning="whether batch norm follows the convolutions",
        schema={"type": "boolean"},
    ),
    "dropout": Override(
        read=_of_type(Rate),
        apply=_with_dropout,
        meaning="rate after the hidden FC layers; 0 for none",
        schema={"type": "number", "minimum": 0, "exclusiveMaximum": 1},
    ),
}
"""Every override, in the order in which they are applied."""
