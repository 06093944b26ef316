"""One network of a comparison: its figures, and the changes made to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from vggkit.base.errors import ArgumentError, shorten
from vggkit.figures.measures import COMPARED, USUAL
from vggkit.figures.summary import Summary, summarize
from vggkit.footprint.optimizers import NONE
from vggkit.footprint.plan import plan_step, reserved_on_card
from vggkit.footprint.steps.options import AUTOCAST, TRAINING_KEYWORDS, StepOptions
from vggkit.footprint.steps.refusals import decided, refusal
from vggkit.network import Network, Source
from vggkit.notation.config import SingleScale
from vggkit.notation.document import setting, split_outside
from vggkit.notation.layers import Pair


class Compared(msgspec.Struct, frozen=True, dict=True):
    """A network of a comparison and its figures, which are for the whole batch.

    Args:
        name: the heading of its column.
        changes: what was changed in it, each as key=value.
        network: the network itself.
        summary: its rows, a row for every module, and totals.
        training: what the training step is like.
        relative_parameters: parameters divided by those of the first network; None if that has none.
        inference_peak_bytes: most bytes alive in a forward pass; None if torch can't run it.
        training_peak_bytes: most bytes alive in a training step, of several ranks the fullest one's; None if torch or
            the ranks can't run it.
        saved_for_backward_bytes: kept between forward and backward pass; None if torch can't run the step.
        refusal: why they can't, and what would help; None if they can.
    """

    name: str
    changes: tuple[str, ...]
    network: Network
    summary: Summary
    training: StepOptions
    relative_parameters: float | None
    inference_peak_bytes: int | None
    training_peak_bytes: int | None
    saved_for_backward_bytes: int | None
    refusal: str | None

    @property
    def label(self) -> str:
        """Its name; if it was changed, a colon and the changes."""
        return f"{self.name}:{','.join(self.changes)}" if self.changes else self.name

    @cached_property
    def reserved_bytes(self) -> int | None:
        """Bytes that a card must have for the training step; None if torch can't run it, or it is not known."""
        on_card = self.training.replace(device="cuda")
        if self.training_peak_bytes is None or decided(self.network, on_card) is None:
            return None
        return reserved_on_card(self.network, self.training)

    @property
    def conv_parameters(self) -> int:
        """Parameters of convolutions."""
        return self.summary.parameters_of("conv")

    @property
    def fc_parameters(self) -> int:
        """Parameters of fully connected layers."""
        return self.summary.parameters_of("fc")

    @property
    def receptive_field(self) -> Pair:
        """Height and width of the input that one output value of the last block sees."""
        return self.network.receptive_field

    @property
    def reported(self) -> tuple[SingleScale, ...]:
        """Errors that its publication gives."""
        reported = self.network.config.reported
        return reported.single_scale if reported else ()

    def figures(self, only: Iterable[str] = USUAL) -> dict[str, Any]:
        """Return figures by their names, as JSON has them.

        Args:
            only: their names, in any order; others are ignored.
        """
        wanted = set(only)
        values = {name: measure.value(self) for name, measure in COMPARED.items() if name in wanted}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def compared(network: Network, changes: tuple[str, ...], training: StepOptions) -> Compared:
    """Work out the figures of a network, except those relative to another.

    Args:
        network: the network.
        changes: what was changed in it.
        training: what the training step is like, checked except for the names of blocks and layers.

    Raises:
        ArgumentError: if the network does not have a block or layer that the step names.
    """
    training.check_names(network)
    inference = training.forward_only()
    not_inferred, not_trained = refusal(network, inference), refusal(network, training)
    trained = None if not_trained else plan_step(network, training)
    return Compared(
        name=network.name,
        changes=changes,
        network=network,
        summary=summarize(network, batch=training.batch, dtype=training.dtype, expand=True),
        training=training,
        relative_parameters=None,
        inference_peak_bytes=None if not_inferred else plan_step(network, inference).peak_bytes,
        training_peak_bytes=trained.peak_bytes if trained else None,
        saved_for_backward_bytes=trained.saved_for_backward_bytes if trained else None,
        refusal=not_inferred or not_trained,
    )


def refusals(networks: Iterable[Compared]) -> list[str]:
    """Return why torch can't run a step of some of the networks, and what would help."""
    return [f"{one.refusal}." for one in networks if one.refusal]


def step_title(options: StepOptions, *, trained: bool = True) -> str:
    """Say what figures are for: `batch 1, float32, training with adam, clipped gradients`.

    Args:
        options: what the training step is like.
        trained: whether one of the figures is of that step.
    """
    said = [options.batch_words if trained else f"batch {options.batch}", options.dtype]
    if trained:
        optimizer, *others = options.loop_words
        with_it = f"training with {'no optimizer' if optimizer == NONE else optimizer}"
        said += [with_it, *others, *filter(None, [options.allocator])]
    elif options.autocast:
        said.append(AUTOCAST)
    return ", ".join(said)


def step_dict(options: StepOptions) -> dict[str, Any]:
    """Return what figures are for, as the documented JSON has it: a training step, on the device of each figure."""
    every = {**options.to_dict(), "foreach": options.update.foreach}
    return {word: value for word, value in every.items() if word in ("batch", "dtype", *TRAINING_KEYWORDS)}


def split_changes(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Split a source from the changes after it; a path may have colons of its own.

    >>> split_changes("D:batch_norm=true,width=0.5"), split_changes("C:\\my.yaml")
    (('D', ('batch_norm=true', 'width=0.5')), ('C:\\my.yaml', ()))
    >>> split_changes("D:activation={leaky-relu: 0.2},width=0.5")
    ('D', ('activation={leaky-relu: 0.2}', 'width=0.5'))
    """
    *sources, changes = split_outside(text, ":")
    source = ":".join(sources)
    if not source or re.search(r"[/\\]|\.ya?ml$", changes, re.IGNORECASE):
        return text, ()
    return source, tuple(change.strip() for change in split_outside(changes, ","))


def changed_network(source: Source, overrides: Mapping[str, Any]) -> tuple[Network, tuple[str, ...]]:
    """Make a network with the changes after its name, and return both. They win over the changes to every network."""
    if not isinstance(source, (str, os.PathLike)):
        return Network.of(source, **overrides), ()
    plain, changes = split_changes(os.fspath(source))
    if not changes:
        return Network.of(plain, **overrides), ()
    try:
        return Network.of(plain, **{**overrides, **dict(map(setting, changes))}), changes
    except ArgumentError as error:
        raise ArgumentError(f"{shorten(os.fspath(source))}: {error}") from None
