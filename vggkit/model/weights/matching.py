"""Which layer of a file is which layer of a network: by name, or in order by kind and shape; never by guessing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from vggkit.base.errors import CheckpointError
from vggkit.model.weights.checkpoint import Checkpoint, Flattened, StoredLayer, flattened
from vggkit.network import Network, PlacedLayer
from vggkit.notation.layers import Shape, elements, times

if TYPE_CHECKING:
    from torch import Tensor

MOST_DIFFERENCES = 12


class LayerPair(msgspec.Struct, frozen=True):
    """A layer of a network and the layer of a file that holds its tensors.

    Args:
        placed: the network's.
        stored: the file's.
        reorder: the order that flattened maps are to be put into; None if the file has them in the network's.
        adapted: whether the file's first convolution is for another number of colours.
    """

    placed: PlacedLayer
    stored: StoredLayer
    reorder: Flattened | None = None
    adapted: bool = False

    def roles(self) -> Iterator[tuple[str, Shape]]:
        """Return the tensors that the network wants and the file has, with the network's shapes."""
        for role, shape in self.placed.held.items():
            if role in self.stored.tensors:
                yield role, shape

    def read(self, checkpoint: Checkpoint, role: str) -> Tensor:
        """Read one of the tensors as the network has it; of an adapted convolution, as the file has it."""
        shape = self.stored.shapes[role] if self.adapted and role == "weight" else self.placed.held[role]
        return checkpoint.read(self.stored, role, shape, self.reorder if self.is_per_input(role) else None)

    def is_per_input(self, role: str) -> bool:
        """Tell whether one of the tensors has values for each input of the layer."""
        return role == "weight" or (self.placed.layer.is_norm and role != "num_batches_tracked")


class Matching(msgspec.Struct, frozen=True):
    """Which layers belong together, and what is different.

    Args:
        pairs: layers that fit each other.
        by: how they were found, in words.
        differences: what does not fit, in the network's terms; empty if all does.
        left: names of the network's layers that get nothing.
        unused: names of the file's layers that are not used.
    """

    pairs: tuple[LayerPair, ...]
    by: str
    differences: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def match(network: Network, checkpoint: Checkpoint, *, include_top: bool = True) -> Matching:
    """Find the layers of a file that a network's layers are.

    Args:
        network: the network.
        checkpoint: the file.
        include_top: False leaves the classifier out, on both sides.

    Raises:
        CheckpointError: if more than one way would fit.
    """
    return _Matcher(network, checkpoint, include_top=include_top).matching()


class _Matcher:
    """Pairs the layers of a network with those of a file.

    Args:
        network: the network.
        checkpoint: the file.
        include_top: whether the classifier is among them.
    """

    def __init__(self, network: Network, checkpoint: Checkpoint, *, include_top: bool) -> None:
        self.network = network
        self.checkpoint = checkpoint
        self.include_top = include_top
        self.targets = [placed for placed in network if placed.held and (include_top or placed.block is not None)]
        self.first = next(iter(network.weight_layers), None)
        self.last = next(reversed(network.weight_layers), None)

    def matching(self) -> Matching:
        named = self.by_names()
        if named is not None and not self.differences(named):
            return self.result(named, f"by their names in {self.checkpoint.layout.name}'s layout")
        ordered = self.in_order()
        if ordered is not None:
            return self.result(ordered, "in order, by kind and shape")
        pairs = named or self.side_by_side()
        kept = [pair for pair in pairs if not self.misfits(pair)]
        return self.result(kept, "as far as it goes", self.differences(pairs))

    def result(self, pairs: Sequence[LayerPair], by: str, differences: Sequence[str] = ()) -> Matching:
        used, served = {pair.stored.name for pair in pairs}, {pair.placed.name for pair in pairs}
        left = tuple(placed.name for placed in self.targets if placed.name not in served)
        unused = tuple(stored.name for stored in self.checkpoint.layers if stored.name not in used)
        return Matching(tuple(pairs), by, tuple(differences), left, unused)

    def pair(self, placed: PlacedLayer, stored: StoredLayer) -> LayerPair:
        """Pair two layers: in which order flattened maps are wanted, and whether colours are to be adapted."""
        wanted = flattened(self.network, placed)
        if wanted is None and placed.layer.is_convolution and stored.kind == "fc":
            wanted = Flattened(placed.held["weight"][1:], "chw")  # an FC layer as a convolution over all of its maps
        has_order = wanted is not None and wanted.maps[0] != 1 and wanted.maps[1:] != (1, 1)
        if wanted is None or not has_order or self.checkpoint.order(stored) == wanted.order:
            wanted = None
        ours, theirs = placed.held.get("weight", ()), stored.shapes.get("weight", ())
        is_adapted = (
            placed is self.first
            and len(ours) == len(theirs) == 4
            and ours[1] != theirs[1] == 3
            and ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
            and getattr(placed.layer, "groups", 1) == 1
        )
        return LayerPair(placed, stored, wanted, is_adapted)

    def by_names(self) -> list[LayerPair] | None:
        """Pair layers whose names are the layout's; None if not all of them are there."""
        stored = {layer.name: layer for layer in self.checkpoint.layers}
        if len(stored) < len(self.checkpoint.layers):
            return None
        wanted = {placed.name for placed in self.targets}
        for vocabulary in self.checkpoint.layout.vocabularies(self.network):
            names = {placed.name: name for placed, name in zip(self.network, vocabulary) if placed.name in wanted}
            if all(name in stored for name in names.values()):
                return [self.pair(placed, stored[str(names[placed.name])]) for placed in self.targets]
        return None

    def in_order(self) -> list[LayerPair] | None:
        """Pair weight layers and normalisations one after the other; None if they don't fit.

        Raises:
            CheckpointError: if they fit in more than one way.
        """
        pairs: list[LayerPair] = []
        for kinds in (("conv", "fc"), ("norm",)):
            are_norms = kinds == ("norm",)
            ours = [placed for placed in self.targets if placed.layer.is_norm == are_norms]
            theirs = [layer for kind in kinds for layer in self.checkpoint.layers if layer.kind == kind]
            if not ours and (not theirs or not (are_norms or self.include_top)):
                continue
            ends = range(len(ours), len(theirs) + 1) if ours else ()
            starts = [end - len(ours) for end in ends if self.fit(ours, theirs[end - len(ours) : end])]
            if len(starts) > 1:
                raise self.ambiguous(len(starts), theirs[starts[0]], theirs[starts[1]])
            has_more = len(theirs) != len(ours) and (are_norms or self.include_top)
            if not starts or has_more:
                return None
            part = [self.pair(placed, stored) for placed, stored in zip(ours, theirs[starts[0] :])]
            self.check_order(part)
            pairs += part
        place = {placed.name: number for number, placed in enumerate(self.network)}
        return sorted(pairs, key=lambda pair: place[pair.placed.name])

    def fit(self, ours: Sequence[PlacedLayer], theirs: Sequence[StoredLayer]) -> bool:
        """Tell whether layers fit one by one."""
        return all(not self.misfits(self.pair(placed, stored)) for placed, stored in zip(ours, theirs))

    def ambiguous(self, count: int, first: StoredLayer, other: StoredLayer) -> CheckpointError:
        name = self.network.name
        return CheckpointError(
            f"{self.checkpoint.path}: it fits {name} in {count} ways, from {first.name} on and from {other.name} on;"
            f" name its layers as {name}'s (`vggkit names {name}`), or keep only the ones meant"
        )

    def check_order(self, pairs: Sequence[LayerPair]) -> None:
        """Refuse layers of equal shapes if neither the file nor numbers in their names tell their order."""
        if self.checkpoint.ordered:
            return
        seen: dict[object, StoredLayer] = {}
        for pair in pairs:
            other = seen.setdefault(pair.stored.shapes.get("weight"), pair.stored)
            without_numbers = [re.sub(r"_?\d+", "", layer.name) for layer in (other, pair.stored)]
            if without_numbers[0] != without_numbers[1]:
                raise CheckpointError(
                    f"{self.checkpoint.path}: {other.name} and {pair.stored.name} have the same shape, and nothing says"
                    f" which comes first; number them, or save them in order with torch.save"
                )

    def side_by_side(self) -> list[LayerPair]:
        """Pair convolutions, FC layers and norms in order as far as both sides go, to tell what is different."""
        by_kind = {
            "conv": [placed for placed in self.targets if placed.layer.is_convolution],
            "fc": [placed for placed in self.targets if placed.layer.needs_flat],
            "norm": [placed for placed in self.targets if placed.layer.is_norm],
        }
        return [
            self.pair(placed, stored)
            for kind, ours in by_kind.items()
            for placed, stored in zip(ours, (layer for layer in self.checkpoint.layers if layer.kind == kind))
        ]

    def misfits(self, pair: LayerPair) -> list[str]:
        """Return the tensors that the file lacks or has in another shape."""
        wanted, found = pair.placed.held, pair.stored.shapes
        layer = pair.placed.layer
        is_swapped = {"conv": not layer.is_convolution, "fc": not layer.needs_flat}.get(pair.stored.kind, False)
        wrong = []
        for role, shape in wanted.items():
            if role == "num_batches_tracked":
                continue  # Keras doesn't count
            same = found.get(role) == shape
            if role == "weight" and is_swapped and role in found and self.checkpoint.layout.has_convolved_fc:
                same = (found[role][0], elements(found[role][1:])) == (shape[0], elements(shape[1:]))
            if not (same or (role == "weight" and pair.adapted)):
                wrong.append(role)
        return wrong + [role for role in found if role not in wanted and role != "num_batches_tracked"]

    def differences(self, pairs: Sequence[LayerPair]) -> list[str]:
        """Tell what is different, in the network's terms, and what to do."""
        said = [self.told(pair, wrong) for pair in pairs if (wrong := self.misfits(pair))]
        served = {pair.placed.name for pair in pairs}
        if missing := [placed for placed in self.targets if placed.name not in served]:
            said.append(self.told_missing(missing))
        used = {id(pair.stored) for pair in pairs}
        extra = [layer for layer in self.checkpoint.layers if id(layer) not in used and layer.kind != "other"]
        if not self.include_top:
            last = max((self.checkpoint.layers.index(pair.stored) for pair in pairs), default=-1)
            extra = [layer for layer in self.checkpoint.layers[:last] if layer in extra and layer.kind == "norm"]
        if extra:
            said.append(self.told_extra(extra))
        return said

    def told(self, pair: LayerPair, wrong: Sequence[str]) -> str:
        placed, stored = pair.placed, pair.stored
        ours, theirs = placed.held, stored.shapes
        if "weight" not in wrong or "weight" not in ours or "weight" not in theirs:
            lacks = [role for role in wrong if role not in theirs]
            has = [role for role in wrong if role in theirs and role not in ours]
            words = [f"checkpoint has no {', '.join(lacks)}"] if lacks else []
            words += [f"checkpoint has {', '.join(has)}, model has none"] if has else []
            words += [] if words else [f"checkpoint has another shape of {', '.join(wrong)}"]
            return f"{placed.name}: {' and '.join(words)}"
        mine, found = ours["weight"], theirs["weight"]
        is_alike = mine[:1] + mine[2:] == found[:1] + found[2:]  # but for the input channels
        if len(mine) == len(found) and mine[1:] == found[1:] and placed is self.last and placed.block is None:
            return (
                f"{placed.name}: checkpoint has {found[0]} classes, model has {mine[0]}; pass num_classes={found[0]},"
                f" or head='new' to keep the new head"
            )
        if len(mine) == len(found) == 2 and mine[0] == found[0]:
            return (
                f"{placed.name}: checkpoint has {found[1]:,} inputs, model has {mine[1]:,}; build it with the input"
                f" size that the checkpoint is for, or pass head='new' to keep the new head"
            )
        if len(mine) == len(found) == 4 and placed is self.first and is_alike:
            return (
                f"{placed.name}: checkpoint has {found[1]} input channels, model has {mine[1]};"
                f" pass in_channels={found[1]}"
            )
        return f"{placed.name}: checkpoint has {times(found)} in {stored.name}, model has {times(mine)}"

    def told_missing(self, missing: Sequence[PlacedLayer]) -> str:
        norms = [placed for placed in missing if placed.layer.is_norm]
        if len(norms) == len(missing) and all(placed.block for placed in norms):
            return "checkpoint has no batch norm, model has; pass batch_norm=False"
        advice = "" if any(placed.block for placed in missing) else "; pass head='new' to keep the new head"
        return f"checkpoint has no {_listed(placed.name for placed in missing)}{advice}"

    def told_extra(self, extra: Sequence[StoredLayer]) -> str:
        if all(layer.kind == "norm" for layer in extra) and not any(placed.layer.is_norm for placed in self.network):
            return "checkpoint has batch norm, model has none; pass batch_norm=True"
        is_head = not self.network.head and all(layer.kind == "fc" for layer in extra)
        advice = "; pass include_top=False to leave it out" if is_head else ""
        return f"checkpoint has {_listed(layer.name for layer in extra)}, model has no such layer{advice}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def misfit(network: Network, checkpoint: Checkpoint, differences: Sequence[str], advice: str = "") -> CheckpointError:
    """Return the error that lists what is different, and says what to do about it."""
    shown = differences[:MOST_DIFFERENCES]
    more = [f"and {len(differences) - len(shown)} more"] if len(differences) > len(shown) else []
    head = f"{checkpoint.path} does not fit {network.name}: "
    if len(differences) == 1:
        return CheckpointError("; ".join(filter(None, [head + differences[0], advice])))
    lines = filter(None, [*shown, *more, advice])
    return CheckpointError("\n".join([head.rstrip(), *(f"  {line}" for line in lines)]))
