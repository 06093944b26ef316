"""What a YAML file may say: the typed configuration, its defaults and overrides, reading and writing it.

The edge of the house: what comes in is checked here, once, with all problems listed together, and is trusted from
here on. A `Config` holds every option of every layer; what a file left unsaid has been filled in from its defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, SupportsFloat, SupportsIndex, TypedDict

import msgspec
import yaml
from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, ConfigError, Position, Problem, did_you_mean, shorten
from vggkit.base.numbers import parse_bytes, parse_count, plain, spell_bytes, spell_count
from vggkit.notation.document import Node, read, scalar
from vggkit.notation.layers import (
    LARGEST,
    Allowed,
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
    ReLU,
    Shape,
)
from vggkit.notation.preprocess import Preprocess, parse_preprocess, spell_preprocess
from vggkit.notation.spelling import (
    FOLLOWERS,
    NotationError,
    Spec,
    fields,
    kind_of,
    parse,
    parse_follower,
    parse_options,
    spell,
    spell_value,
    typed,
)

if TYPE_CHECKING:
    from fractions import Fraction

InputShape = Annotated[tuple[int, int, int], Allowed("channels × height × width, as in 3x224x224", minimum=1)]


class Entry(msgspec.Struct, frozen=True):
    """A layer of a configuration and what stands behind it.

    Args:
        layer: the layer, every option said.
        norm: the normalisation behind it.
        activation: the activation behind that.
        dropout: the rate of the dropout behind that; 0 is none.
        name: the name that the file gives it.
        position: where it stood in its file.
    """

    layer: Layer
    norm: Layer | None = None
    activation: Layer | None = None
    dropout: float = 0.0
    name: str | None = None
    position: Position | None = None


class Defaults(msgspec.Struct, frozen=True):
    """What a file leaves unsaid; as it stands, what the paper leaves unsaid (Sect. 2.1 and 3.1).

    Args:
        activation: behind every convolution and every hidden FC layer.
        norm: behind every convolution, before its activation.
        dropout: rate behind every hidden FC layer.
        kinds: options and followers of single kinds, by keyword; they win over the three above.
    """

    activation: Layer | None = ReLU()
    norm: Layer | None = None
    dropout: float = 0.5
    kinds: dict[str, Spec] = {}

    def entry(self, spec: Spec, *, hidden: bool, position: Position | None = None) -> Entry:
        """Return what a spec means, everything unsaid filled in.

        Args:
            spec: what the file says.
            hidden: False for the classifier's last weight layer, which has nothing behind it unless it says so.
            position: where it stood.
        """
        own = self.kinds.get(spec.kind.keyword)
        layer = spec.kind(**{**(own.fields if own else {}), **spec.fields})
        said: dict[str, Any] = {}
        if hidden:
            said = {word: getattr(self, word) for word in spec.kind.followers}
            said.update(_followers(own) if own else {})
        said.update(_followers(spec))
        return Entry(layer, **said, name=spec.name, position=position)


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


class PeakLimit(msgspec.Struct, frozen=True):
    """The most that a step may hold.

    Args:
        limit_bytes: that much.
        batch: at that batch.
    """

    limit_bytes: int
    batch: int = 1


class Budget(msgspec.Struct, frozen=True):
    """What a network may cost at most; `vggkit validate` checks it.

    Args:
        parameters: trainable elements.
        multiply_accumulates: for one image.
        inference_peak: bytes of a forward pass in float32.
        training_peak: bytes of a training step in float32 with momentum SGD, without weight decay.
    """

    parameters: int | None = None
    multiply_accumulates: int | None = None
    inference_peak: PeakLimit | None = None
    training_peak: PeakLimit | None = None


class Config(msgspec.Struct, frozen=True):
    """A configuration: a network in the paper's notation, every option said.

    Args:
        name: what it is called.
        aliases: other names that find it.
        source: where it comes from.
        note: what is different about it.
        input: shape of one image, channels × height × width.
        defaults: what its file leaves unsaid.
        blocks: lists of layers; each block is one module of the model.
        classifier: the layers behind the blocks; empty for a trunk.
        preprocess: how a picture becomes its input.
        reported: published figures.
        budget: what it may cost at most.
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
        return dumps(self)

    def _repr_html_(self) -> str:
        from vggkit.base.tables import preformatted

        return preformatted(dumps(self))


def _followers(spec: Spec) -> dict[str, Any]:
    return {word: said.layer() if isinstance(said, Spec) else said for word, said in spec.followers.items()}


# Reading


KEYS = tuple(
    "name aliases source note extends input defaults blocks classifier preprocess overrides reported budget".split()  # noqa: SIM905  # read as it is written
)
"""What a file may say at its top level."""


def parse_config(text: str | bytes, file: str, extend: Callable[[str], Config]) -> Config:
    """Read a configuration.

    Args:
        text: YAML.
        file: its name, for messages; without its folder and ending it is the configuration's name if none is given.
        extend: finds the configuration that `extends:` names.

    Returns:
        The configuration, overrides applied.

    Raises:
        ConfigError: with every problem of the file.
    """
    problems: list[Problem] = []
    root = read(text, file, problems)
    config = _FileReader(root, file, problems).config(extend)
    if problems:
        raise ConfigError(sorted(problems, key=_place))
    return config


def _place(problem: Problem) -> tuple[str, int, int]:
    place = problem.position
    return (place.file, place.line, place.column) if place else ("", 0, 0)


MAX_PROBLEMS = 50


class _FileReader:
    """Reads a document's parts, each with its own check, so that all problems come together."""

    def __init__(self, root: Node, file: str, problems: list[Problem]) -> None:
        self.root = root
        self.file = file
        self.problems = problems

    def problem(self, message: str, position: Position) -> None:
        """Add a problem; a file that has too many is not read on."""
        self.problems.append(Problem(message, position))
        if len(self.problems) >= MAX_PROBLEMS:
            raise ConfigError(
                [*self.problems, Problem(f"these are {MAX_PROBLEMS} problems; there may be more", position)]
            )

    def config(self, extend: Callable[[str], Config]) -> Config:
        if not isinstance(self.root.value, dict):
            self.problem(
                f"expected keys such as name, input and blocks, found {shorten(self.root.plain())}", self.root.position
            )
            raise ConfigError(self.problems)
        for key, node in self.root.keys.items():
            if key not in KEYS:
                advice = did_you_mean(key, KEYS) or f" Known: {', '.join(KEYS)}"
                self.problem(f"unknown key {shorten(key)}.{advice}", node.position)
        base = self.base(extend)
        defaults = self.defaults(base.defaults)
        config = Config(
            name=self.field("name", str, _stem(self.file), "a name"),
            aliases=self.field("aliases", tuple[str, ...], (), "a list of names"),
            source=self.field("source", str | None, None, "a line of text"),
            note=self.field("note", str | None, None, "a line of text"),
            input=self.input(base.input),
            defaults=defaults,
            blocks=self.blocks(defaults, base.blocks),
            classifier=self.classifier(defaults, base.classifier),
            preprocess=self.preprocess(base.preprocess),
            reported=self.reported(),
            budget=self.budget(),
        )
        if not self.problems and not config.blocks and not config.classifier:
            self.problem(
                "no layers: expected 'blocks', a list of lists such as [conv3-64, maxpool]", self.root.position
            )
        return self.overridden(config)

    def base(self, extend: Callable[[str], Config]) -> Config:
        node = self.root.value.get("extends")
        if node is None:
            return Config("")
        if not isinstance(node.value, str):
            self.problem(f"extends: expected a name or a path, found {shorten(node.plain())}", node.position)
            return Config("")
        try:
            return extend(node.value)
        except ConfigError as error:
            self.problems.extend(
                problem if problem.position else Problem(f"extends: {problem.message}", node.position)
                for problem in error.problems
            )
            return Config("")

    def field(self, key: str, kind: Any, default: Any, expected: str) -> Any:
        node = self.root.value.get(key)
        if node is None:
            return default
        try:
            value = msgspec.convert(node.plain(), kind)
        except msgspec.ValidationError:
            self.problem(f"{key}: expected {expected}, found {shorten(node.plain())}", node.position)
            return default
        if not all(text and text.isprintable() for text in ((value,) if isinstance(value, str) else value or ())):
            self.problem(
                f"{key}: expected {expected} that can be printed on one line, found {shorten(value)}", node.position
            )
        return value

    def input(self, default: Shape) -> Shape:
        node = self.root.value.get("input")
        if node is None:
            return default
        try:
            return input_shape(node.plain())
        except ValueError as error:
            self.problem(f"input: {error}", node.position)
            return default

    def defaults(self, base: Defaults) -> Defaults:
        node = self.root.value.get("defaults")
        if node is None or node.value is None:
            return base
        if not isinstance(node.value, dict):
            self.problem(f"defaults: expected options, found {shorten(node.plain())}", node.position)
            return base
        said: dict[str, Any] = {}
        kinds = dict(base.kinds)
        for word, value in node.value.items():
            try:
                if word in FOLLOWERS:
                    said[word] = follower(word, value.plain())
                elif (kind := kind_of(word)) is not None:
                    options = value.plain()
                    if not isinstance(options, dict):
                        raise ValueError(f"expected options such as {{stride: 1}}, found {shorten(options)}")
                    spec = parse_options(kind, options)
                    spec = spec._replace(followers=_followers(spec))
                    kinds[kind.keyword] = _merged(kinds.get(kind.keyword), spec)
                else:
                    known = (*FOLLOWERS, "conv", "maxpool", "avgpool", "FC", "LRN", "batchnorm", "groupnorm")
                    advice = did_you_mean(word, known) or f" Known: {', '.join(known)} and the other layers"
                    self.problem(f"defaults: unknown key {shorten(word)}.{advice}", node.keys[word].position)
            except NotationError as error:
                for fault in error.faults:
                    self.problem(f"defaults: {fault.told()}", value.at(fault.path, key=fault.at_key))
            except ValueError as error:
                self.problem(f"defaults: {word}: {error}", value.position)
        return replace(base, **said, kinds=kinds)

    def blocks(self, defaults: Defaults, base: tuple[tuple[Entry, ...], ...]) -> tuple[tuple[Entry, ...], ...]:
        node = self.root.value.get("blocks")
        if node is None:
            return base
        if isinstance(node.value, dict) and "extends" in self.root.value:
            return self.changed_blocks(node, defaults, base)
        if not isinstance(node.value, list):
            self.problem(
                f"blocks: expected a list of lists such as [conv3-64, maxpool], found {shorten(node.plain())}",
                node.position,
            )
            return base
        blocks = [self.block(block, number, defaults) for number, block in enumerate(node.value, start=1)]
        return tuple(block for block in blocks if block)

    def changed_blocks(
        self, node: Node, defaults: Defaults, base: tuple[tuple[Entry, ...], ...]
    ) -> tuple[tuple[Entry, ...], ...]:
        """Read a mapping of numbers: a list stands in that block's place or behind the last one, null takes it away."""
        blocks = dict(enumerate(base, start=1))
        for word, block in node.value.items():
            number = scalar(word)
            if number not in blocks and number != len(blocks) + 1:
                self.problem(
                    f"blocks: expected a block's number from 1 to {len(blocks) + 1}, found {shorten(word)}",
                    node.keys[word].position,
                )
                continue
            blocks[number] = () if block.value is None else self.block(block, number, defaults)
        return tuple(block for block in blocks.values() if block)

    def block(self, node: Node, number: int, defaults: Defaults) -> tuple[Entry, ...]:
        """Read a block's layers; none if it is wrong."""
        if not isinstance(node.value, list) or not node.value:
            self.problem(
                f"block {number}: expected a list such as [conv3-64, maxpool], found {shorten(node.plain())}",
                node.position,
            )
            return ()
        specs = self.specs(node.value, f" in block {number}")
        return tuple(defaults.entry(spec, hidden=True, position=position) for spec, position in specs)

    def classifier(self, defaults: Defaults, base: tuple[Entry, ...]) -> tuple[Entry, ...]:
        node = self.root.value.get("classifier")
        if node is None:
            return base
        if node.value is not None and not isinstance(node.value, list):
            self.problem(
                f"classifier: expected a list such as [FC-4096, FC-1000, soft-max], found {shorten(node.plain())}",
                node.position,
            )
            return base
        specs = self.specs(node.value or [], " in the classifier")
        return classifier_entries(defaults, specs)

    def specs(self, nodes: Iterable[Node], where: str) -> list[tuple[Spec, Position]]:
        specs = []
        for node in nodes:
            try:
                specs.append((parse(node.plain()), node.position))
            except NotationError as error:
                for fault in error.faults:
                    self.problem(fault.told(where), node.at(fault.path, key=fault.at_key))
        return specs

    def preprocess(self, default: Preprocess | None) -> Preprocess | None:
        node = self.root.value.get("preprocess")
        if node is None or node.value is None:
            return default
        try:
            return parse_preprocess(node.plain())
        except ValueError as error:
            self.problem(f"preprocess: {error}", node.position)
            return default

    def reported(self) -> Reported | None:
        node = self.root.value.get("reported")
        if node is None or node.value is None:
            return None
        try:
            return msgspec.convert(node.plain(), Reported)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at ")
            self.problem(f"reported: {message.replace('`', '')}", node.at(_steps(path)))
            return None

    def budget(self) -> Budget | None:
        node = self.root.value.get("budget")
        if node is None or node.value is None:
            return None
        if not isinstance(node.value, dict):
            self.problem(
                f"budget: expected limits such as {{parameters: 140M}}, found {shorten(node.plain())}", node.position
            )
            return None
        limits: dict[str, Any] = {}
        for word, value in node.value.items():
            if word not in BUDGET:
                advice = did_you_mean(word, BUDGET) or f" Known: {', '.join(BUDGET)}"
                self.problem(f"budget: unknown limit {shorten(word)}.{advice}", node.keys[word].position)
                continue
            try:
                limits[word] = BUDGET[word](value.plain())
            except ValueError as error:
                self.problem(f"budget: {word}: {error}", value.position)
        return Budget(**limits)

    def overridden(self, config: Config) -> Config:
        node = self.root.value.get("overrides")
        if node is None or node.value is None:
            return config
        if not isinstance(node.value, dict):
            self.problem(
                f"overrides: expected options such as {{num_classes: 10}}, found {shorten(node.plain())}", node.position
            )
            return config
        for word in sorted(node.value, key=_override_order):
            try:
                change = read_override(word, node.value[word].plain())
                config = config if self.problems else apply_override(config, word, change)
            except ArgumentError as error:
                self.problem(f"overrides: {error}", node.keys[word].position)
        return config


def peak_limit(value: Any) -> PeakLimit:
    """Read the most that a step may hold: `24GiB at batch 64`, or `24GiB` for one image.

    Raises:
        ValueError: says what was found and what was expected.

    >>> peak_limit("24GiB at batch 64")
    PeakLimit(limit_bytes=25769803776, batch=64)
    """
    match = re.fullmatch(r"\s*(\S+|\S+ \S+?)(?:\s+at\s+batch\s+([1-9][0-9]{0,17}))?\s*", str(value))
    try:
        if match is None:
            raise ValueError
        return PeakLimit(parse_bytes(match.group(1)), int(match.group(2) or 1))
    except ValueError:
        raise ValueError(f"expected memory at a batch, as in 24GiB at batch 64, found {shorten(value)}") from None


BUDGET: dict[str, Callable[[Any], Any]] = {
    "parameters": parse_count,
    "multiply_accumulates": parse_count,
    "inference_peak": peak_limit,
    "training_peak": peak_limit,
}
"""What a budget may limit, and how its limit is read."""


def _stem(file: str) -> str:
    stem = re.sub(r"\.ya?ml$", "", re.split(r"[/\\]", file)[-1])
    stem = "".join(char for char in stem if char.isprintable())
    return stem if stem and not stem.startswith("<") else "network"


def _merged(old: Spec | None, new: Spec) -> Spec:
    if old is None:
        return new
    return Spec(new.kind, {**old.fields, **new.fields}, {**old.followers, **new.followers})


def _steps(path: str) -> list[str | int]:
    """Return the steps of a msgspec path such as `$.single_scale[0].top1`."""
    return [key or int(index) for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path)]


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


def follower(word: str, value: Any) -> Any:
    """Read the value of `norm`, `activation` or `dropout`: a layer, None, or a rate.

    Raises:
        ValueError: says what was found and what was expected.
    """
    if word == "dropout":
        return typed(value, Rate)
    spec = parse_follower(word, value)
    return spec.layer() if spec else None


def classifier_entries(defaults: Defaults, specs: Iterable[tuple[Spec, Position | None]]) -> tuple[Entry, ...]:
    """Fill in a classifier's entries; nothing stands behind its last weight layer unless that says so."""
    specs = list(specs)
    weights = [index for index, (spec, _) in enumerate(specs) if spec.kind.role == "weight"]
    last = weights[-1] if weights else None
    return tuple(
        defaults.entry(spec, hidden=index != last, position=position) for index, (spec, position) in enumerate(specs)
    )


# Overrides


class Override(NamedTuple):
    """A change that can be asked of any configuration.

    Args:
        read: turns the plain value into what `apply` takes; a ValueError says what was expected.
        apply: makes the change; a ValueError says why it can't be.
        meaning: what it does, for help texts.
        schema: its values as JSON Schema.
    """

    read: Callable[[Any], Any]
    apply: Callable[[Config, Any], Config]
    meaning: str
    schema: dict[str, Any]


class Overrides(TypedDict, total=False):
    """The keywords that change a configuration, for type checkers: `OVERRIDES` says what each does; None is no change.

    A function takes them as `**overrides: Unpack[Overrides]`.
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
        config: what to change.
        changes: new values by the overrides' names; None means no change.

    Raises:
        ArgumentError: names the argument, what was found and what is allowed.

    >>> override(Config("x", input=(3, 224, 224)), {"in_channels": 1}).input
    (1, 224, 224)
    """
    for word in sorted(changes, key=_override_order):
        if changes[word] is not None:
            config = apply_override(config, word, read_override(word, changes[word]))
    return config


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
        ArgumentError: names the nearest one, or all.
    """
    if word not in OVERRIDES:
        advice = did_you_mean(word, OVERRIDES) or f" Known: {', '.join(OVERRIDES)}"
        raise ArgumentError(f"unknown override {shorten(word)}.{advice}")


def check_keywords(function: Callable[..., Any], given: Iterable[str], more: Iterable[str] = ()) -> None:
    """Check the further keywords of a function that takes overrides.

    Args:
        function: what was called.
        given: the keywords that are none of its own.
        more: those that it takes beside its own and the overrides.

    Raises:
        ArgumentError: names the nearest of all that it takes, or all.
    """
    known = (*(function.__kwdefaults__ or {}), *more, *OVERRIDES)
    for word in given:
        if word not in OVERRIDES and word not in more:
            advice = did_you_mean(word, known) or f" Known: {', '.join(known)}"
            raise ArgumentError(f"{function.__name__}: unknown keyword {shorten(word)}.{advice}")


def apply_override(config: Config, word: str, value: Any) -> Config:
    """Make one change, whose value has been read.

    Raises:
        ArgumentError: if the change can't be made to this configuration.
    """
    try:
        changed = OVERRIDES[word].apply(config, value)
    except ValueError as error:
        raise ArgumentError(f"{word}: {error}") from None
    # what was published is not this network
    return config if changed == config else replace(changed, reported=None)


def _override_order(word: str) -> int:
    return list(OVERRIDES).index(word) if word in OVERRIDES else len(OVERRIDES)


def _map_entries(config: Config, change: Callable[[Entry], Entry | None]) -> Config:
    """Change each entry, in the blocks and in the classifier; None drops it."""
    return _map_classifier(_map_blocks(config, change), change)


def _map_blocks(config: Config, change: Callable[[Entry], Entry | None]) -> Config:
    return replace(config, blocks=tuple(block for old in config.blocks if (block := _changed(old, change))))


def _map_classifier(config: Config, change: Callable[[Entry], Entry | None]) -> Config:
    return replace(config, classifier=_changed(config.classifier, change))


def _changed(entries: tuple[Entry, ...], change: Callable[[Entry], Entry | None]) -> tuple[Entry, ...]:
    return tuple(new for entry in entries if (new := change(entry)) is not None)


def _last_weight(config: Config) -> Entry | None:
    weights = [entry for entry in config.classifier if entry.layer.role == "weight"]
    return weights[-1] if weights else None


def _width(layer: Layer) -> int:
    """Return a weight layer's number of output channels or units."""
    width: int = getattr(layer, str(layer.primary))
    return width


def _resized(entry: Entry, width: int) -> Entry:
    return replace(entry, layer=replace(entry.layer, **{str(entry.layer.primary): width}))


_HEADS = {
    "paper": ("FC-4096", "FC-4096", "FC-{}", "soft-max"),
    "gap": ("global-avgpool", "FC-{}", "soft-max"),
}


def _with_head(config: Config, head: str) -> Config:
    last = _last_weight(config)
    classes = _width(last.layer) if last else 1000
    specs = [(parse(text.format(classes)), None) for text in _HEADS[head]]
    return replace(config, classifier=classifier_entries(config.defaults, specs))


def _with_num_classes(config: Config, count: int) -> Config:
    last = _last_weight(config)
    if last is None:
        raise ValueError(f"{config.name} has no classifier; head=paper or head=gap adds one")
    return _map_classifier(config, lambda entry: _resized(entry, count) if entry is last else entry)


class Width(NamedTuple):
    """A width multiplier.

    Args:
        factor: widths are multiplied by it.
        rounding: "floor", "ceil", or a number whose multiples the widths become.
    """

    factor: float
    rounding: str | int = "floor"

    def of(self, width: int) -> int:
        """Return a number of channels or units, multiplied.

        Raises:
            ValueError: if it becomes too large.

        >>> Width(0.3).of(64)
        19
        """
        from fractions import Fraction  # 3 ms, and few ask for a width

        exact = Fraction(str(self.factor))  # 0.29 of 100 channels are 29, not ⌊28.999…⌋
        wanted = max(1, _rounded(width * exact, self.rounding))
        if wanted > LARGEST:
            raise ValueError(f"expected a factor that leaves widths up to {LARGEST:.0e}, found {self.factor}")
        return wanted


_WIDTH = re.compile(r"(\S+)(?: (?:(floor|ceil)|multiple of ([1-9][0-9]{0,17})))?")


def width_multiplier(value: Any) -> Width:
    """Read a width multiplier with its rounding rule.

    Raises:
        ValueError: says what was found and what was expected.

    >>> width_multiplier("0.5 multiple of 8")
    Width(factor=0.5, rounding=8)
    """
    if not isinstance(value, str):
        return Width(typed(value, Positive))
    match = _WIDTH.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        factor = typed(scalar(match.group(1)), Positive)
    except ValueError:
        expected = "a number above 0, alone or with floor, ceil or multiple of 8 behind it"
        raise ValueError(f"expected {expected}, found {shorten(value)}") from None
    _, word, multiple = match.groups()
    return Width(factor, int(multiple) if multiple else word or "floor")


def _with_width(config: Config, width: Width) -> Config:
    last = _last_weight(config)

    def scale(entry: Entry) -> Entry:
        if entry.layer.role != "weight" or entry is last:
            return entry
        return _resized(entry, width.of(_width(entry.layer)))

    return _map_entries(config, scale)


def _rounded(width: Fraction, rounding: str | int) -> int:
    if not isinstance(rounding, int):
        return ceil(width) if rounding == "ceil" else floor(width)
    # MobileNetV2's rule (tensorflow/models, slim/nets/mobilenet, _make_divisible): the nearest multiple, halves up,
    # but never less than nine tenths
    nearest = max(rounding, floor((2 * width + rounding) / (2 * rounding)) * rounding)
    return nearest if 10 * nearest >= 9 * width else nearest + rounding


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

    return _map_blocks(config, swap)


def _with_activation(config: Config, activation: Layer | None) -> Config:
    def change(entry: Entry) -> Entry | None:
        if entry.layer.role == "activation":
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
            if "norm" in entry.layer.followers and not entry.norm and not (after and after.layer.role == "norm")
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
    last = _last_weight(config)
    standing_alone = any(isinstance(entry.layer, Dropout) for entry in config.classifier)

    def change(entry: Entry) -> Entry | None:
        if isinstance(entry.layer, Dropout):
            return replace(entry, layer=Dropout(rate)) if rate else None
        hidden = "dropout" in entry.layer.followers and entry is not last and not standing_alone
        return replace(entry, dropout=rate) if hidden or entry.dropout else entry

    config = replace(config, defaults=replace(config.defaults, dropout=rate))
    return _map_entries(config, change)


def _one_of(*choices: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"expected {' or '.join(choices)}, found {shorten(value)}")
        return value

    return check


def _as(kind: Any) -> Callable[[Any], Any]:
    return lambda value: typed(value, kind)


_INPUT_SCHEMA = {"$ref": "#/$defs/input"}
_POSITIVE_SCHEMA = {"type": "integer", "minimum": 1}

OVERRIDES: dict[str, Override] = {
    "head": Override(
        _one_of(*_HEADS), _with_head, "classifier: paper (FC-4096, FC-4096, FC-classes) or gap (global average)",
        {"enum": list(_HEADS)},
    ),
    "num_classes": Override(
        _as(Count), _with_num_classes, "units of the last layer of the classifier", _POSITIVE_SCHEMA,
    ),
    "input": Override(
        input_shape, lambda config, shape: replace(config, input=shape), "shape of one image, as 3x224x224",
        _INPUT_SCHEMA,
    ),
    "in_channels": Override(
        _as(Count), lambda config, count: replace(config, input=(count, *config.input[1:])), "channels of the input",
        _POSITIVE_SCHEMA,
    ),
    "width": Override(
        width_multiplier, _with_width,
        "multiplies all channels and units but the classes, rounded down, or as 0.5 ceil or 0.5 multiple of 8 says",
        {"anyOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "string", "pattern": "^[0-9.eE+-]+( (floor|ceil|multiple of [1-9][0-9]*))?$"},
        ]},
    ),
    "pool": Override(
        _one_of("max", "avg"), _with_pool, "max or avg, for the pools in the blocks", {"enum": ["max", "avg"]},
    ),
    "activation": Override(
        lambda value: follower("activation", value), _with_activation, "in place of every activation, or none",
        {"$ref": "#/$defs/activation"},
    ),
    "inplace": Override(
        _as(Flag), _with_inplace, "whether activations work in place; false is for hooks that need each output",
        {"type": "boolean"},
    ),
    "batch_norm": Override(
        _as(Flag), _with_batch_norm, "whether batch norm stands behind the convolutions", {"type": "boolean"},
    ),
    "dropout": Override(
        _as(Rate), _with_dropout, "rate behind the hidden FC layers; 0 for none",
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
    ),
}  # fmt: skip
"""Every override, in the order in which they are applied."""


# Writing


def dumps(config: Config) -> str:
    """Write a configuration as canonical YAML; reading it gives an equal Config.

    Args:
        config: what to write.

    Returns:
        The text, with one line per block, as the paper's table has one box.
    """
    lines = [f"name: {_line(config.name)}"]
    if config.aliases:
        lines.append(f"aliases: {_flow(config.aliases)}")
    if config.source is not None:
        lines.append(f"source: {_line(config.source)}")
    if config.note is not None:
        lines.append(f"note: {_line(config.note)}")
    lines.append(f"input: {'x'.join(map(str, config.input))}")
    if defaults := _spell_defaults(config.defaults):
        lines.append("defaults:")
        lines += [f"  {key}: {_flow(value)}" for key, value in defaults.items()]
    lines.append("blocks:" if config.blocks else "blocks: []")
    lines += [f"  - {_flow(_spell_entries(config.defaults, block), indent=5)}" for block in config.blocks]
    last = _last_weight(config)
    if config.classifier:
        lines.append(f"classifier: {_flow(_spell_entries(config.defaults, config.classifier, last), indent=13)}")
    if config.preprocess is not None:
        lines.append(f"preprocess: {_flow(spell_preprocess(config.preprocess))}")
    if config.reported is not None:
        lines += _spell_reported(config.reported)
    if config.budget is not None:
        lines += ["budget:", *(f"  {word}: {limit}" for word, limit in _spell_budget(config.budget))]
    return "\n".join(lines) + "\n"


def _spell_budget(budget: Budget) -> list[tuple[str, str]]:
    counts = [(word, getattr(budget, word)) for word in ("parameters", "multiply_accumulates")]
    peaks = [(word, getattr(budget, word)) for word in ("inference_peak", "training_peak")]
    return [
        *((word, spell_count(count)) for word, count in counts if count is not None),
        *((word, f"{spell_bytes(peak.limit_bytes)} at batch {peak.batch}") for word, peak in peaks if peak is not None),
    ]


def _spell_defaults(defaults: Defaults) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for word in FOLLOWERS:
        if getattr(defaults, word) != getattr(Defaults(), word):
            said[word] = _spell_follower(getattr(defaults, word))
    for keyword, spec in defaults.kinds.items():
        words = {field.name: word for word, field in fields(spec.kind).items()}
        options = {words[name]: spell_value(value) for name, value in spec.fields.items()}
        said[keyword] = {**options, **{word: _spell_follower(value) for word, value in _followers(spec).items()}}
    return said


def _spell_entries(defaults: Defaults, entries: tuple[Entry, ...], last: Entry | None = None) -> list[Any]:
    return [_spell_entry(defaults, entry, hidden=entry is not last) for entry in entries]


def _spell_entry(defaults: Defaults, entry: Entry, *, hidden: bool) -> Any:
    kind = type(entry.layer)
    required = {name: getattr(entry.layer, name) for name in _required_names(kind)}
    unsaid = defaults.entry(Spec(kind, required, {}), hidden=hidden)
    others = {
        word: _spell_follower(getattr(entry, word))
        for word in FOLLOWERS
        if getattr(entry, word) != getattr(unsaid, word)
    }
    if entry.name is not None:
        others["name"] = entry.name
    return spell(entry.layer, unsaid.layer, **others)


def _required_names(kind: type[Layer]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def _spell_follower(value: Layer | float | None) -> Any:
    if value is None:
        return "none"
    if not isinstance(value, Layer):
        return value
    spelt = spell(value)
    return "batch" if spelt == BatchNorm.keyword else spelt


def _spell_reported(reported: Reported) -> list[str]:
    lines = ["reported:"]
    if reported.parameters_in_millions is not None:
        lines.append(f"  parameters_in_millions: {reported.parameters_in_millions}")
    if reported.single_scale:
        lines.append("  single_scale:")
        lines += [f"    - {_flow(msgspec.to_builtins(row))}" for row in reported.single_scale]
    return lines


WIDTH = 118
"""A flow list longer than this is broken over lines."""


def _flow(value: Any, indent: int | None = None) -> str:
    """Write a value in YAML's flow style, on one line unless an indent is given and it is too long."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if not isinstance(value, (list, tuple)):
        return _scalar(value)
    items = [_flow(item) for item in value]
    line = f"[{', '.join(items)}]"
    if indent is None or indent + len(line) <= WIDTH:
        return line
    lines = [items[0]]
    for item in items[1:]:
        if indent + len(lines[-1]) + len(item) + 2 <= WIDTH:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return "[" + (",\n" + " " * indent).join(lines) + "]"


_PLAIN = re.compile(r"[A-Za-z0-9][\w./&+()-]*( [\w./&+()-]+)*", re.ASCII)
_PLAIN_LINE = re.compile(r"[A-Za-z0-9][\w./&+(),:'-]*( [\w./&+(),:'-]+)*", re.ASCII)


def _scalar(value: Any) -> str:
    """Write a scalar as it may stand inside a flow collection."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return repr(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) and scalar(text) is text else _quoted(text)


def _line(text: str) -> str:
    """Write a text as it may stand behind a key, to the end of the line."""
    plain = _PLAIN_LINE.fullmatch(text) and ": " not in text and not text.endswith(":")
    return text if plain and scalar(text) is text else _quoted(text)


def _quoted(text: str) -> str:
    quoted: str = yaml.dump(text, Dumper=yaml.CSafeDumper, default_style='"', width=2**20, allow_unicode=True)
    return quoted.rstrip("\n")
