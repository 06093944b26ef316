"""Predictions are those of the bare loop: the libraries' transforms, the built model, soft-max and topk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torchvision import transforms

import vggkit
from tests.model.weights.makers import in_layout, small
from vggkit import Classifier
from vggkit.base.errors import ArgumentError, PictureError
from vggkit.classify.labels import imagenet_labels
from vggkit.classify.predictions import Classified, Prediction
from vggkit.model.weights.published import of_file
from vggkit.notation.preprocess import PRESETS, Preprocess, parse_preprocess

SIZES = [(90, 70), (64, 64), (70, 90), (200, 65), (90, 70)]


def picture(number: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """Return a picture of soft spots."""
    values = numpy.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=numpy.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Save the small model as torchvision does."""
    return in_layout(small(), "torchvision", tmp_path)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Save pictures of several sizes."""
    found = [tmp_path / f"{number}.png" for number in range(len(SIZES))]
    for number, path in enumerate(found):
        picture(number, SIZES[number]).save(path)
    return found


def plain(scores: torch.Tensor, top: int) -> list[tuple[int, float]]:
    """Return the best classes of one picture's scores, in torch's own words."""
    best = scores.softmax(1).topk(top)
    return list(zip(best.indices[0].tolist(), best.values[0].tolist()))


def pairs(predictions: list[Prediction]) -> list[tuple[int, float]]:
    """Return predictions as index and probability."""
    return [(predicted.index, predicted.probability) for predicted in predictions]


def by_torchvision(image: Image.Image, resize: int = 73, crop: int | None = 64) -> torch.Tensor:
    """Return a batch of one, as torchvision prepares it."""
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    cut = [] if crop is None else [transforms.CenterCrop(crop)]
    steps = [transforms.Resize(resize), *cut, transforms.ToTensor(), transforms.Normalize(mean, std)]
    batch: torch.Tensor = transforms.Compose(steps)(image)[None]
    return batch


def close(found: list[list[Prediction]], wanted: list[list[Prediction]]) -> bool:
    """Tell whether classes are equal, and probabilities but for how torch rounds in batches of other sizes."""
    return [[p.index for p in each] for each in found] == [[p.index for p in each] for each in wanted] and all(
        abs(one.probability - other.probability) < 1e-6
        for ours, theirs in zip(found, wanted)
        for one, other in zip(ours, theirs)
    )


@torch.inference_mode()
def test_predictions_are_the_bare_loops(weights: Path) -> None:
    """Bit for bit: torchvision's transforms at the network's scale, the model, soft-max, topk."""
    image = picture(0)
    found = Classifier(weights=weights).predict(image, top=7)
    assert [pairs(each) for each in found] == [plain(small()(by_torchvision(image)), 7)]


@torch.inference_mode()
def test_kerass_preparation_is_its_rule(tmp_path: Path) -> None:
    """Nearest pixels of the whole picture, BGR, minus the means, as keras.applications has it."""
    image = picture(1)
    pixels = numpy.asarray(image.resize((64, 64), Image.Resampling.NEAREST), dtype=numpy.float32)[..., ::-1]
    pixels = pixels - numpy.array([103.939, 116.779, 123.68], dtype=numpy.float32)
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    found = Classifier(weights=in_layout(small(), "keras", tmp_path)).predict(image, top=3)
    assert pairs(found[0]) == plain(small()(x), 3)


def test_one_or_many_paths_or_pictures_say_the_same(weights: Path, paths: list[Path]) -> None:
    """A path, a string, a Pillow image and lists of them, in their order."""
    classifier = Classifier(weights=weights)
    each = [classifier.predict(path)[0] for path in paths]
    assert [classifier.predict(str(path))[0] for path in paths] == each
    assert [classifier.predict(Image.open(path))[0] for path in paths] == each
    mixed = [paths[0], str(paths[1]), *map(Image.open, paths[2:])]
    assert close(classifier.predict(mixed), each)
    assert len({str(one) for one in each}) == len(paths)
    assert classifier.predict([]) == []


def test_top_is_how_many(weights: Path) -> None:
    """No more than the network has, and the likeliest first."""
    classifier = Classifier(weights=weights)
    assert [len(classifier.predict(picture(0), top=top)[0]) for top in (1, 7, 1000)] == [1, 7, 7]
    every = [predicted.probability for predicted in classifier.predict(picture(0), top=7)[0]]
    assert every == sorted(every, reverse=True)
    assert sum(every) == pytest.approx(1)  # torch's soft-max is in float32


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (2, 3), (3, None), (100, 8)])
def test_a_stream_keeps_the_order(
    batch: int, workers: int | None, dense: bool, weights: Path, paths: list[Path]
) -> None:
    """Whatever the batch, the threads and the mix of sizes, each picture has what `predict` says."""
    classifier = Classifier(weights=weights, dense=dense)
    found = list(classifier.stream(paths * 3, batch=batch, workers=workers))
    results = [result for result in found if isinstance(result, Classified)]
    assert [result.image for result in results] == [str(path) for path in paths * 3]
    wanted = [classifier.predict(path)[0] for path in paths * 3]
    assert close([list(result.predictions) for result in results], wanted)


def test_a_stream_goes_on_behind_what_is_broken(weights: Path, paths: list[Path], tmp_path: Path) -> None:
    """An error stands where the picture would, and the others are as without it."""
    (tmp_path / "text.png").write_text("text")
    classifier = Classifier(weights=weights)
    broken = [tmp_path / "text.png", paths[0], paths[1], tmp_path / "none.png"]
    found = list(classifier.stream(broken, batch=2))
    assert [isinstance(result, PictureError) for result in found] == [True, False, False, True]
    whole = list(classifier.stream([paths[0], paths[1]], batch=1))
    assert [str(result) for result in found[1:3]] == [str(result) for result in whole]


def test_a_picture_too_small_for_dense_spoils_no_other(weights: Path, paths: list[Path], tmp_path: Path) -> None:
    """It is reported with its name and size; `predict` says the same."""
    picture(9, (20, 30)).save(tmp_path / "tiny.png")
    classifier = Classifier(weights=weights, dense=True, preprocess={"scale": 255})
    found = list(classifier.stream([paths[0], tmp_path / "tiny.png", paths[2]]))
    assert [isinstance(result, PictureError) for result in found] == [False, True, False]
    assert str(found[1]).startswith(f"{tmp_path / 'tiny.png'}: A-dense can't take pictures of 30×20: ")
    with pytest.raises(PictureError, match="A-dense can't take pictures of 30×20"):
        classifier.predict(tmp_path / "tiny.png")


@torch.inference_mode()
def test_dense_is_the_fully_convolutional_model_on_the_whole_picture(weights: Path) -> None:
    """Resized as for the crop, but not cropped; at the crop's size it is the FC form."""
    wide = picture(3, (200, 70))
    model = vggkit.to_fully_convolutional(small())
    found = Classifier(weights=weights, dense=True).predict(wide, top=7)[0]
    assert pairs(found) == plain(model(by_torchvision(wide, crop=None)), 7)
    square = [
        Classifier(weights=weights, preprocess={"crop": 64}, dense=dense).predict(picture(4, (64, 64)))
        for dense in (True, False)
    ]
    assert close(*square)


def test_labels_are_imagenets_for_a_thousand_classes(tmp_path: Path) -> None:
    """And `class 3` for others, unless they are given."""
    thousand = Classifier(weights=in_layout(small(num_classes=1000), "torchvision", tmp_path))
    best = thousand.predict(picture(0), top=1)[0][0]
    assert (best.label, best.wordnet_id) == tuple(imagenet_labels()[best.index])
    seven = in_layout(small(), "torchvision", tmp_path)
    best = Classifier(weights=seven).predict(picture(0), top=1)[0][0]
    assert (best.label, best.wordnet_id) == (f"class {best.index}", None)
    assert (
        Classifier(weights=seven, labels=list("abcdefg")).predict(picture(0), top=1)[0][0].label
        == ("abcdefg"[best.index])
    )


# Who says how pictures are prepared


def origin(config: Any, weights: Path, given: Any = None) -> tuple[Preprocess, str]:
    """Return a classifier's preparation and who says so."""
    classifier = Classifier(config, weights=weights, preprocess=given)
    return classifier.preprocess, classifier.preprocess_origin


def test_what_is_asked_for_goes_before_the_configuration_the_passport_and_the_layout(tmp_path: Path) -> None:
    """Each in its turn, as the ones before it are taken away."""
    options = {"crop": 64, "mean": 0.25}
    said = {"resize": "64x64", "std": 0.5}
    config = vggkit.load("A", input="3x64x64", width=0.05, num_classes=7)
    text = vggkit.dump(config) + "preprocess: {resize: 64x64, std: 0.5}\n"
    published = in_layout(small(), "torchvision", tmp_path).rename(tmp_path / "vgg11-8a719046.pth")
    passport = of_file(published)
    assert passport is not None
    with_configuration = vggkit.loads(text)
    assert origin(with_configuration, published, options) == (parse_preprocess(options), "as asked for")
    assert origin(with_configuration, published) == (parse_preprocess(said), "the configuration A")
    assert origin(config, published)[1] == f"torchvision, {published.name}"
    assert origin(config, published)[0].mean == parse_preprocess(passport.preprocess).mean
    other = published.rename(tmp_path / "other.pth")
    assert origin(config, other) == (origin(None, other, "torch")[0], "usual for torchvision's layout")


@pytest.mark.parametrize("layout", ["timm", "keras", "keras3"])
def test_a_layout_has_its_librarys_preparation(layout: str, tmp_path: Path) -> None:
    """Scaled to the network's size: the means, colours and interpolation are the preset's."""
    found, who = origin(None, in_layout(small(), layout, tmp_path))
    preset = PRESETS[layout.removesuffix("3")]
    assert (found.mean, found.std, found.colour, found.interpolation) == (
        preset.mean,
        preset.std,
        preset.colour,
        preset.interpolation,
    )
    assert who == f"usual for {layout}'s layout"


def refused(message: str, *arguments: Any, **options: Any) -> None:
    """See that a classifier is refused in one line that begins so."""
    with pytest.raises(ArgumentError) as caught:
        Classifier(*arguments, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_can_be_no_classifier_is_said_in_one_line(weights: Path, tmp_path: Path) -> None:
    """What was found, what was expected and what to do."""
    refused("config: expected a configuration with weights='imagenet'", weights="imagenet")
    refused("device: 'meta' holds no values", weights=weights, device="meta")
    refused("device: expected cpu, cuda", weights=weights, device="tpu")
    refused("labels: expected 7 labels, one for each class of A, found 2", weights=weights, labels=["a", "b"])
    wrong = "preprocess: A takes pictures of 64×64; expected crop: 64x64"
    refused(wrong, weights=weights, preprocess={"resize": 64})
    refused(wrong, weights=weights, preprocess={"resize": 80, "crop": 32})
    refused(
        "preprocess: A takes images of 3 channels, and colour grey has 1",
        weights=weights,
        preprocess={"colour": "grey", "crop": 64},
    )
    own = in_layout(small(), "vggkit", tmp_path)
    refused(f"{own}: nothing says how pictures are prepared for it; give preprocess=", weights=own)
    trunk = tmp_path / "trunk.safetensors"
    vggkit.save_weights(vggkit.build(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4]]}")), trunk)
    refused("weights: ", weights=trunk, preprocess="torch")
    features = weights.rename(tmp_path / "vgg16_features-amdegroot-88682ab5.pth")
    refused(f"weights: {features.name} of torchvision is published for its features", weights=features)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it can be used")
def test_a_device_that_is_not_there_is_said_in_one_line(weights: Path) -> None:
    """torch's assertion becomes the argument's error."""
    refused("device: 'cuda' can't be used here: ", weights=weights, device="cuda")


@pytest.mark.parametrize("number", [0, -1, 1.5, True, None, "5"])
def test_numbers_are_whole_and_above_zero(number: Any, weights: Path, paths: list[Path]) -> None:
    """Said before any picture is read."""
    classifier = Classifier(weights=weights)
    with pytest.raises(ArgumentError, match=r"^top: expected a whole number from 1"):
        classifier.predict([], top=number)
    for name in ("top", "batch", "workers"):
        if (name, number) != ("workers", None):
            with pytest.raises(ArgumentError, match=rf"^{name}: expected a whole number from 1"):
                classifier.stream(paths, **{name: number})


@pytest.mark.parametrize("images", [3, None, [3], numpy.zeros((2, 3))])
def test_only_paths_and_pictures_are_images(images: Any, weights: Path) -> None:
    """Anything else is named by its type."""
    with pytest.raises(ArgumentError, match=r"^images: expected paths or Pillow images, found "):
        Classifier(weights=weights).predict(images)
