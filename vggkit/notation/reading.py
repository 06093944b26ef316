"""YAML text → Config. Every part of a file is checked, and all its problems are listed together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from vggkit.base.errors import ArgumentError, ConfigError, NotationError, Position, Problem, did_you_mean, shorten
from vggkit.base.numbers import parse_bytes, parse_count
from vggkit.notation.config import CPU, CUDA, Budget, Config, Defaults, Entry, PeakLimit, Reported, input_shape
from vggkit.notation.document import YamlNode, read, scalar
from vggkit.notation.layers import Rate, Shape
from vggkit.notation.overrides import apply_override, in_order, read_override
from vggkit.notation.preprocess import Preprocess, parse_preprocess
from vggkit.notation.spelling import (
    FOLLOWERS,
    Spec,
    kind_of,
    parse,
    parse_follower,
    parse_options,
    typed,
)

KEYS = tuple(
    "name aliases source note extends input defaults blocks classifier preprocess overrides reported budget".split()  # noqa: SIM905  # read as it is written
)
"""The keys of a file's top level."""


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
        places = [(problem.position or Position("", 0, 0, ""), problem) for problem in problems]
        ordered = sorted(places, key=lambda one: (one[0].file, one[0].line, one[0].column))
        raise ConfigError([problem for _, problem in ordered])
    return config


MAX_PROBLEMS = 50


class _FileReader:
    """Reads a document's parts, each with its own check, so that all problems come together."""

    def __init__(self, root: YamlNode, file: str, problems: list[Problem]) -> None:
        self.root = root
        self.file = file
        self.problems = problems

    def problem(self, message: str, position: Position) -> None:
        """Add a problem; stop reading if there are too many."""
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
            name=self.field("name", str, name_of(self.file), "a name"),
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
                    plain = value.plain()
                    said[word] = typed(plain, Rate) if word == "dropout" else parse_follower(word, plain)
                elif (kind := kind_of(word)) is not None:
                    options = value.plain()
                    if not isinstance(options, dict):
                        raise ValueError(f"expected options such as {{stride: 1}}, found {shorten(options)}")
                    new, old = parse_options(kind, options), kinds.get(kind.keyword, Spec(kind, {}, {}))
                    kinds[kind.keyword] = Spec(kind, old.fields | new.fields, old.followers | new.followers)
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
        self, node: YamlNode, defaults: Defaults, base: tuple[tuple[Entry, ...], ...]
    ) -> tuple[tuple[Entry, ...], ...]:
        """Read blocks by number: a list replaces that block or is added after the last one, null removes the block."""
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

    def block(self, node: YamlNode, number: int, defaults: Defaults) -> tuple[Entry, ...]:
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
        return defaults.classifier(self.specs(node.value or [], " in the classifier"))

    def specs(self, nodes: Iterable[YamlNode], where: str) -> list[tuple[Spec, Position]]:
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
            message, _, path = str(error).partition(" - at ")  # such as $.single_scale[0].top1
            steps = [key or int(index) for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path)]
            self.problem(f"reported: {message.replace('`', '')}", node.at(steps))
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
        for word in in_order(node.value):
            try:
                change = read_override(word, node.value[word].plain())
                config = config if self.problems else apply_override(config, word, change)
            except ArgumentError as error:
                self.problem(f"overrides: {error}", node.keys[word].position)
        return config


def peak_limit(value: Any) -> PeakLimit:
    """Read a limit on the memory of a step: `24GiB at batch 64`, or `24GiB` for one image.

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


def device(value: Any) -> str:
    """Read where the memory of a budget is meant.

    Raises:
        ValueError: says what was found and what was expected.
    """
    if value not in (CPU, CUDA):
        raise ValueError(f"expected {CPU} or {CUDA}, found {shorten(value)}")
    return str(value)


BUDGET: dict[str, Callable[[Any], Any]] = {
    "parameters": parse_count,
    "multiply_accumulates": parse_count,
    "inference_peak": peak_limit,
    "training_peak": peak_limit,
    "device": device,
}
"""The limits of a budget and where they are meant, and how each is read."""


def name_of(file: str) -> str:
    """Return the name of a configuration whose file gives none: the file's, without its folder and ending.

    >>> name_of("folder/my.yaml"), name_of("<text>")
    ('my', 'network')
    """
    stem = re.sub(r"\.ya?ml$", "", re.split(r"[/\\]", file)[-1])
    stem = "".join(char for char in stem if char.isprintable())
    return stem if stem and not stem.startswith("<") else "network"
