"""The public names: each is there when it is asked for, and says what it takes, gives and raises."""

from __future__ import annotations

import doctest
import html
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vggkit
from tests import judges
from vggkit import Network
from vggkit.figures.compare import CompareArguments
from vggkit.footprint.fit import FitArguments
from vggkit.footprint.steps.options import OTHERS, STEP_KEYWORDS, TRAINING_KEYWORDS
from vggkit.model.build import BuildArguments
from vggkit.model.weights.loading import LoadArguments
from vggkit.notation.overrides import OVERRIDES, Overrides

ROOT = Path(__file__).parent.parent

FUNCTIONS = [name for name in vggkit.__all__ if inspect.isfunction(getattr(vggkit, name))]
CLASSES = [name for name in vggkit.__all__ if inspect.isclass(getattr(vggkit, name))]


def methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Return the public methods of the public classes that are written in vggkit."""
    for name in CLASSES:
        for word, value in vars(getattr(vggkit, name)).items():
            plain = getattr(value, "__func__", value)
            if not word.startswith("_") and inspect.isfunction(plain):
                yield f"{name}.{word}", plain


METHODS = dict(methods())


def section(text: str, title: str) -> str:
    """Return a section of a docstring: what is indented under its title."""
    match = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return match.group(1) if match else ""


def arguments(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's arguments."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def test_every_public_name_is_a_function_or_a_class() -> None:
    """Nothing else is exported, and no name is a module."""
    assert sorted(FUNCTIONS + CLASSES) == sorted(vggkit.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_docstring_explains_each_argument(name: str) -> None:
    """Args has an entry for each argument and no other."""
    function = getattr(vggkit, name)
    entries = re.findall(r"^    (\w+): ", section(inspect.getdoc(function) or "", "Args"), re.MULTILINE)
    assert entries == arguments(function)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_docstring_says_what_it_gives_and_shows_it(name: str) -> None:
    """Its first line is a sentence; a call is shown with its result; what takes arguments has Returns or Raises."""
    text = inspect.getdoc(getattr(vggkit, name)) or ""
    assert re.match(r"[A-Z].*\.$", text.splitlines()[0])
    assert ">>> " in text
    if arguments(getattr(vggkit, name)):
        assert section(text, "Returns") or section(text, "Raises")


@pytest.mark.parametrize("name", CLASSES)
def test_a_classs_docstring_explains_each_field(name: str) -> None:
    """What a class is made from stands under its Args."""
    kind = getattr(vggkit, name)
    text = inspect.getdoc(kind) or ""
    fields = getattr(kind, "__struct_fields__", None) or (arguments(kind.__init__) if "__init__" in vars(kind) else [])
    assert text
    assert re.findall(r"^    (\w+): ", section(text, "Args"), re.MULTILINE) == list(fields)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_docstring_explains_each_argument(name: str) -> None:
    """A public method says what it does, and explains what it takes, if that is more than one plain argument."""
    method = METHODS[name]
    text = inspect.getdoc(method) or ""
    assert re.match(r"[A-Z].*\.", text)
    if len(arguments(method)) > 1:
        assert re.findall(r"^    (\w+): ", section(text, "Args"), re.MULTILINE) == arguments(method)


NEED_TORCH = (
    "VGG", "Classifier", "build", "convert", "describe", "features", "load_model", "load_weights", "parallelize",
    "save_weights", "to_fully_convolutional",
)  # fmt: skip


EACH = """
import sys
for name in sys.argv[1:]:
    for module in [module for module in sys.modules if module.split(".")[0] == "vggkit"]:
        del sys.modules[module]
    import vggkit
    assert name in dir(vggkit), name
    exec(f"from vggkit import {name} as value")
    print(value.__name__, "torch" in sys.modules)
"""


@pytest.mark.parametrize("needs_torch", [False, True])
def test_a_name_is_imported_when_it_is_asked_for(needs_torch: bool) -> None:
    """Each name works on its own, is found by dir(), and needs no other before it: the package is imported anew."""
    names = [name for name in vggkit.__all__ if (name in NEED_TORCH) == needs_torch]
    done = subprocess.run([sys.executable, "-c", EACH, *names], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"{name} {needs_torch}" for name in names]), done.stderr


def test_what_is_not_there_is_an_attribute_error() -> None:
    """As with any module, so that hasattr and getattr with a default work."""
    with pytest.raises(AttributeError, match="module 'vggkit' has no attribute 'biuld'"):
        vggkit.biuld  # noqa: B018
    assert not hasattr(vggkit, "VGG16")


def test_the_version_is_the_packages() -> None:
    """A version in three numbers."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", vggkit.__version__)


# Types


def test_the_typed_overrides_are_the_overrides() -> None:
    """What type checkers take are the keys of config.OVERRIDES; a step's and a build's keywords are the functions'."""
    assert set(Overrides.__optional_keys__) == set(OVERRIDES)
    assert not Overrides.__required_keys__
    steps = set(vggkit.memory.__kwdefaults__) - {"batch"}
    assert set(FitArguments.__optional_keys__) == {*OVERRIDES, *steps, *OTHERS}
    assert set(FitArguments.__optional_keys__) - {*OVERRIDES} == {*STEP_KEYWORDS} - {"batch"}
    assert set(CompareArguments.__optional_keys__) == {*OVERRIDES, *TRAINING_KEYWORDS}
    builds = set(vggkit.build.__kwdefaults__) - {"softmax", "weights"}
    assert set(BuildArguments.__optional_keys__) == {*OVERRIDES, *LoadArguments.__optional_keys__, *builds}
    assert set(LoadArguments.__optional_keys__) == set(vggkit.load_weights.__kwdefaults__) - {"head"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (vggkit.build, {*OVERRIDES, *LoadArguments.__optional_keys__}),
        (vggkit.load, {*OVERRIDES}),
        (vggkit.memory, {*STEP_KEYWORDS}),
        (vggkit.compare, {*TRAINING_KEYWORDS}),
    ],
)
def test_help_names_each_keyword_of_a_group(function: Callable[..., Any], words: set[str]) -> None:
    """What `help` prints of a function says the overrides, and of `build` the keywords of loading as well."""
    text = inspect.getdoc(function) or ""
    assert {word for word in words if not re.search(rf"\b{word}\b", text)} == set()


@pytest.fixture(scope="module")
def mypy_says(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, str]]:
    """What mypy --strict finds in right uses, in wrong uses and in the README's examples: errors' codes by line."""
    folder = tmp_path_factory.mktemp("typed")
    examples = doctest.DocTestParser().get_examples((ROOT / "README.md").read_text(encoding="utf-8"))
    (folder / "readme.py").write_text("".join(example.source for example in examples), encoding="utf-8")
    for name in ("typed_right.py", "typed_wrong.py"):
        shutil.copy(ROOT / "tests" / "data" / name, folder)
    options = ("--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary", "--hide-error-context")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "readme.py", "typed_right.py", "typed_wrong.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert not done.stderr
    found: dict[str, dict[int, str]] = {name.name: {} for name in folder.glob("*.py")}
    for file, line, code in re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        found[file][int(line)] = code
    assert done.stdout.count(" error: ") == sum(map(len, found.values())), done.stdout
    return found


@pytest.mark.parametrize("file", ["typed_right.py", "readme.py"])
def test_right_uses_have_the_right_types(file: str, mypy_says: dict[str, dict[int, str]]) -> None:
    """The README's examples, numpy's integers, torch's dtypes, and what a model, features and a row give."""
    assert mypy_says[file] == {}


def test_common_mistakes_are_type_errors(mypy_says: dict[str, dict[int, str]]) -> None:
    """A misspelt keyword, a word for a number, an attribute that is not there: each at its line, and nothing else."""
    lines = (ROOT / "tests" / "data" / "typed_wrong.py").read_text(encoding="utf-8").splitlines()
    expected = {number: line.split("  # ")[1] for number, line in enumerate(lines, start=1) if "  # " in line}
    assert mypy_says["typed_wrong.py"] == expected


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: vggkit.summarize("D", bach=10), "summarize: unknown keyword 'bach'. Did you mean 'batch'?"),
        (lambda: vggkit.summarize("D", num_clases=10), "summarize: unknown keyword 'num_clases'. Did you mean 'num_c"),
        (lambda: vggkit.summarize("D", xyz=10), "summarize: unknown keyword 'xyz'. Known: batch, dtype, expand, head,"),
        (lambda: vggkit.memory("D", optimzer="adam"), "memory: unknown keyword 'optimzer'. Did you mean 'optimizer'?"),
        (lambda: vggkit.max_batch("D", "1GB", frees="fc1"), "max_batch: unknown keyword 'frees'. Did you mean 'freeze"),
        (lambda: vggkit.compare("D", optimzer="sgd"), "compare: unknown keyword 'optimzer'. Did you mean 'optimizer'?"),
        (lambda: vggkit.find("D", wher={}), "find: unknown keyword 'wher'. Did you mean 'where'?"),
        (lambda: vggkit.plot("D", knd="cost"), "plot: unknown keyword 'knd'. Did you mean 'kind'?"),
        (lambda: vggkit.report("D", bach=3), "report: unknown keyword 'bach'. Did you mean 'batch'?"),
        (lambda: vggkit.explain("D", dtyp="float16"), "explain: unknown keyword 'dtyp'. Did you mean 'dtype'?"),
        (lambda: vggkit.reconcile("D", 1, bach=3), "reconcile: unknown keyword 'bach'. Did you mean 'batch'?"),
        (lambda: vggkit.build("D", bach_norm=True), "build: unknown keyword 'bach_norm'. Did you mean 'batch_norm'?"),
        (lambda: vggkit.features("D", "relu1_1", frozn=True), "features: unknown keyword 'frozn'. Did you mean 'fro"),
        (lambda: vggkit.load("D", num_clases=3), "unknown override 'num_clases'. Did you mean 'num_classes'?"),
    ],
)  # fmt: skip
def test_an_unknown_keyword_suggests_the_functions_own(call: Callable[[], object], said: str) -> None:
    """Its own keywords and the overrides, whichever is nearest."""
    with pytest.raises(vggkit.ArgumentError) as caught:
        call()
    assert str(caught.value).startswith(said)


def test_numpys_and_torchs_numbers_are_numbers() -> None:
    """Integers, shapes and rates of numpy and torch give what Python's do, wherever a function takes them."""
    one, two, three = np.int64(1), np.uint8(2), torch.tensor(3)
    options: dict[str, Any] = {
        "num_classes": np.int32(7),
        "input": (three, np.int16(64), 64),
        "in_channels": np.int8(3),
    }
    plain: dict[str, Any] = {"num_classes": 7, "input": "3x64x64", "in_channels": 3}
    for more, same in (
        ({"width": np.float32(0.5)}, {"width": 0.5}),
        ({"batch_norm": np.bool_(True)}, {"batch_norm": True}),
    ):
        assert vggkit.load("D", **options, **more) == vggkit.load("D", **plain, **same)
    assert vggkit.load("D", input=np.array([3, 32, 32])) == vggkit.load("D", input=torch.Size([3, 32, 32]))
    for function in (vggkit.summarize, vggkit.memory, vggkit.compare, vggkit.explain):
        assert function("A", batch=two, **options).to_dict() == function("A", batch=2, **plain).to_dict()
    assert vggkit.max_batch("A", np.int64(2**33), **options) == vggkit.max_batch("A", 2**33, **plain)
    assert vggkit.reconcile("D", np.int64(138_357_544)) == vggkit.reconcile("D", 138_357_544)
    found = vggkit.find("A", vary={"num_classes": np.arange(2, 5)}, where={"weight_layers": np.int64(11)}, limit=two)
    assert [variant.label for variant in found] == ["A:num_classes=2", "A:num_classes=3"]
    built = [vggkit.build("A", width=0.05, seed=seed, **plain).fc1.weight for seed in (1, one)]
    assert torch.equal(*built)
    assert vggkit.report("A", batch=two).to_html() == vggkit.report("A", batch=2).to_html()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torchs_dtypes_are_names_of_dtypes(dtype: torch.dtype) -> None:
    """Wherever a function takes one; others are refused by the same line."""
    name = str(dtype).removeprefix("torch.")
    for function in (vggkit.summarize, vggkit.memory, vggkit.compare, vggkit.explain, vggkit.find):
        assert function("A", dtype=dtype).to_dict() == function("A", dtype=name).to_dict()
    assert vggkit.reconcile("A", "1G", dtype=dtype) == vggkit.reconcile("A", "1G", dtype=name)
    assert vggkit.max_batch("A", "8GB", dtype=dtype) == vggkit.max_batch("A", "8GB", dtype=name)
    assert vggkit.plot("A", kind="cost", dtype=dtype).title.endswith(name)
    assert vggkit.report("A", dtype=dtype).dtype == name
    assert vggkit.build("A", device="meta", dtype=name).fc1.weight.dtype == dtype
    for function in (vggkit.summarize, vggkit.memory, vggkit.compare, vggkit.find, vggkit.build):
        with pytest.raises(vggkit.ArgumentError, match=r"dtype: expected one of float32, .* found torch.int8"):
            function("A", dtype=torch.int8)


# At the prompt and in notebooks


SHOWN: dict[str, Callable[[], Any]] = {
    "Summary": lambda: vggkit.summarize("D"),
    "MemoryPlan": lambda: vggkit.memory("D"),
    "Comparison": lambda: vggkit.compare("C", "D"),
    "Diff": lambda: vggkit.compare("C", "D").diff(),
    "Found": lambda: vggkit.find(["C", "D"]),
    "Explanation": lambda: vggkit.explain("D", "conv3_1"),
    "Findings": lambda: vggkit.reconcile("D", "15.48G"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_prompt_prints_a_table(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python prints of a value is its table, as wide as the terminal, and a notebook draws it."""
    value = SHOWN[name]()
    assert repr(value) == str(value)
    assert "15,470,264,320" in repr(value) or name in ("MemoryPlan", "Diff", "Explanation")
    assert value._repr_html_().startswith("<table>")
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, repr(value).splitlines())) <= 80


def test_configurations_networks_and_reports_draw_themselves_in_notebooks() -> None:
    """A configuration as its YAML, a network layer by layer, a report as the page, whatever is in their names."""
    config = vggkit.loads("name: <b>\nblocks: [[conv3-4, maxpool]]\nclassifier: [FC-3]")
    assert config._repr_html_() == f"<pre>{html.escape(vggkit.dump(config))}</pre>"
    network = Network.of(config)
    drawn = network._repr_html_()
    assert all(placed.name in drawn for placed in network)
    assert "<b>" not in drawn
    page = vggkit.report(config)
    (source,) = re.findall(r'^<iframe srcdoc="([^"]*)"', page._repr_html_())
    assert html.unescape(source) == page.to_html()
    assert repr(page) == repr(page.comparison)


def test_what_draws_itself_stands_in_a_message_of_one_line() -> None:
    """A value where another was expected is told by the first line of its table."""
    for wrong in (vggkit.summarize("D"), vggkit.compare("D")):
        with pytest.raises(vggkit.ArgumentError) as caught:
            vggkit.summarize(wrong)  # type: ignore[arg-type] # wrong on purpose
        assert len(str(caught.value).splitlines()) == 1


def test_data_frames_have_a_row_for_each_row() -> None:
    """Of a summary, of what was found and of a comparison: names as index, the JSON's keys and changes as columns."""
    judges.package("pandas")
    summary = vggkit.summarize("D", expand=True)
    frame = summary.to_dataframe()
    assert list(frame.index) == [row.name for row in summary]
    assert frame["parameters"].sum() == 138_357_544
    assert {"name": "block1_conv1", **frame.loc["block1_conv1"].to_dict()} == summary["block1_conv1"].to_dict()
    found = vggkit.find("A", vary={"width": [0.5, 1], "pool": ["max"]})
    frame = found.to_dataframe()
    assert list(frame.columns)[:3] == ["width", "pool", "weight_layers"]
    assert list(frame["parameters"]) == [variant.figures["parameters"] for variant in found]
    assert len(vggkit.find("A", where={"parameters": "<1"}).to_dataframe()) == 0


@pytest.mark.parametrize("name", ["Summary", "Comparison", "Found"])
def test_without_pandas_a_data_frame_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what is missing and how to have it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(vggkit.VggkitError, match=r"^to_dataframe needs pandas, which is not installed; `pip install"):
        SHOWN[name]().to_dataframe()


def test_a_summary_gives_a_row_by_name_and_by_place() -> None:
    """A name that it has not is told, with the nearest."""
    summary = vggkit.summarize("D")
    assert summary["block1_conv1"] is summary[1] is summary.rows[1]
    assert summary["input"].output_shape == (3, 224, 224)
    with pytest.raises(vggkit.ArgumentError, match=r"D has no row 'block1_cnv1'. Did you mean 'block1_conv1'?"):
        summary["block1_cnv1"]
    with pytest.raises(vggkit.ArgumentError, match=r"D has no row 'relu'. With expand=True every module has a row"):
        summary["relu"]


@pytest.mark.parametrize("function", [vggkit.find, vggkit.compare, vggkit.report, vggkit.plot])
def test_several_networks_may_stand_in_a_list(function: Callable[..., Any]) -> None:
    """As a list, a tuple or one by one; a list of nothing, or of something else, is refused."""
    options = {"kind": "compare"} if function is vggkit.plot else {}
    makes = {vggkit.find: lambda found: found.to_dict(), vggkit.plot: lambda picture: picture.title}
    plain = makes.get(function, lambda made: [one.label for one in getattr(made, "comparison", made).networks])
    expected = plain(function("A", "B", "D:width=0.5", **options))
    assert plain(function(["A", "B", "D:width=0.5"], **options)) == expected
    assert plain(function(("A", ["B"]), "D:width=0.5", **options)) == expected
    for wrong in ([], 3, ["A", None]):
        with pytest.raises(vggkit.ArgumentError, match="a path, a Config, a Network or a torch module, found"):
            function(wrong, **options)
