"""Labels: ImageNet's are torchvision's and timm's, and a file's are read in every usual form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vggkit.base.errors import ArgumentError
from vggkit.classify import labels
from vggkit.classify.labels import LARGEST_FILE, Label, imagenet_labels, read_labels


def test_imagenets_names_are_torchvisions() -> None:
    """Class by class, in the order of the outputs."""
    from torchvision.models import VGG16_Weights

    assert [label.name for label in imagenet_labels()] == VGG16_Weights.IMAGENET1K_V1.meta["categories"]


def test_imagenets_synsets_are_timms() -> None:
    """Class by class, in the order of the outputs."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    assert [label.wordnet_id for label in imagenet_labels()] == [info.index_to_label_name(i) for i in range(1000)]


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog house\n",
        "\ufeffcat\r\ndog \t house\r\n\r\n",
        '["cat", "dog house"]',
        ' \n{"0": "cat", "1": "dog house"}',
        '{"1": "dog house", "0": "cat"}',
    ],
)
def test_names_are_read_in_every_form(text: str, tmp_path: Path) -> None:
    """Lines, a JSON list and a JSON object by index say the same, whatever the file is called."""
    path = tmp_path / "labels"
    path.write_bytes(text.encode())
    assert read_labels(path) == (Label("cat"), Label("dog house"))


@pytest.mark.parametrize(
    "text",
    [
        '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
        '[["n01440764", "tench"], ["n01443537", "goldfish"]]',
        "n01440764 tench\nn01443537\tgoldfish",
    ],
)
def test_wordnet_ids_are_read(text: str, tmp_path: Path) -> None:
    """Keras's class index and lines of id and name give both."""
    path = tmp_path / "labels"
    path.write_text(text)
    assert read_labels(str(path)) == imagenet_labels()[:2]


def test_more_than_ten_classes_are_in_order(tmp_path: Path) -> None:
    """Indices are numbers: 10 comes after 9, not after 1."""
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({str(index): f"class {index}" for index in sorted(range(25), key=str)}))
    assert [label.name for label in read_labels(path)] == [f"class {index}" for index in range(25)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected labels, found an empty file"),
        (b" \n\n", "expected labels, found an empty file"),
        (b"[]", "expected labels, found none"),
        (b"{}", "expected labels, found none"),
        (b"cat\n\ndog", "line 2: expected a name on one line, found ''"),
        (b"cat\nd\x1bog", "line 2: expected a name on one line, found 'd\\x1bog'"),
        (b"cat\xff", "expected UTF-8, found byte 0xff at offset 3"),
        (b'{"0": "cat", "2": "dog"}', "expected the indices 0 to 1, found '2' and no 1"),
        (b'{"cat": 0}', "expected the indices 0 to 0, found 'cat' and no 0"),
        (b'["cat", 3]', "class 1: expected a name or a WordNet id and a name, found 3"),
        (b'["cat", ""]', "class 1: expected a name on one line, found ''"),
        (b'{"0": ["a", "b", "c"]}', "class 0: expected a name or a WordNet id and a name, found ['a', 'b', 'c']"),
        (b"x" * (LARGEST_FILE + 1), "expected labels of at most 16 MiB"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    """The file, and what was expected and found."""
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ArgumentError) as caught:
        read_labels(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("content", ['["cat"', '{"0": "cat",}', "[" * 100_000])
def test_broken_json_is_said_in_one_line(content: str, tmp_path: Path) -> None:
    """What begins as JSON and isn't names the file and the place."""
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ArgumentError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: expected JSON, as it begins with {content[0]}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cant_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    """A missing file and a folder each have the system's reason."""
    for path, reason in ((tmp_path / "none.txt", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ArgumentError) as caught:
            read_labels(path)
        assert str(caught.value) == f"{path}: {reason}"


def test_many_labels_are_read_in_as_many_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """60,000 keys of which one is wrong: the known ones are gathered once, not for each key."""
    made = 0

    def counted(values: list[str]) -> frozenset[str]:
        nonlocal made
        made += 1
        return frozenset(values)

    monkeypatch.setattr(labels, "set", counted, raising=False)
    keys = [str(index) for index in range(60_000)]
    keys[-1] = "cat"
    (tmp_path / "labels.json").write_text("{" + ", ".join(f'"{key}": "x"' for key in keys) + "}")
    with pytest.raises(ArgumentError, match="expected the indices 0 to 59999, found 'cat' and no 59999"):
        read_labels(tmp_path / "labels.json")
    assert made == 1
