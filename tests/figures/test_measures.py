"""The table of measures: each figure is found by its names, and one that is added is everywhere at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import scratch
from vggkit import compare
from vggkit.base.errors import ArgumentError
from vggkit.figures.measures import COMPARED, FOUND, MEASURES, Direction, direction, figure_name


def test_every_spelling_finds_its_figure() -> None:
    """Letter case, - and _ don't matter, and no spelling is that of two figures."""
    spellings = [spelling for measure in MEASURES for spelling in measure.spellings]
    assert len(spellings) == len(set(spellings))
    for known in (COMPARED, FOUND):
        for name, measure in known.items():
            words = [spelling.upper().replace("_", "-") for spelling in measure.spellings]
            assert {figure_name(word, "x", known) for word in words} == {name}


def test_an_unknown_figure_is_told_with_the_nearest() -> None:
    """Once the word is near, and else with all that there are."""
    with pytest.raises(ArgumentError, match=r"^sort: unknown figure 'parmeters'\. Did you mean 'parameters'\?$"):
        compare(sort="-parmeters")
    with pytest.raises(ArgumentError, match=r"Known: weight_layers, parameters, .*top5_error, layers"):
        figure_name("zzz", "only", COMPARED, others=("layers",))


def test_a_direction_is_a_figure_and_an_end() -> None:
    """Letter case, - and _ don't matter; without - before it the smallest comes first."""
    assert direction(" -MACs ", "sort", FOUND) == Direction("multiply_accumulates", True)
    assert str(direction("-training-peak", "sort", FOUND)) == "-training_peak_bytes"
    assert [direction(word, "sort", FOUND).words for word in ("field", "-field")] == [
        "least receptive field", "most receptive field",
    ]  # fmt: skip


KERNELS = """    Count(
        name="kernels",
        words="kernels",
        value=lambda costs: sum(row.weights // 9 for row in costs.summary if row.kind == "conv"),
        short="windows",
        condition="Number of 3×3 kernels.",
    ),
"""

ALONE = KERNELS.replace("    ),\n", '        time_alone="3 s",\n    ),\n')
"""The same figure, worked out for each network alone."""

USE = """
import contextlib, io, json, sys
import vggkit
from vggkit.cli import main
from vggkit.figures.measures import FOUND

def printed(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main(list(arguments))
        except SystemExit as end:
            assert end.code == 0, arguments
    return out.getvalue()

kernels = {"A": 1_024_192, "D": 1_634_496}  # 3·64 + 64·128 + … and 3·64 + 64·64 + …
[one, other] = vggkit.compare("D", "A", sort="windows").networks
assert (one.name, one.figures(["kernels"])["kernels"]) == ("A", kernels["A"])
alone = FOUND["kernels"].time_alone is not None
assert ("kernels" in printed("compare", "A", "D")) is not alone
assert ("kernels" in one.figures()) is not alone
assert ("Takes 3 s per variant." in " ".join(printed("find", "--help").split())) is alone
assert printed("compare", "A", "D", "--only", "windows", "--sort", "-kernels").splitlines()[-1].split()[-2:] == [
    f"{kernels[name]:,}" for name in ("D", "A")
]
limit = str(kernels["A"])
found = json.loads(printed("find", "A", "D", "--windows", f"<={limit}", "--format", "json"))["found"]
assert [(variant["name"], variant["kernels"]) for variant in found] == [("A", kernels["A"])]
assert "Number of 3×3 kernels." in " ".join(printed("find", "--help").split())
found = vggkit.find("D", "A", vary={"width": [0.5, 1]}, sort="windows", pareto=["windows", "-field"])
values = [variant.figures["kernels"] for variant in found]
assert values == sorted(values) and len(set(values)) == 4
assert "least kernels and most receptive field" in str(found)
assert found.plot().title == "D, A with varied width: kernels against receptive field"
"""


@pytest.mark.parametrize("entry", [KERNELS, ALONE], ids=["together", "alone"])
def test_a_new_measure_is_one_entry(entry: str, tmp_path: Path) -> None:
    """An entry added to the table is compared, found, chosen, sorted by, set a condition for and drawn."""
    package = scratch.package(tmp_path)
    scratch.add(package / "figures" / "measures.py", '    PixelSize(\n        name="receptive_field"', entry)
    scratch.run(tmp_path, USE)
