"""Finding a configuration: by name, by alias, by path; in a checkout and in an installed wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import vggkit
from vggkit.base.errors import ArgumentError, ConfigError
from vggkit.notation import zoo

ROOT = Path(__file__).parent.parent.parent
NAMES = ["A", "A-LRN", "B", "C", "D", "E"]


def test_the_names_are_the_columns_of_table_1_in_order() -> None:
    """Six of them."""
    assert vggkit.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_name_finds_its_own_file(name: str) -> None:
    """The name in the file is the file's."""
    assert vggkit.load(name).name == name
    assert vggkit.load(name) == vggkit.load(zoo.folder() / f"{name}.yaml")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("VGG11", "A"),
        ("vgg11", "A"),
        ("Vgg-13", "B"),
        ("vgg_16", "D"),
        ("VGG 19", "E"),
        ("a-lrn", "A-LRN"),
        ("A_LRN", "A-LRN"),
        ("alrn", "A-LRN"),
        ("d", "D"),
    ],
)
def test_letter_case_and_hyphens_don_t_matter(alias: str, name: str) -> None:
    """Names and aliases as the field writes them."""
    assert vggkit.load(alias).name == name


def test_a_shipped_file_is_read_once() -> None:
    """By whatever name; what is made of its configuration is another."""
    config = vggkit.load("D")
    assert vggkit.load("vgg_16") is config
    assert vggkit.load("D", num_classes=10) != config == vggkit.load("D")


def test_every_known_name_is_known_once() -> None:
    """No alias stands for two configurations."""
    known = zoo.known_names()
    assert len({name.lower() for name in known}) == len(known)
    assert {*NAMES, "VGG11", "VGG13", "VGG16", "VGG19"} <= set(known)


@pytest.mark.parametrize("name", ["vgg16_bn", "VGG16-BN", "vgg16bn", "D_bn", "d-bn"])
def test_bn_behind_a_name_is_that_network_with_batch_norm(name: str) -> None:
    """138,365,992 parameters, as torchvision's vgg16_bn; it is called D-BN and vgg16_bn."""
    config = vggkit.load(name)
    assert vggkit.summarize(config).totals.parameters == 138_365_992
    assert config.blocks == vggkit.load("D", batch_norm=True).blocks
    assert (config.name, config.aliases) == ("D-BN", ("VGG16_bn",))
    assert config.reported is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg61", "unknown configuration 'vgg61'. Did you mean 'VGG1"),
        ("vgg12", "unknown configuration 'vgg12'. Did you mean 'VGG1"),
        (
            "resnet",
            "unknown configuration 'resnet'. Known: A, A-LRN, B, C, D, E; those of `vggkit list --family`;",
        ),
        ("F", "unknown configuration 'F'. Known: A, A-LRN, B, C, D, E; "),
        ("G", "unknown configuration 'G'. Known: A, A-LRN, B, C, D, E; "),
        ("fl", "unknown configuration 'fl'. Known: A, A-LRN, B, C, D, E; "),
        ("flow", "unknown configuration 'flow'. Did you mean 'flow_vgg16"),
        ("VGG-D", "unknown configuration 'VGG-D'. Did you mean 'D'?"),
        ("vgg_a-lrn", "unknown configuration 'vgg_a-lrn'. Did you mean 'A-LRN'?"),
        ("VGGNet E", "unknown configuration 'VGGNet E'. Did you mean 'E'?"),
        ("vgg", "unknown configuration 'vgg'. Did you mean 'vgg16'?"),
        ("VGGNet", "unknown configuration 'VGGNet'. Did you mean 'vgg16'?"),
        ("", "unknown configuration ''. Known: "),
        ("-", "unknown configuration '-'. Known: "),
        ("bn", "unknown configuration 'bn'."),
        ("_bn", "unknown configuration '_bn'."),
        ("vgg16_bn_bn", "unknown configuration 'vgg16_bn_bn'."),
        ("a\nb", r"unknown configuration 'a\nb'."),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        ("./D", "D: no such file"),
        ("D/", "D: no such file"),
        ("a\0.yaml", "'a\\x00.yaml': not a path: "),
        ("/", "/: can't be read: Is a directory"),
    ],
)
def test_what_is_not_found_is_told(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name with the nearest one, a missing file, a folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        vggkit.load(name)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("source", [3, None, 1.5, ["D"], b"D", object()])
def test_what_can_be_no_source_is_an_argument_error(source: object) -> None:
    """A number is no configuration."""
    with pytest.raises((ArgumentError, ConfigError)):
        vggkit.load(source)  # type: ignore[arg-type]  # wrong on purpose


def test_a_name_is_never_a_file_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`D` is the paper's, whatever lies around; `./D` and `D.yaml` are files."""
    monkeypatch.chdir(tmp_path)
    for path in ("D", "D.yaml", "E.YML"):
        Path(path).write_text("name: mine\nblocks: [[conv3-8]]")
    assert vggkit.load("D").name == "D"
    for path in ("./D", "D.yaml", "E.YML", tmp_path / "D"):
        assert vggkit.load(path).name == "mine"


def test_a_path_may_hold_spaces_and_any_letters(tmp_path: Path) -> None:
    """Folders and files as people name them."""
    folder = tmp_path / "my résumé 日本"
    folder.mkdir()
    (folder / "a b.yaml").write_text("blocks: [[conv3-8]]")
    assert vggkit.load(folder / "a b.yaml").name == "a b"
    assert vggkit.load(str(folder / "a b.yaml")).name == "a b"


def test_a_file_whose_name_has_a_line_break_is_told_on_one_line(tmp_path: Path) -> None:
    """A problem stays one line, and a name that can be printed comes of it."""
    (tmp_path / "a\nb.yaml").write_text("blocks: [[conv3-8]]")
    config = vggkit.load(tmp_path / "a\nb.yaml")
    assert vggkit.loads(vggkit.dump(config)) == config
    (tmp_path / "a\nb.yaml").write_text("blocks: [[kaputt]]")
    with pytest.raises(ConfigError) as caught:
        vggkit.load(tmp_path / "a\nb.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_can_t_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and the system's reason."""
    path = tmp_path / "x.yaml"
    path.write_text("blocks: [[relu]]")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError) as caught:
        vggkit.load(path)
    monkeypatch.undo()
    assert str(caught.value) == f"{path}: can't be read: Permission denied"


def test_a_config_is_a_source_and_overrides_change_a_copy() -> None:
    """`load` of a Config gives it, or a changed copy."""
    config = vggkit.load("D")
    assert vggkit.load(config) is config
    assert vggkit.load(config, num_classes=10).classifier != config.classifier
    assert config == vggkit.load("D")


@pytest.mark.parametrize("path", sorted(zoo.folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_each_shipped_file_names_the_schema_in_its_first_line(path: Path) -> None:
    """As the yaml-language-server reads it; the schema lies beside it."""
    assert path.read_text(encoding="utf-8").splitlines()[0] == "# yaml-language-server: $schema=schema.json"
    assert json.loads((path.parent / "schema.json").read_text(encoding="utf-8"))["title"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("vggkit", "configs", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tree / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tree / "dist")]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = (tree / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_the_configurations_the_schema_and_the_type_mark(wheel: Path) -> None:
    """All that an installed package needs, and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert {f"vggkit/configs/{name}.yaml" for name in NAMES} <= inside
    assert {f"vggkit/configs/family/{name}.yaml" for name in zoo.family_names()} <= inside
    assert {"vggkit/configs/schema.json", "vggkit/py.typed", "vggkit/cli/app.py"} <= inside
    assert {f"vggkit/pictures/report/report.{ending}" for ending in ("html", "css", "js")} <= inside
    assert not [name for name in inside if name.startswith(("tests/", "configs/", "docs/", "benchmarks/"))]
    assert not [name for name in inside if "__pycache__" in name]


def test_an_installed_wheel_finds_its_configurations(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, with nothing else on the path and another working directory, it loads D, without torch."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys, vggkit; assert vggkit.load('vgg16').name == 'D'; assert len(vggkit.names()) == 6;"
        " assert vggkit.load('SSD300').name == 'ssd300_vgg16_base';"
        " print(vggkit.__file__, vggkit.summarize('D').totals.parameters); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    file, parameters = done.stdout.split()
    assert Path(file).parent == (tmp_path / "site" / "vggkit")
    assert parameters == "138357544"


def test_a_checkout_finds_the_configurations_beside_it(tmp_path: Path) -> None:
    """As an editable install does: from another working directory, with the checkout on the path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "vggkit", "list"], cwd=tmp_path, env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert b"138,357,544" in done.stdout
