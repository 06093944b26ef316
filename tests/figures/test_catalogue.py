"""The list of configurations and the names of layers, as tables and as data."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

import vggkit
from vggkit.base.tables import FORMATS
from vggkit.cli import main

Golden = Callable[[str, str], None]


def printed(*arguments: str, **environment: str) -> str:
    """Return what the command prints through a pipe."""
    result = CliRunner().invoke(main, arguments, env=environment)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("format", FORMATS)
def test_the_list_is_the_golden_one(format: str, golden: Golden) -> None:
    """Six configurations, in every format."""
    golden(f"list{FORMATS[format].endings[0]}", printed("list", "--format", format))


@pytest.mark.parametrize("format", FORMATS)
def test_the_names_of_d_are_the_golden_ones(format: str, golden: Golden) -> None:
    """Every layer by its four names, in every format."""
    golden(f"names-D{FORMATS[format].endings[0]}", printed("names", "D", "--format", format))


@pytest.mark.parametrize("command", [("list",), ("names", "E")])
def test_csv_and_json_say_the_same(command: tuple[str, ...]) -> None:
    """Rows, keys and values; a list is joined by x, as shapes are read."""
    data = json.loads(printed(*command, "--format", "json"))
    rows = list(csv.DictReader(io.StringIO(printed(*command, "--format", "csv"))))
    written = [
        {key: "x".join(map(str, v)) if isinstance(v, list) else str(v or "") for key, v in row.items()} for row in data
    ]
    assert rows == written


@pytest.mark.parametrize("width", range(50, 121, 10))
def test_a_narrow_list_keeps_names_and_parameters_on_one_line(width: int) -> None:
    """Columns are left out, lines never broken."""
    lines = printed("list", COLUMNS=str(width)).split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[2:]] == vggkit.names()
    assert all(f"{vggkit.summarize(line.split()[0]).totals.parameters:,}" in line for line in lines[2:])
