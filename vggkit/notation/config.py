"""A configuration as a typed value: every option of every layer, with what a file left out filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import Position
from vggkit.base.numbers import spell_bytes, spell_count
from vggkit.notation.layers import Allowed, BatchNorm, Flatten, Layer, ReLU, Shape
from vggkit.notation.preprocess import Preprocess, spell_preprocess
from vggkit.notation.spelling import FOLLOWERS, Spec, fields, spell, spell_value, typed

InputShape = Annotated[tuple[int, int, int], Allowed("channels × height × width, as in 3x224x224", minimum=1)]


class Entry(msgspec.Struct, frozen=True):
    """A layer of a configuration and what follows it.

    Args:
        layer: the layer, with every option.
        norm: the normalisation that follows it.
        activation: the activation after that.
        dropout: the rate of the dropout after that; 0 for none.
        name: the name that the file gives it.
        position: its place in the file.
    """

    layer: Layer
    norm: Layer | None = None
    activation: Layer | None = None
    dropout: float = 0.0
    name: str | None = None
    position: Position | None = None


class Defaults(msgspec.Struct, frozen=True):
    """Options that a file need not repeat. Those that it doesn't set are the paper's (Sect. 2.1 and 3.1).

    Args:
        activation: follows every convolution and every hidden FC layer.
        norm: follows every convolution, before its activation.
        dropout: rate after every hidden FC layer.
        kinds: options and followers of single kinds, by keyword; they win over the three above.
    """

    activation: Layer | None = ReLU()
    norm: Layer | None = None
    dropout: float = 0.5
    kinds: dict[str, Spec] = {}

    def entry(self, spec: Spec, *, hidden: bool, position: Position | None = None) -> Entry:
        """Return what a spec means, with everything it leaves out filled in.

        Args:
            spec: what the file says.
            hidden: False for the classifier's last weight layer, which nothing follows unless the file says so.
            position: its place in the file.
        """
        own = self.kinds.get(spec.kind.keyword)
        layer = spec.kind(**{**(own.fields if own else {}), **spec.fields})
        followers: dict[str, Any] = {}
        if hidden:
            followers = {word: getattr(self, word) for word in spec.kind.followers}
            followers.update(own.followers if own else {})
        followers.update(spec.followers)
        return Entry(layer, **followers, name=spec.name, position=position)

    def classifier(self, specs: Iterable[tuple[Spec, Position | None]]) -> tuple[Entry, ...]:
        """Return the entries of a classifier. Every layer is hidden, except the last one with weights."""
        specs = list(specs)
        last = max((index for index, (spec, _) in enumerate(specs) if spec.kind.is_weight_layer), default=None)
        return tuple(
            self.entry(spec, hidden=index != last, position=position) for index, (spec, position) in enumerate(specs)
        )

    def spell(self, entry: Entry, *, hidden: bool) -> str | dict[str, Any]:
        """Write an entry in the shortest form that `entry` reads back as it was."""
        kind = type(entry.layer)
        required = {field.name: getattr(entry.layer, field.name) for field in fields(kind).values() if field.required}
        default = self.entry(Spec(kind, required, {}), hidden=hidden)
        others = {
            word: _spell_follower(getattr(entry, word))
            for word in FOLLOWERS
            if getattr(entry, word) != getattr(default, word)
        }
        if entry.name is not None:
            others["name"] = entry.name
        return spell(entry.layer, default.layer, **others)

    def spelt(self) -> dict[str, Any]:
        """Return what differs from the paper's defaults, as plain values for a file."""
        paper = Defaults()
        changed = [word for word in FOLLOWERS if getattr(self, word) != getattr(paper, word)]
        said: dict[str, Any] = {word: _spell_follower(getattr(self, word)) for word in changed}
        for keyword, spec in self.kinds.items():
            words = {field.name: word for word, field in fields(spec.kind).items()}
            options = {words[name]: spell_value(value) for name, value in spec.fields.items()}
            said[keyword] = {**options, **{word: _spell_follower(value) for word, value in spec.followers.items()}}
        return said


def _spell_follower(value: Layer | float | None) -> Any:
    if value is None:
        return "none"
    if not isinstance(value, Layer):
        return value
    spelt = spell(value)
    return "batch" if spelt == BatchNorm.keyword else spelt


class SingleScale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the paper's Table 3: errors at one test scale.

    Args:
        train: shorter side of the training images, S; a range where it was drawn from one.
        test: shorter side of the test images, Q.
        top1: top-1 error on the validation set, in percent.
        top5: top-5 error on the validation set, in percent.
    """

    train: int | tuple[int, int]
    test: int
    top1: float
    top5: float

    def __post_init__(self) -> None:
        sides = self.train if isinstance(self.train, tuple) else (self.train,)
        if min(*sides, self.test) < 1:
            raise ValueError("a side of an image is at least 1")
        if not (0 <= self.top5 <= self.top1 <= 100):
            raise ValueError("errors are percentages, and top5 is not above top1")


class Reported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Figures that a publication gives for the network.

    Args:
        parameters_in_millions: the paper's Table 2.
        single_scale: the paper's Table 3.
    """

    parameters_in_millions: int | None = None
    single_scale: tuple[SingleScale, ...] = ()


CPU, CUDA = "cpu", "cuda"
"""Where the memory of a budget is meant."""


class PeakLimit(msgspec.Struct, frozen=True):
    """The most memory that a step may take.

    Args:
        limit_bytes: in bytes.
        batch: number of images of the step.
    """

    limit_bytes: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{spell_bytes(self.limit_bytes)} at batch {self.batch}"


class Budget(msgspec.Struct, frozen=True):
    """The most that a network may cost; `vggkit validate` checks it.

    Args:
        parameters: trainable elements.
        multiply_accumulates: for one image.
        inference_peak: memory of a forward pass in float32.
        training_peak: memory of a training step in float32 with momentum SGD, without weight decay.
        device: "cuda", where memory is what torch's allocator reserves on a card, or "cpu", where tensors are counted.
    """

    parameters: int | None = None
    multiply_accumulates: int | None = None
    inference_peak: PeakLimit | None = None
    training_peak: PeakLimit | None = None
    device: str = CUDA

    def spelt(self) -> dict[str, str]:
        """Return its limits as a file has them."""
        limits = {word: getattr(self, word) for word in self.__struct_fields__ if word != "device"}
        said = {
            word: spell_count(limit) if isinstance(limit, int) else str(limit)
            for word, limit in limits.items()
            if limit is not None
        }
        return said if self.device == CUDA else {**said, "device": self.device}


class Config(msgspec.Struct, frozen=True):
    """A configuration: a network in the paper's notation, with every option filled in.

    Args:
        name: its name.
        aliases: other names that find it.
        source: where it comes from.
        note: what is different about it.
        input: shape of one image, channels × height × width.
        defaults: options that the layers need not repeat.
        blocks: lists of layers; each block is one module of the model.
        classifier: the layers after the blocks; empty for a trunk.
        preprocess: how a picture becomes its input.
        reported: published figures.
        budget: the most that it may cost.
    """

    name: str
    aliases: tuple[str, ...] = ()
    source: str | None = None
    note: str | None = None
    input: Shape = (3, 224, 224)
    defaults: Defaults = Defaults()
    blocks: tuple[tuple[Entry, ...], ...] = ()
    classifier: tuple[Entry, ...] = ()
    preprocess: Preprocess | None = None
    reported: Reported | None = None
    budget: Budget | None = None

    def __str__(self) -> str:
        """Return it as canonical YAML, which reads back as an equal Config. A block is one line, if it fits."""
        from vggkit.notation.writing import flow, line

        lines = [f"name: {line(self.name)}"]
        if self.aliases:
            lines.append(f"aliases: {flow(self.aliases)}")
        if self.source is not None:
            lines.append(f"source: {line(self.source)}")
        if self.note is not None:
            lines.append(f"note: {line(self.note)}")
        lines.append(f"input: {'x'.join(map(str, self.input))}")
        if defaults := self.defaults.spelt():
            lines += ["defaults:", *(f"  {key}: {flow(value)}" for key, value in defaults.items())]
        lines.append("blocks:" if self.blocks else "blocks: []")
        for block in self.blocks:
            lines.append(f"  - {flow([self.defaults.spell(entry, hidden=True) for entry in block], indent=5)}")
        if self.classifier:
            last = last_weight(self)
            entries = [self.defaults.spell(entry, hidden=entry is not last) for entry in self.classifier]
            lines.append(f"classifier: {flow(entries, indent=13)}")
        if self.preprocess is not None:
            lines.append(f"preprocess: {flow(spell_preprocess(self.preprocess))}")
        if self.reported is not None:
            lines.append("reported:")
            if self.reported.parameters_in_millions is not None:
                lines.append(f"  parameters_in_millions: {self.reported.parameters_in_millions}")
            if self.reported.single_scale:
                rows = map(msgspec.to_builtins, self.reported.single_scale)
                lines += ["  single_scale:", *(f"    - {flow(row)}" for row in rows)]
        if self.budget is not None:
            lines += ["budget:", *(f"  {word}: {limit}" for word, limit in self.budget.spelt().items())]
        return "\n".join(lines) + "\n"

    def _repr_html_(self) -> str:
        from vggkit.base.tables import preformatted

        return preformatted(str(self))


def last_weight(config: Config) -> Entry | None:
    """Return the last layer of the classifier that has weights, whose units are the classes."""
    return next((entry for entry in reversed(config.classifier) if entry.layer.is_weight_layer), None)


def in_torchs_order(config: Config) -> Config:
    """Return a configuration that flattens maps channel by channel."""

    def plain(entry: Entry) -> Entry:
        return replace(entry, layer=Flatten()) if entry.layer.flattens else entry

    return replace(
        config,
        blocks=tuple(tuple(map(plain, block)) for block in config.blocks),
        classifier=tuple(map(plain, config.classifier)),
    )


def input_shape(value: Any) -> Shape:
    """Read an input shape: `3x224x224` or [3, 224, 224].

    Raises:
        ValueError: says what was found and what was expected.

    >>> input_shape("3x64x96")
    (3, 64, 96)
    """
    parts = list(value) if isinstance(value, tuple) else value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}([xX×][0-9]{1,19}){2}", value.strip()):
        parts = [int(part) for part in re.split("[xX×]", value.strip())]
    shape: Shape = typed(parts, InputShape)
    return shape
