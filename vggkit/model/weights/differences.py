"""Where a file's own network computes other answers than the one that the file is loaded into.

Each network is read as weight layers, with what stands behind each in its plainest form in inference. Weight layers are
paired by the file's tensors that they hold, so that names don't matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import VggkitError, shorten
from vggkit.model.weights.checkpoint import Checkpoint, OwnNetwork, flattened
from vggkit.model.weights.keras_description import Departure
from vggkit.model.weights.matching import Matching, match
from vggkit.network import Network, PlacedLayer
from vggkit.notation.layers import Conv2d, Flatten, GroupNorm, Layer, times
from vggkit.notation.preprocess import spell_preprocess
from vggkit.notation.spelling import fields, spell_value

ADVICE = "load_model builds the network that the file is of; strict=False loads its weights into this one all the same"


def differences(network: Network, checkpoint: Checkpoint, matching: Matching, *, include_top: bool = True) -> list[str]:
    """Tell in the network's own terms what would change its answers.

    Args:
        network: what a file is loaded into.
        checkpoint: the file.
        matching: which layer is which.
        include_top: False leaves the network's classifier out.

    Returns:
        A line for each difference; empty if there is none, or the file says nothing of itself.
    """
    try:
        own = checkpoint.own()
        if own is None:
            return []
        own_matching = None if own.network is None else match(own.network, checkpoint)
        if own.network and own_matching and own_matching.differences and not include_top:  # of its head, perhaps
            own_matching = match(own.network, checkpoint, include_top=False)
    except VggkitError as error:
        return [f"the file's own configuration can't be used: {shorten(str(error).splitlines()[0], 200)[1:-1]}"]
    if own.network is None or own_matching is None or own_matching.differences:
        reason = own_matching.differences[0] if own_matching else "it is no chain of layers"
        names = ["input", *(placed.name for placed in network.weight_layers)]
        foreign = [departure for departure in own.departures if include_top or not departure.top]
        return [_foreign(names[min(departure.behind, len(names) - 1)], departure) for departure in foreign] or [
            f"what the file says of its network is not of its tensors: {reason}"
        ]
    there = {pair.stored.name: pair.placed.name for pair in own_matching.pairs}
    counterparts = {pair.placed.name: there[pair.stored.name] for pair in matching.pairs if pair.stored.name in there}
    compared = _Comparison(network, own.network, counterparts, own.departures, include_top=include_top)
    return [*_of_pictures(network, own), *compared.lines()]


def _of_pictures(network: Network, own: OwnNetwork) -> Iterator[str]:
    """Yield a line if a file's network prepares pictures itself, and the other's configuration does not say so."""
    if own.prepares not in (None, network.config.preprocess):
        said = ", ".join(f"{word} {shorten(value)}" for word, value in spell_preprocess(own.prepares).items())
        yield f"input: the file's network prepares pictures itself: {said}; this configuration's preprocess does not"


def _foreign(name: str, departure: Departure) -> str:
    return f"{name}: the file has {departure.text}, which no configuration can express"


class _Step(NamedTuple):
    """A layer without a counterpart among the file's tensors of weights.

    Args:
        placed: it, at its place.
        layer: its plainest form in inference.
    """

    placed: PlacedLayer
    layer: Layer

    @property
    def sort(self) -> str:
        """What it is among the layers behind a weight layer."""
        layer = self.placed.layer
        return "pool" if layer.fixes_size else layer.sort


class _Part(msgspec.Struct):
    """A weight layer, and what stands behind it up to the next.

    Args:
        weight: that layer; None for the network's input.
        behind: the layers behind it that do something in inference.
    """

    weight: PlacedLayer | None
    behind: list[_Step] = []

    @property
    def name(self) -> str:
        return "input" if self.weight is None else self.weight.name


def _parts(layers: Sequence[PlacedLayer]) -> list[_Part]:
    """Return a network's parts; a last soft-max is left out, as models hand on the scores."""
    if layers and layers[-1].block is None and layers[-1].layer.gives_probabilities:
        layers = layers[:-1]
    parts = [_Part(None)]
    for placed in layers:
        if placed.layer.is_weight_layer:
            # the order of flattened maps is converted with the weights that take them
            parts[-1].behind = [step for step in parts[-1].behind if not step.layer.flattens]
            parts.append(_Part(placed))
            continue
        layer = placed.layer.in_inference(placed.input_shape)
        if layer is not None:
            parts[-1].behind.append(_Step(placed, layer))
    return parts


class _Comparison:
    """A network beside a file's own.

    Args:
        network: what the file is loaded into.
        own: the file's.
        names: the names in the file's network of the layers that have its tensors.
        departures: what the file says besides.
        include_top: whether the network's classifier is compared.
    """

    def __init__(
        self,
        network: Network,
        own: Network,
        names: dict[str, str],
        departures: Sequence[Departure],
        *,
        include_top: bool,
    ) -> None:
        self.network, self.own, self.include_top = network, own, include_top
        self.departures = [departure for departure in departures if include_top or not departure.top]
        self.made = {placed.name: placed for placed in own}  # as it was made, whatever its input is here
        self.ours = _parts([placed for placed in network if include_top or placed.block is not None])
        self.theirs = _parts(_resized(own, network).layers)
        places = {part.name: place for place, part in enumerate(self.theirs)}
        self.places = {name: places[there] for name, there in names.items() if there in places}

    def lines(self) -> Iterator[str]:
        before: int | None = None
        for number, part in enumerate(self.ours):
            place = self.places.get(part.name) if part.weight else self._start()
            if place is None:  # it has none of the file's tensors
                before = None
                continue
            other = self.theirs[place]
            for skipped in self.theirs[before + 1 : place] if before is not None else ():
                yield f"{part.name}: the file has {skipped.name} before it, this configuration has no such layer"
            if part.weight is not None and other.weight is not None:
                yield from self._of_weights(part.weight, other.weight)
            foreign = [_foreign(part.name, departure) for departure in self.departures if departure.behind == place]
            last = number == len(self.ours) - 1
            yield from foreign or _behind(part, other, open_end=last and not self.include_top)
            yield from self._of_groups(part)
            before = place

    def _start(self) -> int | None:
        """Return the place of the file's input, if the network's first weight layer has the file's first weights."""
        first = self.ours[1].name if len(self.ours) > 1 else None
        return 0 if first is None or self.places.get(first) == 1 else None

    def _of_weights(self, ours: PlacedLayer, theirs: PlacedLayer) -> Iterator[str]:
        taken, there = flattened(self.network, ours), flattened(self.own, self.made[theirs.name])
        if taken and there and taken.maps != there.maps:
            yield f"{ours.name}: the file's takes maps of {times(there.maps)}, this configuration's {times(taken.maps)}"
            return
        layer, other = _plain(ours), _plain(theirs)
        if isinstance(layer, Conv2d) and not isinstance(other, Conv2d):
            other = replace(layer, kernel_size=there.maps[1:] if there else (1, 1), padding=(0, 0), groups=1)
        elif isinstance(other, Conv2d) and not isinstance(layer, Conv2d):
            layer = replace(other, kernel_size=taken.maps[1:] if taken else (1, 1), padding=(0, 0), groups=1)
        yield from _of_fields(ours.name, layer, other)

    def _of_groups(self, part: _Part) -> Iterator[str]:
        """Tell where groups hold other flattened values: weights can be reordered, groups can't."""
        orders = [placed.layer.order for placed in self.own if isinstance(placed.layer, Flatten)]
        for step in part.behind:
            taken = flattened(self.network, step.placed)
            if taken and isinstance(step.layer, GroupNorm) and taken.order not in orders:
                yield f"{step.placed.name}: the file groups flattened maps in another order than {taken.order}"


def _plain(placed: PlacedLayer) -> Layer:
    return placed.layer.in_inference(placed.input_shape) or placed.layer


def _resized(own: Network, network: Network) -> Network:
    """Return a file's network for the input of the one that it is loaded into, if that fits it."""
    try:
        return Network.of(own, input=network.input_shape)
    except VggkitError:
        return own


def _of_fields(name: str, ours: Layer, theirs: Layer) -> Iterator[str]:
    """Tell in which options two layers of one kind differ."""
    for word, field in fields(type(ours)).items():
        mine, found = getattr(ours, field.name), getattr(theirs, field.name)
        if mine != found:
            yield f"{name}: the file's {word} is {_spelt(found)}, this configuration's {_spelt(mine)}"


def _spelt(value: Any) -> str:
    return str(spell_value(value)) if value is not None else "none"


def _behind(part: _Part, beside: _Part, *, open_end: bool) -> Iterator[str]:
    """Tell what is different behind a weight layer; with an open end, the file may have more."""
    ours, theirs = part.behind, beside.behind
    if open_end and [step.layer for step in theirs[: len(ours)]] == [step.layer for step in ours]:
        return
    mine, found = [step.sort for step in ours], [step.sort for step in theirs]
    if mine != found and sorted(mine) == sorted(found):
        start = next(place for place, (one, other) in enumerate(zip(mine, found)) if one != other)
        end = len(mine) - next(
            back for back, pair in enumerate(zip(reversed(mine), reversed(found))) if len({*pair}) > 1
        )
        words = _listed(theirs[start:end]), _listed(ours[start:end])
        yield f"{part.name}: behind it the file has {words[0]}, this configuration {words[1]}"
        ours, theirs = ours[:start] + ours[end:], theirs[:start] + theirs[end:]
        mine = found = mine[:start] + mine[end:]
    for kind, start, end, other_start, other_end in SequenceMatcher(None, mine, found, autojunk=False).get_opcodes():
        if kind == "equal":
            for step, there in zip(ours[start:end], theirs[other_start:other_end]):
                yield from _of_steps(part, step, there)
            continue
        yield from (_alone(part, step, in_file=True) for step in theirs[other_start:other_end])
        yield from (_alone(part, step, in_file=False) for step in ours[start:end])


def _listed(steps: Sequence[_Step]) -> str:
    return ", ".join(step.placed.layer.keyword for step in steps)


def _of_steps(part: _Part, ours: _Step, theirs: _Step) -> Iterator[str]:
    if type(ours.layer) is type(theirs.layer):
        yield from _of_fields(ours.placed.name, ours.layer, theirs.layer)
        return
    name = part.name if part.weight and ours.sort in ("activation", "norm") else ours.placed.name
    mine, found = ours.placed.layer.keyword, theirs.placed.layer.keyword
    yield f"{name}: the file's {ours.sort} is {found}, this configuration's {mine}"


def _alone(part: _Part, step: _Step, *, in_file: bool) -> str:
    """Tell what only one of the two has behind a weight layer."""
    word = step.placed.layer.keyword
    if part.weight and step.sort in ("activation", "norm"):
        found, mine = (word, "none") if in_file else ("none", word)
        return f"{part.name}: the file's {step.sort} is {found}, this configuration's {mine}"
    if in_file:
        return f"{part.name}: behind it the file has {word}, this configuration has none"
    return f"{step.placed.name}: the file has no {word} there, this configuration has"
