"""Which configuration a checkpoint is: a shipped one, a variant of one, or one written from its shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, isqrt

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import CheckpointError, VggkitError
from vggkit.model.weights.checkpoint import Checkpoint, OwnNetwork, StoredLayer
from vggkit.model.weights.matching import Matching, match, misfit
from vggkit.model.weights.published import of_file
from vggkit.network import Network, PlacedLayer
from vggkit.notation.config import Config, Entry
from vggkit.notation.layers import BatchNorm, Layer, Shape, elements, times
from vggkit.notation.overrides import override
from vggkit.notation.spelling import describe
from vggkit.notation.zoo import family_names, loads, names


class Identity(msgspec.Struct, frozen=True):
    """What a checkpoint is.

    Args:
        network: it, as a network.
        description: the same in words: "D with batch norm, 10 classes, input 3×224×224".
        known: the name of the shipped configuration that it is, or a variant of; None if it is none.
        matching: which layer is which.
        notes: what the file does not say and was assumed.
        unclear: what its model's answers depend on and is only guessed, with what to do; None if nothing is.
    """

    network: Network
    description: str
    known: str | None
    matching: Matching
    notes: tuple[str, ...] = ()
    unclear: str | None = None


def identify(checkpoint: Checkpoint) -> Identity:
    """Tell which configuration a checkpoint is, to read its values.

    Args:
        checkpoint: an open one.

    Raises:
        CheckpointError: if it is no chain of convolutions and FC layers that could be told, or its values could mean
            two things.
    """
    identity = likeliest(checkpoint)
    if identity.unclear:
        raise CheckpointError(f"{checkpoint.path}: {identity.unclear}")
    return identity


def likeliest(checkpoint: Checkpoint) -> Identity:
    """Tell which configuration a checkpoint is, also where something in it is a guess.

    Args:
        checkpoint: an open one.

    Raises:
        CheckpointError: if it is no chain of convolutions and FC layers that could be told.
    """
    own = checkpoint.own()
    said = None if own is None else _said(checkpoint, own)
    if said is not None:
        return said
    foreign = None if own is None else _foreign(own) or "its description is of other layers than its tensors"
    sketch, ambiguous = _Sketch(checkpoint), None
    for candidate in sketch.candidates():
        try:
            network = Network.of(candidate.config)
            matching = match(network, checkpoint)
        except CheckpointError as error:
            ambiguous = error
        except VggkitError:
            continue
        else:
            if matching.differences:
                continue
            known = candidate.names
            words = _described(network, known, checkpoint)
            unclear = _advised(foreign) or sketch.unclear(network)
            notes = (*sketch.notes(network, candidate), *filter(None, [foreign]))
            return Identity(network, words, known[0] if known else None, matching, notes, unclear)
    if foreign:
        raise CheckpointError(f"{checkpoint.path}: {_advised(foreign)}")
    raise ambiguous or CheckpointError(
        f"{checkpoint.path}: its {len(checkpoint.layers)} layers are no chain of convolutions and FC layers whose"
        f" configuration could be told; name it with --config"
    )


def _said(checkpoint: Checkpoint, own: OwnNetwork) -> Identity | None:
    """Trust what the file says of its network, if its tensors agree."""
    network = own.network
    if network is None:
        return None
    matching = match(network, checkpoint) if checkpoint.layers else Matching((), "not at all: it has no weights")
    if matching.differences and checkpoint.described.layers:
        return None
    if matching.differences:
        raise misfit(network, checkpoint, matching.differences)
    known = tuple(_zoo_names(network))
    if known and checkpoint.described.layers:
        network = Network.of(replace(network.config, name=known[0]))
    foreign, words = _foreign(own), _described(network, known, checkpoint)
    notes = tuple(filter(None, [foreign]))
    return Identity(network, words, known[0] if known else None, matching, notes, _advised(foreign))


def _foreign(own: OwnNetwork) -> str | None:
    """Tell what a file's network has and no configuration can express."""
    texts = [departure.text for departure in own.departures]
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return f"its network has {', '.join(texts[:3])}{more}, which no configuration can express" if texts else None


def _advised(foreign: str | None) -> str | None:
    return foreign and f"{foreign}; build(CONFIGURATION, weights=…, strict=False) takes its weights all the same"


def _zoo_names(network: Network) -> Iterator[str]:
    """Yield the shipped configurations that this is: the one of its name, the paper's, or the family's."""
    if network.name in family_names() and _is_network(network, Network.of(network.name)):
        yield network.name
        return
    papers = list(_papers_names(network))
    yield from papers or (one.name for one in _family() if _is_network(network, one))


@lru_cache(maxsize=1)
def _family() -> tuple[Network, ...]:
    return tuple(map(Network.of, family_names()))


@lru_cache
def _shipped(name: str, batch_norm: bool) -> Network:
    return Network.of(name, batch_norm=batch_norm or None)


def _is_network(network: Network, shipped: Network) -> bool:
    """Tell whether a network is a shipped one in every layer."""
    return [placed.layer for placed in network] == [placed.layer for placed in shipped]


def _papers_names(network: Network) -> Iterator[str]:
    """Yield the paper's configuration whose blocks these are, at any width."""
    ours = _in_blocks(network)
    normed = "batchnorm" in ours
    for name in names():
        shipped = _shipped(name, normed)
        factor = _factor(shipped, _channels(network), _units(network))
        if factor is None:
            continue
        if ours == _in_blocks(Network.of(shipped, width=factor)):
            yield name


def _in_blocks(network: Network) -> list[Layer | str]:
    """Return the layers in the blocks, norms as their keyword: their epsilon may be another library's."""
    layers = [placed.layer for placed in network if placed.block is not None]
    return [layer.keyword if layer.is_norm else layer for layer in layers]


def _convolutions(network: Network) -> list[PlacedLayer]:
    return [placed for placed in network if placed.layer.is_convolution and placed.block is not None]


def _channels(network: Network) -> list[int]:
    return [placed.output_shape[0] for placed in _convolutions(network)]


def _units(network: Network) -> list[int]:
    return [placed.output_shape[0] for placed in network if placed.layer.needs_flat]


MOST_DECIMALS = 6


def _width(papers: Sequence[int], found: Sequence[int]) -> float | None:
    """Return the shortest decimal by which the paper's channels, rounded down, become these; None if none does.

    >>> _width([64, 128, 256, 512, 4096], [3, 6, 12, 25, 204])
    0.05
    """
    if len(papers) != len(found):
        return None
    above = max((Fraction(width, paper) for paper, width in zip(papers, found) if width > 1), default=Fraction(0))
    below = min((Fraction(width + 1, paper) for paper, width in zip(papers, found)), default=Fraction(0))
    for decimals in range(MOST_DECIMALS + 1):
        step = Fraction(1, 10**decimals)
        factor = max(ceil(above / step), 1) * step
        if factor < below:
            return float(factor)
    return None


def _factor(shipped: Network, channels: Sequence[int], units: Sequence[int]) -> float | None:
    """Return the width that gives a configuration these channels, and these units too if any width does."""
    papers = _channels(shipped)
    with_units = _width([*papers, *_units(shipped)[:-1]], [*channels, *units[:-1]])
    return with_units or _width(papers, channels)


def assumed(checkpoint: Checkpoint, matching: Matching) -> Iterator[str]:
    """Yield what the file does not say, and its library usually does otherwise than the configuration."""
    usual = checkpoint.layout.norm_epsilon
    if usual is None or checkpoint.says_something:
        return
    norms = (pair.placed.layer for pair in matching.pairs if isinstance(pair.placed.layer, BatchNorm))
    other = next((norm.eps for norm in norms if norm.eps != usual), None)
    if other is not None:
        yield (
            f"the epsilon of batch norm is not in the file: the configuration's, {other:g}, is taken;"
            f" {checkpoint.layout.library}'s default is {usual}"
        )


class _Candidate(msgspec.Struct, frozen=True):
    """What a file may be.

    Args:
        config: it.
        names: of the shipped configurations that it is, or a variant of; empty if it is written from the shapes.
        alike: others of the family that have the same parameters.
    """

    config: Config
    names: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()


class _Sketch:
    """What the shapes and names of a file tell of its network."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        layers = checkpoint.layers
        self.convolutions = [layer for layer in layers if layer.kind == "conv"]
        self.fully_connected = [layer for layer in layers if layer.kind == "fc"]
        self.norms = [layer for layer in layers if layer.kind == "norm"]
        self.batch_norm = bool(self.norms) and all("running_mean" in layer.shapes for layer in self.norms)

    @property
    def channels(self) -> int:
        """Channels of the last convolution, or the inputs of the first FC layer."""
        if self.convolutions:
            return self.convolutions[-1].shapes["weight"][0]
        return self.fully_connected[0].shapes["weight"][1]

    def candidates(self) -> Iterator[_Candidate]:
        """Yield what this may be, the likeliest first."""
        if any(0 in layer.shapes["weight"] for layer in (*self.convolutions, *self.fully_connected)):
            return
        papers = self._papers()
        as_shipped = bool(papers) and self._has_tensors_of(_shipped(papers[0][0], self.batch_norm))
        family = [] if as_shipped else self._family()
        alike = tuple(config.name for config in family)
        candidates = [_Candidate(family[0], alike)] if family else []
        if papers:
            name, config = papers[0]
            place = 0 if self._has_layers_of(name, config) else len(candidates)
            candidates.insert(place, _Candidate(config, tuple(name for name, _ in papers), alike))
        candidates += [_Candidate(config) for config in self._own()]
        for candidate in candidates:
            yield replace(candidate, config=self._with_epsilon(candidate.config))

    def _with_epsilon(self, config: Config) -> Config:
        """Return a configuration whose batch norms have the epsilon that is usual where the file is from."""
        usual = self.checkpoint.layout.norm_epsilon
        if usual is None:
            return config

        def changed(entry: Entry) -> Entry:
            if not isinstance(entry.norm, BatchNorm):
                return entry
            return replace(entry, norm=replace(entry.norm, eps=usual))

        return replace(config, blocks=tuple(tuple(map(changed, block)) for block in config.blocks))

    def _papers(self) -> list[tuple[str, Config]]:
        """Return the paper's configurations that have these convolutions, at this width and with this head."""
        found = []
        for name in names():
            config = self._scaled(name)
            if config is None or not self._has_names_of(network := Network.of(config)):
                continue
            with suppress(VggkitError):  # a head that none of them could have
                found.append((name, self._with_head(config, network)))
        return found

    def _family(self) -> list[Config]:
        """Return the networks of the family that have exactly these tensors."""
        return [network.config for network in _family() if self._has_tensors_of(network)]

    def _has_tensors_of(self, network: Network) -> bool:
        if not (self._has_kernels_of(network) and self._has_names_of(network)):
            return False
        try:
            matching = match(network, self.checkpoint)
        except CheckpointError:  # it would fit in more than one way
            return False
        return not matching.differences and not any(pair.adapted for pair in matching.pairs)

    def _has_layers_of(self, name: str, config: Config) -> bool:
        """Tell whether a configuration differs from the shipped one in colours, size and classes alone."""
        return not any(_variation(_shipped(name, self.batch_norm), Network.of(config)))

    def _scaled(self, name: str) -> Config | None:
        """Return a shipped configuration at the width of this file; None if it has other convolutions or pools."""
        network = _shipped(name, self.batch_norm)
        if not self._has_kernels_of(network):
            return None
        channels = [layer.shapes["weight"][0] for layer in self.convolutions]
        units = [layer.shapes["weight"][0] for layer in self.fully_connected]
        factor = _factor(network, channels, units)
        return None if factor is None else override(network.config, {"width": factor})

    def _has_kernels_of(self, network: Network) -> bool:
        """Tell whether the convolutions have these kernels, in these blocks where the names tell them."""
        kernels = [placed.held["weight"][2:] for placed in network if placed.layer.is_convolution]
        if kernels != [layer.shapes["weight"][2:] for layer in self.convolutions]:
            return False
        pools, lasts = self._ends_by_pools(), self._ends_by_number()
        return pools in (None, _ends(network)) and lasts in (None, _lasts(network))

    def _has_names_of(self, network: Network) -> bool:
        """Tell whether what the names tell of layers without parameters is so in this network."""
        if self.checkpoint.layout.is_indexed:
            stored = {layer.name for layer in self.checkpoint.layers}
            named = zip(network, self.checkpoint.layout.vocabularies(network)[0])
            return stored >= {name for placed, name in named if placed.block is not None and placed.held}
        if not self.checkpoint.others:
            return True
        has_lrn = any("lrn" in name.lower() for name in self.checkpoint.others)
        return any(placed.layer.stem == "lrn" for placed in network) == has_lrn

    def notes(self, network: Network, candidate: _Candidate) -> tuple[str, ...]:
        """Tell what is not in the file, and what was assumed instead."""
        said: list[str] = []
        known = (*candidate.names, *candidate.alike)
        if len(known) > 1:
            said.append(f"{_listed(known)} have the same parameters: {known[0]} is taken")
        said += self._untold(known)
        layout = self.checkpoint.layout
        if layout.norm_epsilon is not None and self.norms:
            usual = f"{layout.library}'s default, {layout.norm_epsilon}"
            said.append(f"the epsilon of batch norm is not in the file: {usual}, is taken")
        oblong = self._oblong(network)
        return (*said, oblong) if oblong else tuple(said)

    def _untold(self, known: Sequence[str]) -> Iterator[str]:
        """Yield what names and shapes don't tell of a shipped network, or of one written from the shapes."""
        passport = of_file(self.checkpoint.path)
        is_published = passport is not None and passport.fits(self.checkpoint.container.file_size)
        if known and not is_published:
            yield f"strides, paddings, pools and activations are not in the file: taken to be {known[0]}'s"
        if known:
            if known[0] in names() and any(layer.shapes["weight"][2:] == (1, 1) for layer in self.convolutions):
                yield "the padding of 1×1 convolutions is not in the file: taken to be 0, as in the paper"
        elif self.convolutions:
            yield "strides, paddings and activations are not in the file: taken to be the defaults"
            if self._told_ends() is None:
                yield "where its pools are is not in the file: taken to be where channels change"
        elif len(self.fully_connected) > 1:
            yield "activations are not in the file: taken to be the defaults"

    def unclear(self, network: Network) -> str | None:
        """Tell what the model's answers depend on and is only guessed."""
        # where they run over height, width, channels, each shape is another order of the values
        oblong = self._oblong(network) if self.fully_connected and self.checkpoint.layout.order == "hwc" else None
        return oblong and f"{oblong}; name the right one with --config"

    def _oblong(self, network: Network) -> str | None:
        """Tell which maps were assumed where they can't be a square."""
        maps = _flat_maps(network)
        if maps is None or maps[1] == maps[2] or self.fully_connected[0].maps:
            return None
        _, height, width = maps
        return (
            f"the height and width of its last maps are not in the file, only their product: {height}×{width} is taken"
        )

    def _with_head(self, config: Config, network: Network) -> Config:
        """Return a shipped configuration with this file's classes, colours, input size and head."""
        colours = self.convolutions[0].shapes["weight"][1]
        config = override(config, {"in_channels": colours})
        if not self.fully_connected:
            return replace(config, classifier=(), reported=None)
        units = [layer.shapes["weight"][0] for layer in self.fully_connected]
        inputs = self.fully_connected[0].shapes["weight"][1]
        if all("bias" in layer.shapes for layer in self.fully_connected):
            if units[:-1] == _units(network)[:-1]:
                return self._sized(override(config, {"num_classes": units[-1]}), network, inputs)
            if len(units) == 1 and inputs == self.channels:
                return override(config, {"head": "gap", "num_classes": units[-1]})
        head = self._head(inputs)
        classifier = loads(f"classifier: [{', '.join(head)}]").classifier
        own = replace(config, name=f"{config.name}-variant", classifier=classifier, reported=None)
        return self._sized(own, network, inputs) if head[0] != "global-avgpool" else own

    def _head(self, inputs: int) -> list[str]:
        """Return the classifier in the notation."""
        head = ["global-avgpool"] if inputs == self.channels and len(self.fully_connected) == 1 else []
        for layer in self.fully_connected:
            units = layer.shapes["weight"][0]
            head.append(f"FC-{units}" if "bias" in layer.shapes else f"{{fc: {units}, bias: false}}")
        return head

    def _sized(self, config: Config, network: Network, inputs: int) -> Config:
        """Return a configuration whose input ends in as many maps as the first FC layer takes."""
        stride = next(placed.stride for placed in reversed(network.layers) if placed.block is not None)
        height, width = self._maps(inputs)
        return override(config, {"input": (config.input[0], height * stride[0], width * stride[1])})

    def _maps(self, inputs: int) -> tuple[int, int]:
        """Return height and width of the maps before the first FC layer."""
        said = self.fully_connected[0].maps
        if said is not None:
            return said[1], said[2]
        cells = max(1, inputs // self.channels)
        height = next(side for side in range(isqrt(cells), 0, -1) if cells % side == 0)
        return height, cells // height

    def _own(self) -> Iterator[Config]:
        """Yield a configuration written from the shapes: its blocks as the names tell them."""
        if self.norms and not self.batch_norm:
            return  # how many groups a group norm has is not in its tensors
        blocks = self._blocks()
        inputs = self.fully_connected[0].shapes["weight"][1] if self.fully_connected else 0
        height, width = self._maps(inputs) if inputs and self.convolutions else (7, 7)
        pools = sum("maxpool" in block for block in blocks)
        factor = min(2**pools, 2**20)
        colours = self._groups()[0][1] if self.convolutions else inputs
        lines = [f"name: {self.checkpoint.network_name}"]
        if self.convolutions:
            lines.append(f"input: {colours}x{height * factor}x{width * factor}")
        else:
            lines.append(f"input: {inputs}x1x1")
        lines += ["blocks:", *(f"  - [{', '.join(block)}]" for block in blocks)] if blocks else []
        if self.fully_connected:
            lines.append(f"classifier: [{', '.join(self._head(inputs))}]")
        try:
            yield loads("\n".join(lines))
        except VggkitError:
            return

    def _groups(self) -> list[tuple[int, int]]:
        """Return the groups and the input channels of each convolution."""
        result, before = [], None
        for layer in self.convolutions:
            inputs = layer.shapes["weight"][1]
            groups = before // inputs if before and before % inputs == 0 else 1
            result.append((groups, inputs * groups))
            before = layer.shapes["weight"][0]
        return result

    def _normed(self) -> list[bool]:
        """Tell behind which convolutions a batch norm stands."""
        if len(self.norms) == len(self.convolutions) or not self.checkpoint.ordered:
            return [bool(self.norms)] * len(self.convolutions)
        behind = dict(zip((layer.name for layer in self.checkpoint.layers), self.checkpoint.layers[1:]))
        return [layer.name in behind and behind[layer.name].kind == "norm" for layer in self.convolutions]

    def _blocks(self) -> list[list[str]]:
        """Return the blocks in the notation."""
        words = [
            _convolution(layer, groups, normed)
            for layer, (groups, _), normed in zip(self.convolutions, self._groups(), self._normed())
        ]
        ends = self._told_ends()
        ends = self._ends_by_channels() if ends is None else ends
        blocks: list[list[str]] = [[]]
        for number, word in enumerate(words):
            blocks[-1].append(word)
            if number in ends:
                blocks[-1].append("maxpool")
                blocks.append([])
        return [block for block in blocks if block]

    def _told_ends(self) -> set[int] | None:
        """Return behind which convolutions a pool stands, if the names tell."""
        for ends in (self._ends_by_index(), self._ends_by_pools(), self._ends_by_number()):
            if ends is not None:
                return ends
        return None

    def _ends_by_index(self) -> set[int] | None:
        """Read from gaps between indices behind which convolutions something without parameters stands, a pool."""
        if not self.checkpoint.layout.is_indexed:
            return None
        places = [int(layer.name.rpartition(".")[2]) for layer in self.convolutions]
        steps = [3 if normed else 2 for normed in self._normed()]  # a convolution, its norm, its activation
        ends = {number for number, (at, after) in enumerate(pairwise(places)) if after - at > steps[number]}
        return ends | {len(places) - 1}

    def _ends_by_pools(self) -> set[int] | None:
        """Read from the names of a Keras model's layers, `block2_pool`, where its pools stand."""
        pools = [name for name in self.checkpoint.others if "pool" in name]
        blocks = {_block_of(name) for name in pools} - {None}
        numbers = [_block_of(layer.name) for layer in self.convolutions]
        if not pools or not blocks or None in numbers:
            return None
        lasts = {number: index for index, number in enumerate(numbers)}
        return {index for number, index in lasts.items() if number in blocks}

    def _ends_by_number(self) -> set[int] | None:
        """Read blocks from names such as `conv3_2` and `block3.conv2`; each ends in a pool."""
        numbers = [_block_of(layer.name) for layer in self.convolutions]
        if None in numbers or numbers != sorted(numbers, key=lambda number: number or 0):
            return None
        return set({number: index for index, number in enumerate(numbers)}.values())

    def _ends_by_channels(self) -> set[int]:
        widths = [layer.shapes["weight"][0] for layer in self.convolutions]
        return {index for index, (here, after) in enumerate(zip(widths, [*widths[1:], 0])) if here != after}


def _block_of(name: str) -> int | None:
    """Return the number of the block in names such as `block3_conv2`, `conv3_2` and `pool3`."""
    match = re.search(r"block_?(\d{1,6})[._]|conv(\d{1,6})_\d+$|pool(\d{1,6})$", name)
    return next((int(number) for number in match.groups() if number), None) if match else None


def _ends(network: Network) -> set[int]:
    """Return behind which convolutions of the blocks a pool stands."""
    ends, number = set(), -1
    for placed in network:
        if placed.block is None:
            break
        number += placed.layer.is_convolution
        if placed.layer.is_pool:
            ends.add(number)
    return ends


def _lasts(network: Network) -> set[int]:
    """Return which convolutions are the last of a block."""
    return set({placed.block: number for number, placed in enumerate(_convolutions(network))}.values())


def _convolution(layer: StoredLayer, groups: int, normed: bool) -> str:
    channels, _, height, width = layer.shapes["weight"]
    kernel = str(height) if height == width else f"{height}x{width}"
    options = [f"groups: {groups}"] if groups > 1 else []
    options += [] if "bias" in layer.shapes else ["bias: false"]
    options += ["norm: batch"] if normed else []
    options += [] if height % 2 and width % 2 else [f"padding: {height // 2}x{width // 2}"]
    if not options:
        return f"conv{kernel}-{channels}"
    return f"{{conv: {channels}, kernel: {kernel}, {', '.join(options)}}}"


# In words


def _listed(names: Sequence[str]) -> str:
    """Return names in a sentence: "A, B and C"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _described(network: Network, known: Sequence[str], checkpoint: Checkpoint) -> str:
    norms = [placed for placed in network if placed.layer.is_norm and placed.block]
    weights = network.weight_layers
    words = [" or ".join(known) or f"none of the shipped configurations: {len(weights)} weight layers"]
    if norms and not (known and known[0] in family_names()):
        words[0] += " with batch norm" if all(p.layer.keyword == "batchnorm" for p in norms) else " with group norm"
    if known:
        words += _variation(Network.of(known[0]), network)
    words.append(f"{elements(network.output_shape)} classes" if network.head else "no classifier")
    return f"{', '.join(words)}, {_input(network, checkpoint)}"


def _variation(shipped: Network, network: Network) -> Iterator[str]:
    """Yield what is not as in the shipped configuration: the width, the layers of the classifier."""
    units = _units(network)
    factor = _factor(shipped, _channels(network), units)
    if factor is None:
        return
    if factor != 1:
        yield f"width {factor:g}"
    if units and units[:-1] != _units(Network.of(shipped, width=factor))[:-1]:
        head = [p for p in network if p.block is None and (p.layer.is_weight_layer or p.layer.fixes_size)]
        yield f"its own classifier ({', '.join(describe(placed.layer) for placed in head)})"


def _input(network: Network, checkpoint: Checkpoint) -> str:
    stride = next((p.stride for p in reversed(network.layers) if p.block is not None), (1, 1))
    smallest = f"input ≥ {stride[0]}×{stride[1]}"
    channels, height, width = network.input_shape
    maps = _flat_maps(network)
    if channels != 3:
        smallest += f" in {channels} channel{'s' if channels > 1 else ''}"
    if maps is None:
        return smallest
    if maps[1:] == checkpoint.layout.stretches_to:
        return f"{smallest} ({height}×{width} without stretching its maps to {times(maps[1:])})"
    return f"input {channels}×{height}×{width}"


def _flat_maps(network: Network) -> Shape | None:
    """Return the maps that the classifier flattens; None if it takes any size."""
    maps: Shape | None = None
    for placed in network:
        if placed.layer.fixes_size and placed.block is None:
            return None
        if placed.layer.flattens:
            maps = placed.input_shape
        if placed.layer.needs_flat:
            return maps
    return None
