"""Which layer of a file is which layer of a network: by name, or in order by kind and shape; never by guessing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from vggkit.base.errors import CheckpointError
from vggkit.model.weights.checkpoint import Checkpoint, Flattened, StoredLayer, flattened
from vggkit.network import Network, PlacedLayer
from vggkit.notation.layers import Conv2d, Linear, Shape, elements, times

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
    targets = [placed for placed in network if placed.held and (include_top or placed.block is not None)]
    named = _by_names(network, checkpoint, targets)
    if named is not None and not _differences(network, checkpoint, named, targets, include_top):
        return _matching(checkpoint, named, targets, f"by their names in {checkpoint.layout.name}'s layout", ())
    ordered = _in_order(network, checkpoint, targets, include_top)
    if ordered is not None:
        return _matching(checkpoint, ordered, targets, "in order, by kind and shape", ())
    pairs = named or _side_by_side(network, checkpoint, targets)
    found = _differences(network, checkpoint, pairs, targets, include_top)
    kept = [pair for pair in pairs if not _misfits(checkpoint, pair)]
    return _matching(checkpoint, kept, targets, "as far as it goes", found)


def _matching(
    checkpoint: Checkpoint,
    pairs: Sequence[LayerPair],
    targets: Sequence[PlacedLayer],
    by: str,
    differences: Sequence[str],
) -> Matching:
    used, served = {pair.stored.name for pair in pairs}, {pair.placed.name for pair in pairs}
    left = tuple(placed.name for placed in targets if placed.name not in served)
    unused = tuple(stored.name for stored in checkpoint.layers if stored.name not in used)
    return Matching(tuple(pairs), by, tuple(differences), left, unused)


# By name


def _by_names(network: Network, checkpoint: Checkpoint, targets: Sequence[PlacedLayer]) -> list[LayerPair] | None:
    """Pair layers whose names are the layout's; None if not all of them are there."""
    stored = {layer.name: layer for layer in checkpoint.layers}
    if len(stored) < len(checkpoint.layers):
        return None
    wanted = {placed.name for placed in targets}
    for vocabulary in checkpoint.layout.vocabularies(network):
        names = {placed.name: name for placed, name in zip(network, vocabulary) if placed.name in wanted}
        if all(name in stored for name in names.values()):
            return [_pair(network, checkpoint, placed, stored[str(names[placed.name])]) for placed in targets]
    return None


def _pair(network: Network, checkpoint: Checkpoint, placed: PlacedLayer, stored: StoredLayer) -> LayerPair:
    adapted = _other_colours(network, placed, stored)
    return LayerPair(placed, stored, _reorder(network, checkpoint, placed, stored), adapted)


def _reorder(network: Network, checkpoint: Checkpoint, placed: PlacedLayer, stored: StoredLayer) -> Flattened | None:
    wanted = flattened(network, placed)
    if wanted is None and placed.layer.is_convolution and stored.kind == "fc":
        wanted = Flattened(placed.held["weight"][1:], "chw")  # an FC layer as a convolution over all of its maps
    if wanted is None:
        return None
    has_no_order = wanted.maps[0] == 1 or wanted.maps[1:] == (1, 1)
    return None if has_no_order or checkpoint.order(stored) == wanted.order else wanted


def _other_colours(network: Network, placed: PlacedLayer, stored: StoredLayer) -> bool:
    """Tell whether the file's first convolution is the network's, but for 3 input channels."""
    first = next(iter(network.weight_layers), None)
    ours, theirs = placed.held.get("weight", ()), stored.shapes.get("weight", ())
    return (
        placed is first
        and len(ours) == len(theirs) == 4
        and ours[1] != theirs[1] == 3
        and ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
        and getattr(placed.layer, "groups", 1) == 1
    )


# In order


def _in_order(
    network: Network, checkpoint: Checkpoint, targets: Sequence[PlacedLayer], include_top: bool
) -> list[LayerPair] | None:
    """Pair weight layers and normalisations one behind the other; None if they don't fit.

    Raises:
        CheckpointError: if they fit in more than one way.
    """
    pairs: list[LayerPair] = []
    for kinds in (("conv", "fc"), ("norm",)):
        ours = [placed for placed in targets if (placed.layer.is_norm) == (kinds == ("norm",))]
        theirs = sorted(
            (layer for layer in checkpoint.layers if layer.kind in kinds), key=lambda layer: kinds.index(layer.kind)
        )
        runs = _runs(network, checkpoint, ours, theirs)
        if not ours and (not theirs or (kinds != ("norm",) and not include_top)):
            continue
        if len(runs) > 1:
            first, other = theirs[runs[0]].name, theirs[runs[1]].name
            raise CheckpointError(
                f"{checkpoint.path}: it fits {network.name} in {len(runs)} ways, from {first} on and from {other} on;"
                f" name its layers as {network.name}'s (`vggkit names {network.name}`), or keep only the ones meant"
            )
        if not runs or (include_top and len(theirs) != len(ours)) or (kinds == ("norm",) and len(theirs) != len(ours)):
            return None
        part = [_pair(network, checkpoint, placed, theirs[runs[0] + index]) for index, placed in enumerate(ours)]
        _check_order(checkpoint, part)
        pairs += part
    place = {placed.name: number for number, placed in enumerate(network)}
    return sorted(pairs, key=lambda pair: place[pair.placed.name])


def _runs(
    network: Network, checkpoint: Checkpoint, ours: Sequence[PlacedLayer], theirs: Sequence[StoredLayer]
) -> list[int]:
    """Return the places among the stored layers from which on the network's layers fit one by one."""

    def fits(placed: PlacedLayer, stored: StoredLayer) -> bool:
        return not _misfits(checkpoint, _pair(network, checkpoint, placed, stored))

    return [
        start
        for start in range(len(theirs) - len(ours) + 1)
        if ours and all(fits(placed, theirs[start + i]) for i, placed in enumerate(ours))
    ]


def _check_order(checkpoint: Checkpoint, pairs: Sequence[LayerPair]) -> None:
    """Refuse layers of equal shapes if neither the file nor numbers in their names tell their order."""
    if checkpoint.ordered:
        return
    seen: dict[object, StoredLayer] = {}
    for pair in pairs:
        other = seen.setdefault(pair.stored.shapes.get("weight"), pair.stored)
        if _stem(other.name) != _stem(pair.stored.name):
            raise CheckpointError(
                f"{checkpoint.path}: {other.name} and {pair.stored.name} have the same shape, and nothing says which"
                f" comes first; number them, or save them in order with torch.save"
            )


def _stem(name: str) -> str:
    return re.sub(r"_?\d+", "", name)


# Differences


def _misfits(checkpoint: Checkpoint, pair: LayerPair) -> list[str]:
    """Return the tensors that the file lacks or has in another shape."""
    wanted, found = pair.placed.held, pair.stored.shapes
    weight = wanted.get("weight")
    as_convolution = {"conv": Conv2d, "fc": Linear}
    kind = as_convolution.get(pair.stored.kind)
    swapped = kind is not None and not isinstance(pair.placed.layer, kind)
    wrong = []
    for role, shape in wanted.items():
        if role == "num_batches_tracked":
            continue  # Keras doesn't count
        same = found.get(role) == shape
        if role == "weight" and weight is not None and swapped and checkpoint.layout.has_convolved_fc:
            same = _per_unit(found.get(role)) == _per_unit(shape)
        if role == "weight" and pair.adapted:
            same = True
        if not same:
            wrong.append(role)
    return wrong + [role for role in found if role not in wanted and role != "num_batches_tracked"]


def _per_unit(shape: Shape | None) -> tuple[int, int] | None:
    return None if shape is None else (shape[0], elements(shape[1:]))


def _side_by_side(network: Network, checkpoint: Checkpoint, targets: Sequence[PlacedLayer]) -> list[LayerPair]:
    """Pair layers in order as far as both sides go, to tell what is different."""
    pairs = []
    for norms in (False, True):
        ours = [placed for placed in targets if (placed.layer.is_norm) == norms]
        theirs = [layer for layer in checkpoint.layers if layer.kind != "other" and (layer.kind == "norm") == norms]
        if not norms:
            ours, theirs = _aligned(ours, theirs)
        pairs += [_pair(network, checkpoint, placed, stored) for placed, stored in zip(ours, theirs)]
    return pairs


def _aligned(ours: Sequence[PlacedLayer], theirs: Sequence[StoredLayer]) -> tuple[list[PlacedLayer], list[StoredLayer]]:
    """Let convolutions stand beside convolutions, and FC layers beside FC layers."""
    left: list[PlacedLayer] = []
    right: list[StoredLayer] = []
    for kind, layer in (("conv", Conv2d), ("fc", Linear)):
        both = zip(
            (placed for placed in ours if isinstance(placed.layer, layer)),
            (stored for stored in theirs if stored.kind == kind),
        )
        for placed, stored in both:
            left.append(placed)
            right.append(stored)
    return left, right


def _differences(
    network: Network,
    checkpoint: Checkpoint,
    pairs: Sequence[LayerPair],
    targets: Sequence[PlacedLayer],
    include_top: bool,
) -> list[str]:
    """Tell what is different, in the network's terms, and what to do."""
    said = []
    for pair in pairs:
        if wrong := _misfits(checkpoint, pair):
            said.append(_told(network, pair, wrong))
    served = {pair.placed.name for pair in pairs}
    missing = [placed for placed in targets if placed.name not in served]
    if missing:
        said.append(_told_missing(missing))
    used = {id(pair.stored) for pair in pairs}
    extra = [layer for layer in checkpoint.layers if id(layer) not in used and layer.kind != "other"]
    if not include_top:
        last = max((checkpoint.layers.index(pair.stored) for pair in pairs), default=-1)
        extra = [layer for layer in checkpoint.layers[:last] if layer in extra and layer.kind == "norm"]
    if extra:
        said.append(_told_extra(extra, network))
    return said


def _told(network: Network, pair: LayerPair, wrong: Sequence[str]) -> str:
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
    weights = network.weight_layers
    if len(mine) == len(found) and mine[1:] == found[1:] and placed is weights[-1] and placed.block is None:
        return (
            f"{placed.name}: checkpoint has {found[0]} classes, model has {mine[0]}; pass num_classes={found[0]},"
            f" or head='new' to keep the new head"
        )
    if len(mine) == len(found) == 2 and mine[0] == found[0]:
        return (
            f"{placed.name}: checkpoint has {found[1]:,} inputs, model has {mine[1]:,}; build it with the input size"
            f" that the checkpoint is for, or pass head='new' to keep the new head"
        )
    if placed is weights[0] and len(mine) == len(found) == 4 and mine[:1] + mine[2:] == found[:1] + found[2:]:
        return (
            f"{placed.name}: checkpoint has {found[1]} input channels, model has {mine[1]}; pass in_channels={found[1]}"
        )
    return f"{placed.name}: checkpoint has {times(found)} in {stored.name}, model has {times(mine)}"


def _told_missing(missing: Sequence[PlacedLayer]) -> str:
    norms = [placed for placed in missing if placed.layer.is_norm]
    if len(norms) == len(missing) and all(placed.block for placed in norms):
        return "checkpoint has no batch norm, model has; pass batch_norm=False"
    advice = "" if any(placed.block for placed in missing) else "; pass head='new' to keep the new head"
    return f"checkpoint has no {_listed(placed.name for placed in missing)}{advice}"


def _told_extra(extra: Sequence[StoredLayer], network: Network) -> str:
    if all(layer.kind == "norm" for layer in extra) and not any(placed.layer.is_norm for placed in network):
        return "checkpoint has batch norm, model has none; pass batch_norm=True"
    advice = (
        "; pass include_top=False to leave it out" if not network.head and all(x.kind == "fc" for x in extra) else ""
    )
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
