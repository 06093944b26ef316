"""Telling which configuration a checkpoint is: one of the zoo's, a variant of one, or a description of its own."""

from __future__ import annotations

import re
from itertools import pairwise
from math import isqrt
from typing import Any

import msgspec
from msgspec.structs import replace

from vggkit.config import Config, override
from vggkit.errors import CheckpointError, VggkitError
from vggkit.layers import Conv2d, Linear, Shape, elements
from vggkit.network import Network
from vggkit.weights.container import CONFIG_KEY
from vggkit.weights.layouts import Checkpoint, StoredLayer
from vggkit.weights.matching import Matching, match, misfit, names_in
from vggkit.zoo import load, loads, names


class Identity(msgspec.Struct, frozen=True):
    """What a checkpoint is.

    Args:
        network: it, as a network.
        description: the same in words: "D with batch norm, 10 classes, input 3×224×224".
        known: the name of the shipped configuration that it is, or a variant of; None if it is none.
        matching: which layer is which.
        notes: what the file does not say, and was taken as usual.
    """

    network: Network
    description: str
    known: str | None
    matching: Matching
    notes: tuple[str, ...] = ()


def identify(checkpoint: Checkpoint) -> Identity:
    """Tell which configuration a checkpoint is.

    Args:
        checkpoint: an open one.

    Raises:
        CheckpointError: if it is no chain of convolutions and FC layers that could be told.
    """
    configured = checkpoint.container.metadata.get(CONFIG_KEY)
    if configured is not None:
        return _configured(checkpoint, configured)
    sketch = _Sketch(checkpoint)
    for config, known, notes in [*sketch.known(), *sketch.own()]:
        try:
            network = Network.of(config)
            matching = match(network, checkpoint)
        except VggkitError:
            continue
        if not matching.differences:
            return Identity(network, _described(network, known, checkpoint), known, matching, tuple(notes))
    raise CheckpointError(
        f"{checkpoint.path}: its {len(checkpoint.layers)} layers are no chain of convolutions and FC layers whose"
        f" configuration could be told; say it with --config"
    )


def _configured(checkpoint: Checkpoint, text: str) -> Identity:
    """Trust the configuration that the file carries, if its tensors agree."""
    network = Network.of(loads(text, f"{checkpoint.path}, its configuration"))
    matching = match(network, checkpoint)
    if matching.differences:
        raise misfit(network, checkpoint, matching.differences)
    known = _zoo_name(network)
    return Identity(network, _described(network, known, checkpoint), known, matching)


def _zoo_name(network: Network) -> str | None:
    """Return the shipped configuration whose blocks these are."""
    for name in names():
        for batch_norm in (False, True):
            shipped = Network.of(name, batch_norm=batch_norm or None)
            ours = [placed.layer for placed in network if placed.block is not None]
            if ours == [placed.layer for placed in shipped if placed.block is not None]:
                return name
    return None


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

    def known(self) -> list[tuple[Config, str, list[str]]]:
        """Return the shipped configurations that this may be, the likeliest first."""
        found = []
        for name in names():
            config = load(name, batch_norm=True if self.batch_norm else None)
            network = Network.of(config)
            ours = [placed for placed in network if isinstance(placed.layer, Conv2d) and placed.block]
            shapes = [placed.layer.parameters(placed.input_shape)["weight"] for placed in ours]
            theirs = [layer.shapes["weight"] for layer in self.convolutions]
            same = [shape[:1] + shape[2:] for shape in shapes] == [shape[:1] + shape[2:] for shape in theirs]
            if same and [s[1] for s in shapes[1:]] == [t[1] for t in theirs[1:]]:
                found.append((self._named_alike(network), name, self._with_head(config, network)))
        found.sort(key=lambda candidate: not candidate[0])
        plain = [name for _, name, _ in found]
        unsure = [f"or {', '.join(plain[1:])}, with the same parameters"] if plain[1:] and not found[0][0] else []
        return [(config, name, unsure) for _, name, config in found]

    def _named_alike(self, network: Network) -> bool:
        """Tell whether the names, with the gaps between them, are this network's."""
        wanted = {
            name
            for placed, name in zip(network, names_in(network, self.checkpoint.layout))
            if placed.block is not None and placed.layer.parameters(placed.input_shape)
        }
        stored = {layer.name for layer in self.checkpoint.layers}
        unweighted = [placed.name for placed in network if placed.layer.stem == "lrn"]
        return wanted <= stored and (
            self.checkpoint.layout in ("torchvision", "timm") or set(unweighted) == self._lrn_layers()
        )

    def _lrn_layers(self) -> set[str]:
        return {name for name in self.checkpoint.others if "lrn" in name.lower()}

    def _with_head(self, config: Config, network: Network) -> Config:
        """Return a shipped configuration with this file's classes, colours, input size and head."""
        colours = self.convolutions[0].shapes["weight"][1]
        config = override(config, {"in_channels": colours})
        if not self.fully_connected:
            return replace(config, classifier=(), reported=None)
        widths = [layer.shapes["weight"][0] for layer in self.fully_connected]
        inputs = self.fully_connected[0].shapes["weight"][1]
        papers = [p.layer.out_features for p in network if isinstance(p.layer, Linear)]
        if widths[:-1] == papers[:-1] and all("bias" in layer.shapes for layer in self.fully_connected):
            config = override(config, {"num_classes": widths[-1]})
            return self._sized(config, network, inputs)
        head = self._head(inputs)
        text = f"{{extends: {network.config.name.removesuffix('-BN')}, classifier: [{', '.join(head)}]}}"
        changes: dict[str, Any] = {"batch_norm": True if self.batch_norm else None, "in_channels": colours}
        own = replace(loads(text, **changes), name=f"{config.name}-variant")
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

    def own(self) -> list[tuple[Config, None, list[str]]]:
        """Return a configuration written from the shapes: its blocks as the names tell them."""
        if self.norms and not self.batch_norm:
            return []  # how many groups a group norm has is not in its tensors
        blocks, notes = self._blocks()
        inputs = self.fully_connected[0].shapes["weight"][1] if self.fully_connected else 0
        height, width = self._maps(inputs) if inputs and self.convolutions else (7, 7)
        pools = sum("maxpool" in block for block in blocks)
        factor = min(2**pools, 2**20)
        colours = self._groups()[0][1] if self.convolutions else inputs
        lines = [f"name: {_plain_name(self.checkpoint.path)}"]
        if self.convolutions:
            lines.append(f"input: {colours}x{height * factor}x{width * factor}")
        else:
            lines.append(f"input: {inputs}x1x1")
        lines += ["blocks:", *(f"  - [{', '.join(block)}]" for block in blocks)] if blocks else []
        if self.fully_connected:
            lines.append(f"classifier: [{', '.join(self._head(inputs))}]")
        try:
            return [(loads("\n".join(lines)), None, notes)]
        except VggkitError:
            return []

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

    def _blocks(self) -> tuple[list[list[str]], list[str]]:
        """Return the blocks in the notation, and what was taken as usual."""
        if not self.convolutions:
            return [], []
        words = [
            _convolution(layer, groups, normed)
            for layer, (groups, _), normed in zip(self.convolutions, self._groups(), self._normed())
        ]
        ends = self._ends_by_index() or self._ends_by_pools() or self._ends_by_number()
        notes = (
            [] if ends is not None else ["where its pools are is not in the file: taken to be where channels change"]
        )
        if ends is None:
            ends = self._ends_by_channels()
        blocks: list[list[str]] = [[]]
        for number, word in enumerate(words):
            blocks[-1].append(word)
            if number in ends:
                blocks[-1].append("maxpool")
                blocks.append([])
        return [block for block in blocks if block], notes

    def _ends_by_index(self) -> set[int] | None:
        """Read from torchvision's indices behind which convolutions something without parameters stands, a pool."""
        if self.checkpoint.layout not in ("torchvision", "timm"):
            return None
        places = [int(layer.name.rpartition(".")[2]) for layer in self.convolutions]
        step = 3 if len(self.norms) == len(self.convolutions) else 2
        ends = {number for number, (at, after) in enumerate(pairwise(places)) if after - at > step}
        return ends | {len(places) - 1}

    def _ends_by_pools(self) -> set[int] | None:
        """Read from the names of a Keras model's layers, `block2_pool`, what they stand behind."""
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
    match = re.search(r"block_?(\d{1,6})[._]|(?:conv|pool)(\d{1,6})(?:_\d+)?$", name)
    return int(match.group(1) or match.group(2)) if match else None


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


def _plain_name(path: str) -> str:
    stem = re.split(r"[/\\]", path)[-1].split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9_-]", "", stem)
    return plain if re.match(r"[A-Za-z]", plain) else f"network{plain}"


# In words


def _described(network: Network, known: str | None, checkpoint: Checkpoint) -> str:
    norms = [placed for placed in network if placed.layer.stem == "norm" and placed.block]
    weights = [placed for placed in network if placed.layer.role == "weight"]
    words = [known or f"none of the shipped configurations: {len(weights)} weight layers"]
    if norms:
        words[0] += " with batch norm" if all(p.layer.keyword == "batchnorm" for p in norms) else " with group norm"
    head = [placed for placed in weights if placed.block is None]
    words.append(f"{elements(network.output_shape)} classes" if head else "no classifier")
    return f"{', '.join(words)}, {_input(network, checkpoint)}"


def _input(network: Network, checkpoint: Checkpoint) -> str:
    stride = next((p.stride for p in reversed(network.layers) if p.block is not None), (1, 1))
    smallest = f"input ≥ {stride[0]}×{stride[1]}"
    channels, height, width = network.input_shape
    maps = _flat_maps(network)
    if channels != 3:
        smallest += f" in {channels} channel{'s' if channels > 1 else ''}"
    if maps is None:
        return smallest
    if checkpoint.layout in ("torchvision", "timm") and maps[1:] == (7, 7):
        return f"{smallest} ({height}×{width} without stretching its maps to 7×7)"
    return f"input {channels}×{height}×{width}"


def _flat_maps(network: Network) -> Shape | None:
    """Return the maps that the classifier flattens; None if it takes any size."""
    for placed in network:
        if placed.layer.stem == "avgpool" and placed.block is None:
            return None
        if isinstance(placed.layer, Linear):
            return network.layers[network.layers.index(placed) - 1].input_shape
    return None
