"""`vggkit inspect`: what it says, in which formats, how it ends."""

from __future__ import annotations

import csv
import json
import os
import re
from io import StringIO
from pathlib import Path

import h5py
import msgspec
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import vggkit
from tests.cli.test_app import printed, run, told
from tests.model.weights.hostile import header
from tests.model.weights.makers import LAYOUT_FILES, in_layout, small, without_configuration
from tests.model.weights.test_container import Malicious
from vggkit.base import tables
from vggkit.model.weights.inspection import Inspection, folded, inspect
from vggkit.model.weights.published import passports

DOCS = (Path(__file__).parents[3] / "docs" / "json.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_the_figures_are_the_files(layout: str, tmp_path: Path) -> None:
    """Parameters, dtypes, bytes and tensors, against the model that was saved."""
    model = small("vgg13_bn")
    inspection = inspect(in_layout(model, layout, tmp_path))
    state = model.state_dict()
    assert inspection.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert inspection.bytes == sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert inspection.dtypes == ("float32", "int64")
    assert sorted(str(row.becomes) for row in inspection.tensors) == sorted(state)
    for row in inspection.tensors:
        tensor = state[str(row.becomes)]
        assert row.bytes == tensor.numel() * tensor.element_size()
        assert sorted(row.shape) == sorted(tensor.shape) or layout in ("keras", "keras3", "timm")
        assert row.dtype == str(tensor.dtype).removeprefix("torch.")


def test_the_json_is_all_that_is_known(tmp_path: Path) -> None:
    """With and without --tensors, and the keys are the documented ones."""
    path = in_layout(small(), "timm", tmp_path)
    text = printed("inspect", str(path), "--format", "json")
    assert text == printed("inspect", str(path), "--format", "json", "--tensors")
    plain = json.loads(text)
    assert plain == json.loads(json.dumps(msgspec.to_builtins(inspect(path))))
    assert list(plain) == list(Inspection.__struct_fields__)
    section = DOCS.split("## The JSON of `vggkit inspect --format json`")[1].split("\n## ")[0]
    documented = [word for line in section.splitlines() if line.startswith("| `") for word in line.split("`")[1:2]]
    assert documented == list(plain)
    assert all(f"`{key}`" in section for key in plain["tensors"][0])


def test_the_csv_has_a_line_for_each_tensor(tmp_path: Path) -> None:
    """As the JSON has them."""
    path = in_layout(small(), "keras", tmp_path)
    rows = list(csv.DictReader(StringIO(printed("inspect", str(path), "--format", "csv"))))
    tensors = inspect(path).tensors
    assert [row["name"] for row in rows] == [tensor.name for tensor in tensors]
    assert [row["shape"] for row in rows] == ["x".join(map(str, tensor.shape)) for tensor in tensors]
    assert [row["becomes"] for row in rows] == [tensor.becomes for tensor in tensors]
    assert [int(row["bytes"]) for row in rows] == [tensor.bytes for tensor in tensors]


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_the_table_fits_and_has_every_fact(columns: int, tmp_path: Path) -> None:
    """At any width the facts are there, and with --tensors each tensor and what it becomes."""
    path = in_layout(small("vgg13_bn"), "torchvision", tmp_path)
    text = printed("inspect", str(path), "--tensors", COLUMNS=str(columns))
    lines = text.splitlines()
    assert max(len(line) for line in lines[1:]) <= columns
    assert "".join(lines[:2]).startswith(str(path)[: columns - 1])
    words = " ".join(text.split())
    assert "configuration B with batch norm, width 0.05, 7 classes, input 3×64×64" in words
    assert "layout torchvision's state dict" in words
    assert "matched by their names in torchvision's layout" in words
    rows = [row for row in inspect(path).tensors if columns > 60 or not row.name.endswith("num_batches_tracked")]
    for row in rows:
        assert any(line.startswith(row.name) and line.rstrip().endswith(str(row.becomes)) for line in lines)
    listed = text.split("tensor ")[-1]
    assert ("25×25×3×3" in listed, "int64" in listed) == (columns > 60, columns > 80)


def test_markdown_has_the_facts_and_on_request_the_tensors(tmp_path: Path) -> None:
    """Two tables, or one."""
    path = in_layout(small(), "torchvision", tmp_path)
    short = printed("inspect", str(path), "--format", "markdown")
    assert "| configuration | A, width 0.05, 7 classes, input 3×64×64 |" in short
    long = printed("inspect", str(path), "--format", "markdown", "--tensors")
    assert long.startswith(short)
    assert "| features.0.weight | 3×3×3×3 | float32 | 324 | block1.conv1.weight |" in long


def test_latex_and_html_have_the_facts_and_on_request_the_tensors(tmp_path: Path) -> None:
    """A tabular and a table for each; HTML is a page of its own."""
    path = in_layout(small(), "torchvision", tmp_path)
    latex, html = (printed("inspect", str(path), "--format", format) for format in ("latex", "html"))
    assert "configuration & A, width 0.05, 7 classes, input 3$\\times$64$\\times$64 \\\\" in latex
    assert ">torchvision&#x27;s state dict</td>" in html
    assert (latex.count("\\begin{tabular}"), html.count("<table>")) == (1, 1)
    latex, html = (printed("inspect", str(path), "--tensors", "--format", format) for format in ("latex", "html"))
    assert "features.0.weight & 3$\\times$3$\\times$3$\\times$3 & float32 & 324 & block1.conv1.weight" in latex
    assert (latex.count("\\begin{tabular}"), html.count("<table>")) == (2, 2)


def test_it_shows_itself(tmp_path: Path) -> None:
    """As text the table of the command line, as a data frame the tensors by name."""
    inspection = inspect(in_layout(small(), "torchvision", tmp_path))
    assert f"{inspection}\n" == printed("inspect", inspection.file)
    assert list(inspection.to_dataframe().index) == [row.name for row in inspection.tensors]


def test_the_report_can_be_written_to_a_file(tmp_path: Path) -> None:
    """Its ending says the format."""
    path, target = in_layout(small(), "torchvision", tmp_path), tmp_path / "report.json"
    assert printed("inspect", str(path), "-o", str(target)) == ""
    assert target.read_text(encoding="utf-8") == printed("inspect", str(path), "--format", "json")


@pytest.mark.parametrize("width", [40, 60, 140])
def test_what_is_in_no_zoo_is_printed_as_yaml_that_builds_it(width: int, tmp_path: Path) -> None:
    """Folded to any width, it still reads the same."""
    text = "{input: 3x16x16, blocks: [[conv3-4, {conv: 6, kernel: 3, norm: batch, bias: false}, conv1-5, maxpool]]}"
    model = vggkit.build(vggkit.loads(text), seed=0)
    path = without_configuration(in_layout(model, "torchvision", tmp_path))
    shown = printed("inspect", str(path), COLUMNS=str(width))
    printed_yaml = shown.split("\n\n")[1]
    assert max(map(len, printed_yaml.splitlines())) <= width
    assert yaml.safe_load(printed_yaml) == yaml.safe_load(str(inspect(path).yaml))
    found = vggkit.build(vggkit.loads(printed_yaml), device="meta").state_dict()
    assert [tuple(v.shape) for v in found.values()] == [tuple(v.shape) for v in model.state_dict().values()]


@given(st.lists(st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True), min_size=1, max_size=30), st.integers(20, 60))
def test_folding_changes_no_meaning(words: list[str], width: int) -> None:
    """Of a list in brackets and of plain words."""
    for line in (f"  - [{', '.join(words)}]", f"source: {' '.join(words)} x"):
        assert yaml.safe_load(folded(line, width)) == yaml.safe_load(line)
        assert max(map(len, folded(line, width).splitlines())) <= width


def test_a_configuration_can_be_held_against_it(tmp_path: Path) -> None:
    """--config: exit 0 if it fits, 1 with the differences if not, 2 if there is no such configuration."""
    path = in_layout(small(), "torchvision", tmp_path)
    fitting = tmp_path / "fitting.yaml"
    fitting.write_text("{extends: A, overrides: {input: 3x64x64, width: 0.05, num_classes: 7}}")
    good = run("inspect", str(path), "--config", str(fitting), COLUMNS="140")
    assert (good.exit_code, good.stderr) == (0, "")
    assert "held against" in good.stdout
    fitting.write_text("{extends: A, overrides: {input: 3x64x64, width: 0.05, num_classes: 9}}")
    bad = run("inspect", str(path), "--config", str(fitting), COLUMNS="140")
    assert bad.exit_code == 1
    assert "predictions: checkpoint has 7 classes, model has 9" in bad.stdout
    assert "unknown configuration 'Z'" in told("inspect", str(path), "--config", "Z")


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, a folder, text, nothing, tensors of nothing that is meant; exit 2."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.pth").write_text("hello, world")
    Path("empty.pth").touch()
    torch.save({"a.weight": torch.zeros(3)}, "vector.pth")
    torch.save([1, 2], "list.pth")
    cases = {
        "nothing.pth": "can't be read: No such file or directory",
        "folder": "expected a folder of 1 to 4,096 safetensors files",
        "text.pth": "expected a checkpoint of PyTorch, safetensors, HDF5 or Keras, found a file that begins with",
        "empty.pth": "expected a checkpoint of PyTorch, safetensors, HDF5 or Keras, found nothing",
        "vector.pth": "expected weights of convolutions or FC layers, found a.weight",
        "list.pth": "expected a state dict, names with tensors, found list",
    }
    for file, words in cases.items():
        for arguments in (["inspect", file], ["convert", file, "x.safetensors"]):
            said = told(*arguments)
            assert said.startswith(f"Error: {file}: {words}")
            assert said.count("\n") == 1
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize("command", [["inspect"], ["convert"]])
def test_a_malicious_pickle_runs_nothing(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 2, and what it asked for is named."""
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.zeros(2), "x": Malicious(tmp_path / "made")}, "evil.pth")
    said = told(*command, "evil.pth", *(["x.h5"] if command == ["convert"] else []))
    assert f"refused, as it would run code: it asks for {os.name}.mkdir" in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth"]


def test_odd_names_of_files_and_tensors_do_no_harm(tmp_path: Path) -> None:
    """Rich's markup and control characters in a name are shown, not obeyed."""
    model = small()
    state = {f"[red]{name}": tensor for name, tensor in model.state_dict().items()}
    path = tmp_path / "[bold]x.pth"
    torch.save(state, path)
    text = printed("inspect", str(path), "--tensors", COLUMNS="200")
    assert "[bold]x.pth" in text
    assert "[red]block1.conv1.weight" in text


# Published files


def test_a_published_files_name_is_recognised_and_its_size_checked(tmp_path: Path) -> None:
    """A file of that name and another size is said to be another."""
    path = in_layout(small(), "torchvision", tmp_path).rename(tmp_path / "vgg11-8a719046.pth")
    assert inspect(path).published == (
        "as vgg11-8a719046.pth by torchvision, which has another size: this is not that file"
    )
    assert inspect(path.rename(tmp_path / "x.pth")).published is None


@pytest.mark.parametrize("file", ["vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"])
def test_a_file_of_the_published_size_passes(file: str, tmp_path: Path) -> None:
    """The name and the size are all that is looked at."""
    passport = next(passport for passport in passports() if passport.file == file)
    path = in_layout(small("D"), "keras", tmp_path).rename(tmp_path / file)
    assert str(inspect(path).published).endswith("this is not that file")
    os.truncate(path, passport.bytes or 0)
    assert inspect(path).published == f"as {file} by keras"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_timms_files_on_the_hub_are_recognised_by_their_folder(file: str, tmp_path: Path) -> None:
    """All of them have one name."""
    folder = tmp_path / "models--timm--vgg16_bn.tv_in1k" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    path = in_layout(small("vgg16_bn"), "timm", tmp_path).rename(folder / file)
    assert str(inspect(path).published).startswith("as vgg16_bn.tv_in1k.safetensors by timm")
    assert inspect(path.rename(tmp_path / file)).published is None


CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
FORMULAS = ("=cmd|' /C calc'!A0", "@x|y", "+1|2", "-x", "a\\b", "[red]c", "$d_#&%")


def formulas(folder: Path) -> Path:
    """Save tensors whose names a spreadsheet, Markdown, rich and LaTeX would take for their own."""
    state = {f"{name}.{role}": torch.zeros(shape) for name in FORMULAS for role, shape in (("weight", 4), ("bias", 4))}
    path = folder / "x.pth"
    torch.save({"c.weight": torch.zeros(4, 3, 3, 3), **state}, path)
    return path


def test_rows_of_any_names_stay_rows_and_run_nothing(tmp_path: Path) -> None:
    """CSV cells begin with an apostrophe rather than a formula, Markdown rows have their cells, the table its lines."""
    path = formulas(tmp_path)
    names = [row.name for row in inspect(path).tensors]
    rows = list(csv.reader(StringIO(printed("inspect", str(path), "--format", "csv"))))
    assert [row[0].removeprefix("'") for row in rows[1:]] == names
    assert [row[0] for row in rows if row[0].startswith(("=", "+", "-", "@"))] == []
    markdown = (
        printed("inspect", str(path), "--format", "markdown", "--tensors").split("| tensor |")[1].splitlines()[2:]
    )
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in markdown] == [6] * len(names)
    table = printed("inspect", str(path), "--tensors", COLUMNS="200").splitlines()
    assert [name for name in names if not any(line.startswith(name) for line in table)] == []


def test_a_number_in_a_csv_stays_a_number() -> None:
    """Only text is put behind an apostrophe."""
    text = tables.csv(["a"], [[-1], ["-1"], ["-1.5e3"], ["-"], ["=1"], [None], ["+x"], ["a\nb"], [[-1, 2]]])
    assert text.splitlines()[1:] == ["-1", "-1", "-1.5e3", "'-", "'=1", '""', "'+x", r"a\u000ab", "'-1x2"]


@pytest.mark.parametrize("file", ["a\x1b[31m.pth", "a\nError: b.pth", "a\x9b31m.pth", "a\u202eb.pth"])
@pytest.mark.parametrize("format", tables.FORMATS)
def test_no_control_character_of_a_files_name_is_printed(file: str, format: str, tmp_path: Path) -> None:
    """In any format and in errors, and JSON still says the name."""
    good = formulas(tmp_path).rename(tmp_path / file)
    text = printed("inspect", str(good), "--tensors", "--format", format, COLUMNS="60")
    assert CONTROLS.search(text) is None
    assert "\nError: b" not in text
    good.write_bytes(b"nothing")
    said = told("inspect", str(good))
    assert said.count("\n") == 1
    assert CONTROLS.search(said) is None


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\x7f", "a\x9b1m", "a\u202eb", "a\ud800"])
@pytest.mark.parametrize("format", ["pth", "safetensors", "h5"])
def test_a_tensors_name_with_control_characters_is_refused(name: str, format: str, tmp_path: Path) -> None:
    """In one line, which shows them."""
    path = tmp_path / f"x.{format}"
    if format == "pth":
        torch.save({f"{name}.weight": torch.zeros(4, 3, 3, 3)}, path)
    elif format == "safetensors":
        entry = {"dtype": "U8", "shape": [1, 1, 1, 1], "data_offsets": [0, 1]}
        header(path, json.dumps({f"{name}.weight": entry}), 1)
    else:
        with h5py.File(path, "w") as file:
            file[f"{name}/kernel".encode("utf-8", "surrogatepass")] = torch.zeros(3, 3, 3, 4)
    said = told("inspect", str(path))
    assert said.count("\n") == 1
    assert CONTROLS.search(said) is None
