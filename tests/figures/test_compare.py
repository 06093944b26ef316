"""Networks side by side: sorted, told apart, and as data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import judges
from tests.figures.beside import shown
from vggkit import Network, compare
from vggkit.base.errors import VggkitError
from vggkit.figures import compared
from vggkit.figures.measures import COMPARED, USUAL


def test_equal_names_are_told_apart_by_what_was_typed(tmp_path: Path) -> None:
    """A file that calls its network D beside D: the file's path is the column's head."""
    path = tmp_path / "mine.yaml"
    path.write_text("extends: D\nname: D\noverrides: {width: 0.5}\n")
    assert [one.label for one in compare("D", path).networks] == ["D", str(path)]
    assert [one.label for one in compare("vgg16", "A").networks] == ["D", "A"]


# Sorting and choosing


def test_columns_are_sorted_by_a_figure() -> None:
    """Ascending, with - descending, equals in the order given; what is to the left and the first are the new ones."""
    assert [one.name for one in compare("E", "A", "C", sort="macs").networks] == ["A", "C", "E"]
    comparison = compare("A", "A-LRN", "E", sort="-parameters")
    assert [one.name for one in comparison.networks] == ["E", "A", "A-LRN"]
    assert comparison.networks[0].relative_parameters == 1.0
    assert shown(comparison)[2] == ["conv3-64", "", "*LRN"]


@pytest.mark.parametrize("sort", ["top5", "-top5"])
def test_networks_without_the_figure_come_last(sort: str) -> None:
    """D with batch norm has no reported error, whichever way the others are sorted."""
    order = [one.label for one in compare("D:batch_norm=true", "A", "E", sort=sort).networks]
    assert order == [*(["E", "A"] if sort == "top5" else ["A", "E"]), "D:batch_norm=true"]


@pytest.mark.parametrize("key", COMPARED)
def test_every_figure_can_be_sorted_by(key: str) -> None:
    """By its name and by each alias the order is that of the figures."""
    for word in COMPARED[key].spellings:
        values = [one.figures([key])[key] for one in compare("E", "C", "A", "D", sort=word).networks]
        if key == "relative_parameters":
            assert values[0] == 1.0
        assert values == sorted(values)


# As data


def test_the_dict_is_json_and_has_every_usual_figure() -> None:
    """It survives JSON, has a key per figure, and its rows are those shown."""
    comparison = compare("A", "A-LRN", "D:width=0.5", "D")
    data = comparison.to_dict()
    assert json.loads(json.dumps(data)) == data
    for entry, one in zip(data["networks"], comparison.networks):
        assert entry["name"] == one.label
        assert {key: entry[key] for key in USUAL} == one.figures()
    cells = [[cell and cell["notation"] for cell in row["cells"]] for row in data["rows"]]
    assert cells == [[cell.removeprefix("*") or None for cell in row] for row in shown(comparison)]
    assert data["rows"][2]["cells"][:2] == [None, {"layer": "block1_lrn", "notation": "LRN", "differs": True}]


def test_what_takes_long_is_worked_out_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and only by a name that asks for it; no other figure of the table or the data needs it."""
    asked: list[str] = []

    def counted(network: Network, *_: object) -> int:
        asked.append(network.name)
        return 7

    monkeypatch.setattr(compared, "reserved_on_card", counted)
    comparison = compare("A", "D")
    for only in (None, ["macs", "layers"]):
        table = comparison.table() if only is None else comparison.table(only)
        assert "reserved" not in f"{table.to_text()}{table.to_csv()}{json.dumps(comparison.to_dict())}"
    assert asked == []
    table = comparison.table(["reserved_bytes"])
    assert ("7 B" in table.to_text(), table.to_csv()) == (
        True,
        "name,input,reserved_bytes\nA,3x224x224,7\nD,3x224x224,7\n",
    )
    assert [list(entry)[2:] for entry in comparison.to_dict(["reserved_bytes"])["networks"]] == [["reserved_bytes"]] * 2
    assert asked == ["A", "D"]


def test_the_data_frame_has_a_row_per_network() -> None:
    """Names as index, a column per figure."""
    judges.package("pandas")
    frame = compare("A", "D").to_dataframe()
    assert list(frame.index) == ["A", "D"]
    assert list(frame.columns) == list(USUAL)
    assert frame.loc["D", "parameters"] == 138_357_544


def test_without_pandas_the_data_frame_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what is missing."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(VggkitError, match=r"^to_dataframe needs pandas, which is not installed"):
        compare("A").to_dataframe()
