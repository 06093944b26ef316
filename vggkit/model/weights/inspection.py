"""A file → what it is, without reading the values of its tensors where the format allows; and how that is shown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from textwrap import fill
from typing import Any

import msgspec

from vggkit.base.errors import VggkitError, escaped
from vggkit.base.numbers import grouped, megabytes
from vggkit.base.tables import Column, DrawnTable, FittedTable, Shown, Table, grid
from vggkit.model.weights.checkpoint import Checkpoint
from vggkit.model.weights.container import open_container
from vggkit.model.weights.differences import differences
from vggkit.model.weights.identification import likeliest
from vggkit.model.weights.layouts import checkpoint_in_container, open_checkpoint
from vggkit.model.weights.matching import Matching, match
from vggkit.model.weights.published import of_file
from vggkit.network import Network
from vggkit.notation.layers import elements


class TensorRow(msgspec.Struct, frozen=True):
    """A tensor of a file.

    Args:
        name: in the file's words.
        shape: as the file has it.
        dtype: torch's name of it.
        bytes: its size.
        becomes: the parameter or buffer that it is for here; None if it is for none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    becomes: str | None


class Inspection(Shown, msgspec.Struct, frozen=True):
    """What a checkpoint is.

    Args:
        file: its path.
        format: the format of the file.
        layout: whose names and axes it has.
        description: the configuration in words.
        known: the shipped configuration that it is, or a variant of; None if it is none or can't be told.
        yaml: the configuration that builds it; None if it can't be told.
        published: whose published file has its name, and whether it has its size; None if nobody's.
        parameters: elements of what is trained: all but statistics of batch norm.
        dtypes: of its tensors, the most frequent first.
        bytes: of all tensors.
        matched: how its layers were matched with the configuration's.
        notes: what it does not say and was assumed; or why it can't be told.
        tensors: all of them.
    """

    file: str
    format: str
    layout: str
    description: str
    known: str | None
    yaml: str | None
    published: str | None
    parameters: int
    dtypes: tuple[str, ...]
    bytes: int
    matched: str
    notes: tuple[str, ...]
    tensors: tuple[TensorRow, ...]

    def table(self, *, tensors: bool = False) -> Table:
        """Return the facts; as CSV and data frame the tensors.

        Args:
            tensors: whether a grid of the tensors stands behind the facts, too.
        """
        return _InspectionTable(self, tensors=tensors)


TRAINED = ("weight", "bias")


def inspect(path: str | os.PathLike[str], config: str | os.PathLike[str] | Network | None = None) -> Inspection:
    """Tell what a checkpoint is.

    Args:
        path: the file.
        config: which configuration to hold it against; None tells it from the file.

    Returns:
        What it is: layout, configuration, parameters, dtypes, bytes and tensors.

    Raises:
        CheckpointError: if it is no checkpoint, damaged, or would execute code.
        ConfigError: if the configuration can't be found or is wrong.

    >>> import pathlib, tempfile
    >>> from vggkit import build, save_weights
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "small.safetensors"
    >>> save_weights(build("D", input="3x32x32", width=0.1, num_classes=10), file)
    >>> inspect(file).description
    'D, width 0.1, 10 classes, input 3×32×32'
    """
    container = open_container(path)
    checkpoint = checkpoint_in_container(container) if container.is_structure else open_checkpoint(path)
    notes: tuple[str, ...] = ()
    try:
        network, matching, known, description, notes = _told(checkpoint, config)
    except VggkitError as error:
        if config is not None:
            raise
        network, matching, known = None, Matching((), "not at all"), None
        description, notes = "can't be told", (str(error).removeprefix(f"{checkpoint.path}: "),)
    stored = checkpoint.container.tensors.values()
    dtypes = [tensor.dtype for tensor in stored]
    trained = [tensor for layer in checkpoint.layers for role, tensor in layer.tensors.items() if role in TRAINED]
    becomes = {
        pair.stored.tensors[role].name: f"{pair.placed.module}.{role}"
        for pair in matching.pairs
        for role, _ in pair.roles()
    }
    rows = [TensorRow(t.name, t.shape, t.dtype, t.size, becomes.get(t.name)) for t in stored]
    return Inspection(
        file=checkpoint.path,
        format=checkpoint.container.format,
        layout=checkpoint.layout.title,
        description=description,
        known=known,
        yaml=None if network is None else str(network.config),
        published=_published(checkpoint),
        parameters=sum(elements(tensor.shape) for tensor in trained),
        dtypes=tuple(sorted(set(dtypes), key=lambda dtype: (-dtypes.count(dtype), dtype))),
        bytes=sum(tensor.size for tensor in stored),
        matched=matching.by,
        notes=notes,
        tensors=tuple(rows),
    )


def _published(checkpoint: Checkpoint) -> str | None:
    passport = of_file(checkpoint.path)
    if passport is None:
        return None
    same = passport.fits(checkpoint.container.file_size)
    return f"as {passport.file} by {passport.origin}{'' if same else ', which has another size: this is not that file'}"


def _told(
    checkpoint: Checkpoint, config: str | os.PathLike[str] | Network | None
) -> tuple[Network, Matching, str | None, str, tuple[str, ...]]:
    if config is None:
        identity = likeliest(checkpoint)
        return identity.network, identity.matching, identity.known, identity.description, identity.notes
    network = Network.of(config)
    matching = match(network, checkpoint)
    found = matching.differences or tuple(differences(network, checkpoint, matching))
    return network, matching, network.name, f"held against {network.name}", found


# The table


FACTS: list[Column[tuple[str, str]]] = [
    Column("", lambda fact: fact[0], style="cyan"),
    Column("", lambda fact: fact[1], fold=1),
]

TENSORS: list[Column[TensorRow]] = [
    Column("tensor", lambda row: row.name),
    Column("shape", lambda row: "×".join(map(str, row.shape)) or "scalar", "right", rank=1),
    Column("dtype", lambda row: row.dtype, rank=3),
    Column("bytes", lambda row: grouped(row.bytes), "right", rank=2),
    Column("becomes", lambda row: row.becomes or "–", style="cyan"),
]


class _InspectionTable(DrawnTable):
    """The facts and the tensors; the terminal has the YAML of what is not in the zoo between them.

    Args:
        inspection: what is shown.
        tensors: whether the tensors are.
    """

    def __init__(self, inspection: Inspection, *, tensors: bool) -> None:
        facts = grid(FACTS, _facts(inspection), title=escaped(inspection.file))
        listed = [grid(TENSORS, inspection.tensors)] if tensors else []
        data: dict[str, Any] = msgspec.to_builtins(inspection)
        records = [{**row, "shape": list(row["shape"])} for row in data["tensors"]]
        super().__init__(facts, *listed, records=records, data=data)
        self.yaml = inspection.yaml if inspection.known is None else None

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        facts, *listed = self.grids
        parts: list[Any] = [Text(self.title, style="bold"), FittedTable(facts._replace(title=""))]
        if self.yaml:
            parts += ["", _Yaml(self.yaml)]
        for tensors in listed:
            parts += ["", FittedTable(tensors)]
        return Group(*parts)


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    facts = [
        ("format", inspection.format),
        ("layout", inspection.layout),
        ("configuration", inspection.description),
        *([("published", inspection.published)] if inspection.published else []),
        ("parameters", grouped(inspection.parameters)),
        *([("dtype", ", ".join(inspection.dtypes))] if inspection.dtypes else []),
        ("tensors", f"{grouped(len(inspection.tensors))}, {megabytes(inspection.bytes)}"),
        ("matched", inspection.matched),
    ]
    return [*facts, *(("note", note) for note in inspection.notes)]


class _Yaml:
    """A rich renderable: YAML, each line folded to the console's width so that it still reads the same."""

    def __init__(self, text: str) -> None:
        self.lines = escaped(text.rstrip(), keep="\n").split("\n")

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        from rich.text import Text

        yield Text("\n".join(folded(line, options.max_width) for line in self.lines))


def folded(line: str, width: int) -> str:
    """Fold a line of YAML so that it still reads the same: further to the right than it begins."""
    indent = len(line) - len(line.lstrip())
    return fill(line, width, subsequent_indent=" " * (indent + 4), break_long_words=False, break_on_hyphens=False)
