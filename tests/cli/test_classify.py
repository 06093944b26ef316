"""`vggkit classify`: what it reads, what it writes and where, and that nothing is lost to a broken picture."""

from __future__ import annotations

import csv
import io
import json
import pickle
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vggkit
from tests.classify.test_classifier import picture
from tests.cli.test_app import in_terminal, printed, run, told, uncoloured
from tests.conftest import ROOT, Run
from tests.model.weights.makers import in_layout, small
from vggkit import VGG, Classifier
from vggkit.classify.files import drawing_paths, find_pictures
from vggkit.notation.preprocess import PRESETS


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with weights.pth and photos/: a.jpg, b c.png and sub/bär.webp."""
    in_layout(small(), "torchvision", tmp_path).rename(tmp_path / "weights.pth")
    (tmp_path / "photos/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        picture(number).save(name)
    return tmp_path


NAMES = ["photos/a.jpg", "photos/b c.png", "photos/sub/bär.webp"]


def arguments(*images: str) -> tuple[str, ...]:
    """Return the command on images."""
    return ("classify", *images, "--weights", "weights.pth")


def entries(*words: str) -> Any:
    """Return the JSON of a run that goes well."""
    return json.loads(printed(*arguments(), *words, "--format", "json"))


def images(*words: str) -> list[str]:
    """Return the pictures of a run that goes well, in order."""
    return [entry["image"] for entry in entries(*words, "--top", "1")]


# Formats


def test_json_is_what_the_classifier_predicts() -> None:
    """Exactly these keys, and the figures to the last digit."""
    wanted = [
        {
            "image": name,
            "predictions": [
                {"label": p.label, "wordnet_id": p.wordnet_id, "index": p.index, "probability": p.probability}
                for p in Classifier(weights="weights.pth").predict(name)[0]
            ],
        }
        for name in NAMES
    ]
    assert entries(*NAMES, "--batch", "1") == wanted


def test_csv_and_table_say_the_same() -> None:
    """A line per picture and class; the table has every name, label and percentage."""
    data = entries(*NAMES)
    rows = list(csv.DictReader(io.StringIO(printed(*arguments(*NAMES), "--format", "csv"))))
    assert [(row["image"], row["label"], float(row["probability"])) for row in rows] == [
        (entry["image"], each["label"], each["probability"]) for entry in data for each in entry["predictions"]
    ]
    table = printed(*arguments(*NAMES))
    for row in rows:
        assert row["image"] in table
        assert f"{row['label']}   {100 * float(row['probability']):.1f} %" in table


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_a_files_ending_says_the_format(suffix: str) -> None:
    """The file is what would be printed, twice the same, and nothing is."""
    text = printed(*arguments("photos"), "--format", suffix)
    for _ in range(2):
        assert printed(*arguments("photos"), "-o", f"out.{suffix}") == ""
        assert Path(f"out.{suffix}").read_bytes().decode() == text


def test_top_is_how_many_classes() -> None:
    """1, more than there are, and five unless said."""
    assert [len(entries(NAMES[0], *top)[0]["predictions"]) for top in (["--top", "1"], ["--top", "99"], [])] == [
        1,
        7,
        5,
    ]


@pytest.mark.parametrize(
    "text",
    ["a\nb\nc\nd\ne\nf\ng\n", '["a","b","c","d","e","f","g"]', json.dumps({str(i): "abcdefg"[i] for i in range(7)})],
)
def test_labels_are_the_files(text: str) -> None:
    """Lines, a list and an object by index."""
    Path("labels").write_text(text)
    for each in entries(NAMES[0], "--labels", "labels", "--top", "7")[0]["predictions"]:
        assert each["label"] == "abcdefg"[each["index"]]


# Pictures


def saved(name: str, image: Image.Image, **options: Any) -> str:
    """Save a picture and return its name."""
    image.save(name, **options)
    return name


def test_every_kind_of_file_is_the_picture_it_shows() -> None:
    """Orientation, alpha, grey, 16 bits, CMYK, palette and WebP, as the picture converted by hand."""
    image = picture(5)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved("turned.jpg", image, exif=exif, quality=95)
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
    grey = image.convert("L")
    deep = Image.fromarray(torch.tensor(list(grey.tobytes())).mul(257).reshape(70, 90).numpy().astype("uint16"))
    palette = image.quantize(16)
    ink = saved("ink.jpg", image.convert("CMYK"))
    webp = saved("lossless.webp", image, lossless=True)
    kinds = {
        turned: Image.open(turned).transpose(Image.Transpose.ROTATE_270),
        saved("clear.png", clear): white,
        saved("grey.png", grey): grey.convert("RGB"),
        saved("deep.png", deep): grey.convert("RGB"),
        saved("palette.png", palette): palette.convert("RGB"),
        ink: Image.open(ink).convert("RGB"),
        webp: image,
    }
    classifier = Classifier(weights="weights.pth")
    wanted = [[(p.index, p.probability) for p in classifier.predict(shown)[0]] for shown in kinds.values()]
    found = [[(p["index"], p["probability"]) for p in e["predictions"]] for e in entries(*kinds, "--batch", "1")]
    assert found == wanted


def test_files_folders_and_patterns_come_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with its folders, a pattern, the home folder, and a picture named twice."""
    for words in (["photos"], ["photos/**/*.*"], [*NAMES, "photos", "./photos/a.jpg"]):
        assert images(*words) == NAMES
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("USERPROFILE", str(Path.cwd()))
    assert images("~/photos/*.png") == [str(Path.cwd() / NAMES[1])]


def broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make a picture of each kind that can't be read."""
    saved("whole.jpg", picture(1, (80, 80)))
    (folder / "cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:900])
    (folder / "text.png").write_text("text")
    (folder / "empty.jpg").touch()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16_000)  # of a WebP picture half as many are taken
    saved("bomb.png", picture(2, (200, 81)))
    return ["cut.jpg", "text.png", "empty.jpg", "bomb.png", "missing.jpg"]


@pytest.mark.parametrize("batch", ["1", "2", "16"])
def test_a_broken_picture_is_reported_and_nothing_else_lost(
    batch: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each on stderr, the others on stdout, and exit code 1 at the end."""
    wrong = broken(folder, monkeypatch)
    result = run(*arguments(NAMES[0], *wrong, *NAMES[1:]), "--format", "json", "--batch", batch)
    assert result.exit_code == 1
    assert [entry["image"] for entry in json.loads(result.stdout)] == NAMES
    told = [line.split(": ")[:2] for line in result.stderr.splitlines()]
    assert told == [["Error", name] for name in ("missing.jpg", *wrong[:-1])]


def test_nothing_but_broken_pictures_is_an_empty_list() -> None:
    """JSON is still JSON, and a table is nothing."""
    result = run(*arguments("missing.jpg"), "--format", "json")
    assert (result.exit_code, result.stdout) == (1, "[]\n")
    assert run(*arguments("missing.jpg")).stdout == ""


def test_a_missing_picture_is_told_before_the_weights_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a download to hear that a name is misspelt."""
    monkeypatch.setattr(
        "vggkit.classify.classifier.Classifier", lambda *_, **__: pytest.fail("weights were looked for")
    )
    result = run("classify", "nosuch.jpg", "photos/nosuch.png", "--weights", "imagenet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: nosuch.jpg: no such file\nError: photos/nosuch.png: no such file\n"


# Drawings


def test_each_picture_is_drawn_beside_it_and_is_no_input_later() -> None:
    """A second run over the folder, a pattern or the shell's list of its files finds the same pictures."""
    before = images("photos")
    printed(*arguments("photos"), "--plot")
    drawn = ["photos/a_pred.png", "photos/b c_pred.png", "photos/sub/bär_pred.png"]
    assert sorted(path.as_posix() for path in Path("photos").rglob("*_pred.png")) == drawn
    for path in drawn:
        with Image.open(path) as opened:
            assert opened.format == "PNG"
    listed = sorted(str(path) for path in Path("photos").rglob("*.*"))
    for words in (["photos"], ["photos/**/*.*"], listed):
        assert sorted(images(*words)) == before
    assert images("photos/*.png") == [NAMES[1]]
    assert images(drawn[0]) == [drawn[0]]


def test_namesakes_do_not_overwrite_each_others_drawing() -> None:
    """a.jpg and a.png have a drawing each, whether asked for together or one after another, and none is an input."""
    picture(7).save("photos/a.png")
    wanted = ["photos/a.jpg_pred.png", "photos/a.png_pred.png"]
    for name in ("photos/a.jpg", "photos/a.png"):
        printed(*arguments(name), "--plot")
    assert sorted(path.as_posix() for path in Path("photos").glob("*_pred.png")) == wanted
    assert [path.as_posix() for path in drawing_paths([Path("photos/a.jpg"), Path("photos/a.png")])] == wanted
    assert len(find_pictures(["photos"])) == 4


def test_a_picture_that_only_looks_like_a_drawing_stays() -> None:
    """Without the picture that it would belong to, x_pred.png is one like any other."""
    picture(8).save("photos/x_pred.png")
    assert "photos/x_pred.png" in images("photos")


def test_a_drawing_that_cant_be_written_loses_nothing() -> None:
    """It is reported, and everything is printed."""
    Path("photos/a_pred.png").mkdir()
    result = run(*arguments(*NAMES), "--plot", "--format", "json")
    assert result.exit_code == 1
    assert [entry["image"] for entry in json.loads(result.stdout)] == NAMES
    assert result.stderr.startswith("Error: photos/a_pred.png: can't be written: ")
    assert Path("photos/b c_pred.png").exists()


# Weights, configuration, preparation


def test_the_configuration_is_told_named_or_a_file() -> None:
    """From the checkpoint, as a name that the weights' own passport is for, or as YAML."""
    model = small("A")
    Path("own.yaml").write_text(vggkit.dump(model.config))
    told_from_the_checkpoint = entries(NAMES[0])
    assert entries(NAMES[0], "--config", "own.yaml") == told_from_the_checkpoint
    wrong = told(*arguments(NAMES[0]), "--config", "D")
    assert wrong.startswith("Error: weights.pth does not fit D:")


class Malicious:
    """A pickle that would make a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("none.pth", [], "none.pth: can't be read: No such file"),
        ("text.pth", [], "text.pth: expected a checkpoint of PyTorch"),
        ("evil.pth", [], "evil.pth"),
        ("imagenet", [], "config: expected a configuration with weights='imagenet'"),
        ("imagenet", ["--config", "C"], "weights: nobody has published ImageNet weights for C"),
        ("weights.pth", ["--labels", "three"], "three: expected 7 labels, one for each class of A, found 3"),
        ("weights.pth", ["--labels", "none"], "none: No such file"),
        ("weights.pth", ["--top", "0"], "top: expected a whole number from 1, found 0"),
        ("weights.pth", ["--batch", "0"], "batch: expected a whole number from 1, found 0"),
        ("weights.pth", ["--preprocess", "torhc"], "preprocess: expected torch, timm, keras, found 'torhc'. Did you"),
        ("weights.pth", ["--preprocess", "{resiz: 64}"], "preprocess: unknown key 'resiz'. Did you mean 'resize'?"),
        ("weights.pth", ["--preprocess", "{resize: 64"], "--preprocess:"),
        ("weights.pth", ["--preprocess", "{crop: 32}"], "preprocess: A takes pictures of 64×64; expected crop: 64x64"),
        ("weights.pth", ["--device", "meta"], "device: 'meta' holds no values"),
        ("weights.pth", ["-o", "none/out.json"], "--output: none: no such folder"),
        (
            "weights.pth",
            ["-o", "out.xml"],
            "--output: expected a file that ends in .txt, .json, .csv, .md,",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(source: str, options: list[str], message: str) -> None:
    """Exit code 2, nothing on stdout, and no code of a pickle is run."""
    Path("three").write_text("a\nb\nc")
    Path("text.pth").write_text("hello")
    Path("evil.pth").write_bytes(pickle.dumps({"w": Malicious()}, protocol=2))
    lines = told("classify", NAMES[0], "--weights", source, *options).splitlines()
    assert lines[0].removeprefix("Error: ").startswith(message)
    assert len(lines) == 1 or options == ["--preprocess", "{resize: 64"]  # which shows the place
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "images: expected a file, a folder or a pattern, found ''"),
        ("void", "void: no pictures in this folder"),
        ("*.bmp", "*.bmp: no pictures match this pattern"),
    ],
)
def test_no_picture_at_all_is_said_in_one_line(source: str, message: str) -> None:
    """Before any weights are read."""
    Path("void").mkdir()
    assert told(*arguments(source)) == f"Error: {message}\n"


@pytest.mark.parametrize("words", ["keras", "{crop: 64, scale: 1}", "{resize: 64x64, interpolation: nearest}"])
def test_preprocess_is_the_classifiers(words: str) -> None:
    """A word or options in YAML give what the same argument gives in Python."""
    given: Any = {"{crop: 64, scale: 1}": {"crop": 64, "scale": 1}}.get(words)
    given = given or ("keras" if words == "keras" else {"resize": "64x64", "interpolation": "nearest"})
    found = entries(NAMES[0], "--preprocess", words)[0]["predictions"]
    wanted = Classifier(weights="weights.pth", preprocess=given).predict(NAMES[0])[0]
    assert [each["probability"] for each in found] == [each.probability for each in wanted]
    assert found != entries(NAMES[0])[0]["predictions"]


def test_verbose_says_what_was_loaded_and_how_pictures_are_prepared() -> None:
    """On stderr: network, layout, report, preparation and who says so; dense too."""
    for options, name, crop in (([], "A", "crop: 64x64, "), (["--dense"], "A-dense", "")):
        result = run(*arguments(NAMES[0]), "--verbose", *options, "--format", "json")
        assert json.loads(result.stdout)
        mean = list(PRESETS["torch"].mean)
        assert result.stderr.splitlines()[:3] == [
            f"network: {name}",
            "layout: torchvision",
            "weights.pth: 11 layers loaded",
        ]
        assert f"preprocess (usual for torchvision's layout): {{resize: 73, {crop}scale: 255, mean: {mean}" in (
            result.stderr
        )


def test_dense_is_the_dense_classifier() -> None:
    """On pictures of several sizes together."""
    picture(1, (300, 90)).save("wide.png")
    found = [e["predictions"][0]["probability"] for e in entries(*NAMES, "wide.png", "--dense", "--batch", "1")]
    classifier = Classifier(weights="weights.pth", dense=True)
    assert found == [classifier.predict(name)[0][0].probability for name in (*NAMES, "wide.png")]


def test_every_class_of_a_thousand_can_be_asked_for(folder: Path) -> None:
    """Each once, from the likeliest to the least, and together certain."""
    wide = in_layout(small(num_classes=1000), "torchvision", folder)
    said = json.loads(printed("classify", NAMES[0], "--weights", str(wide), "--top", "1000", "--format", "json"))
    [found] = [entry["predictions"] for entry in said]
    assert sorted(each["index"] for each in found) == list(range(1000))
    chances = [each["probability"] for each in found]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1)  # torch's soft-max is in float32


def test_one_broken_picture_of_several_batches_moves_nothing() -> None:
    """Those before and behind it are what they are without it, in their order."""
    many = [saved(f"{number}.png", picture(number, (64, 64))) for number in range(7)]
    whole = entries(*many, "--batch", "1")
    Path("3.png").write_bytes(Path("3.png").read_bytes()[:60])
    result = run(*arguments(*many), "--batch", "2", "--format", "json")
    found = json.loads(result.stdout)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("Error: 3.png: ")
    assert [entry["image"] for entry in found] == [name for name in many if name != "3.png"]
    wanted = [entry for entry in whole if entry["image"] != "3.png"]
    assert [[each["index"] for each in entry["predictions"]] for entry in found] == [
        [each["index"] for each in entry["predictions"]] for entry in wanted
    ]


def test_ctrl_c_ends_in_one_word_and_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second batch, while the next pictures are being decoded."""
    many = [saved(f"{number}.png", picture(number, (64, 64))) for number in range(12)]
    forward, runs = VGG.forward, count()

    def interrupted(model: VGG, x: torch.Tensor) -> torch.Tensor:
        if next(runs):
            raise KeyboardInterrupt
        return forward(model, x)

    monkeypatch.setattr(VGG, "forward", interrupted)
    before = sorted(folder.rglob("*"))
    result = run(*arguments(*many), "--batch", "2", "--plot", "-o", "out.csv")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (1, "", "Aborted!")
    drawn = {folder / f"{number}_pred.png" for number in range(2)}
    assert set(folder.rglob("*")) - set(before) <= drawn
    assert next(runs) == 2


def test_a_terminal_sees_a_bar_for_a_folder() -> None:
    """Only for more than one picture."""
    shown = in_terminal(*arguments("photos"), PYTHONPATH=str(ROOT))
    assert "classifying" in shown
    assert "100%" in uncoloured(shown)
    assert "classifying" not in in_terminal(*arguments(NAMES[0]), PYTHONPATH=str(ROOT))


def test_stdout_is_clean_through_a_pipe(process: Run) -> None:
    """No progress bar where there is no terminal; errors stand on stderr alone."""
    done = process(*arguments("photos", "missing.jpg"), "--format", "json")
    assert [entry["image"] for entry in json.loads(done.stdout)] == NAMES
    assert done.stderr == b"Error: missing.jpg: no such file\n"
    assert done.returncode == 1
