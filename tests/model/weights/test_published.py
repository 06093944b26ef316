"""The passports say what torchvision, timm and Keras say."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import pytest
import timm
import torchvision

import vggkit
from tests.keras_process import Keras
from vggkit.base.errors import ArgumentError
from vggkit.model.weights.published import Passport, imagenet, of_file, passports

NAMES = ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
ENUMS = [weights for name in NAMES for weights in torchvision.models.get_model_weights(name)]


def of_origin(origin: str) -> list[Passport]:
    """Return the passports of one publisher."""
    return [passport for passport in passports() if passport.origin == origin]


def expect(file: str) -> Passport:
    """Return the passport of a file that must have one."""
    passport = of_file(file)
    assert passport is not None, file
    return passport


@pytest.mark.parametrize("weights", ENUMS, ids=str)
def test_torchvisions_passports_are_its_enums(weights: torchvision.models.WeightsEnum) -> None:
    """Address, size, checksum, accuracies and whether there is a classifier."""
    passport = expect(weights.url.rsplit("/")[-1])
    accuracies = weights.meta["_metrics"]["ImageNet-1K"]
    wanted = [None if math.isnan(accuracies[key]) else accuracies[key] for key in ("acc@1", "acc@5")]
    assert (passport.origin, passport.address) == ("torchvision", weights.url)
    assert passport.mebibytes == weights.meta["_file_size"]
    assert weights.url.endswith(f"-{passport.sha256_prefix}.pth")
    assert [passport.top1, passport.top5] == wanted
    assert passport.classifier is (weights.name == "IMAGENET1K_V1")


@pytest.mark.parametrize("weights", ENUMS, ids=str)
def test_torchvisions_preprocessing_is_its_transforms(weights: torchvision.models.WeightsEnum) -> None:
    """Sizes, interpolation, mean and standard deviation, to the last digit."""
    transforms = weights.transforms()
    assert expect(weights.url.rsplit("/")[-1]).preprocess == {
        "resize": transforms.resize_size[0],
        "crop": transforms.crop_size[0],
        "scale": 255,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
        "colour": "rgb",
        "interpolation": transforms.interpolation.value,
    }


def test_torchvision_has_no_other_files() -> None:
    """As many passports as enums."""
    assert len(of_origin("torchvision")) == len(ENUMS) == 9


@pytest.mark.parametrize("name", NAMES)
def test_timms_passports_are_its_configurations(name: str) -> None:
    """Address, licence and preprocessing, with the resize that timm computes from its crop."""
    theirs = timm.get_pretrained_cfg(f"{name}.tv_in1k")
    assert theirs is not None
    passport = expect(f"{name}.tv_in1k.safetensors")
    assert passport.address == f"https://huggingface.co/{theirs.hf_hub_id}/resolve/main/model.safetensors"
    assert (passport.origin, str(passport.licence).lower()) == ("timm", theirs.license)
    assert passport.preprocess == {
        "resize": math.floor(theirs.input_size[1] / theirs.crop_pct),
        "crop": theirs.input_size[1],
        "scale": 255,
        "mean": list(theirs.mean),
        "std": list(theirs.std),
        "colour": "rgb",
        "interpolation": theirs.interpolation,
    }


KERAS = """
import inspect, json
import numpy
from keras.src.applications import vgg16, vgg19
from keras.src.utils.image_utils import load_img

print(json.dumps({
    "sources": {module.__name__.split(".")[-1]: inspect.getsource(module) for module in (vgg16, vgg19)},
    "addresses": [
        address for module in (vgg16, vgg19) for address in (module.WEIGHTS_PATH, module.WEIGHTS_PATH_NO_TOP)
    ],
    "pixel": vgg16.preprocess_input(numpy.array([[[[10.0, 20.0, 30.0]]]])).ravel().tolist(),
    "interpolation": inspect.signature(load_img).parameters["interpolation"].default,
}))
"""


@pytest.fixture(scope="module")
def theirs(keras: Keras, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Keras's own source says."""
    said: dict[str, Any] = json.loads(keras.run(KERAS, tmp_path_factory.mktemp("keras")))
    return said


def test_kerass_passports_are_in_its_source(theirs: dict[str, Any]) -> None:
    """Address and MD5, with and without the classifier."""
    assert [passport.address for passport in of_origin("keras")] == theirs["addresses"]
    for passport in of_origin("keras"):
        source = re.sub(r"\s", "", theirs["sources"][passport.file[:5]])
        constant = "WEIGHTS_PATH" if passport.classifier else "WEIGHTS_PATH_NO_TOP"
        assert str(passport.address).endswith(f"/{passport.file}")
        assert f'"{passport.file}",{constant},cache_subdir="models",file_hash="{passport.md5}"' in source


def test_kerass_preprocessing_is_its_functions(theirs: dict[str, Any]) -> None:
    """A pixel comes out as `preprocess_input` returns it, and `load_img` resizes with the same interpolation."""
    for passport in of_origin("keras"):
        rules = passport.preprocess
        ours = [
            (value / rules["scale"] - mean) / std for value, mean, std in zip([30, 20, 10], rules["mean"], rules["std"])
        ]
        assert ours == pytest.approx(theirs["pixel"], rel=1e-9)  # it subtracts before it divides
        assert (rules["colour"], rules["resize"], "crop" in rules) == ("bgr", "224x224", False)
        assert rules["interpolation"] == theirs["interpolation"]


def test_every_file_has_one_passport_and_a_known_configuration() -> None:
    """File names tell files apart, and configurations are named as `load` names them."""
    files = [passport.file for passport in passports()]
    assert len(set(files)) == len(files) == 23
    shipped = {name for base in vggkit.names() for name in (base, f"{base}-BN")}
    assert {passport.configuration for passport in passports()} <= shipped
    for name in NAMES:
        assert imagenet(vggkit.load(name).name).address == torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
        assert expect(f"{name}.tv_in1k.safetensors").configuration == vggkit.load(name).name


def test_sizes_fit_the_numbers_of_parameters() -> None:
    """Every size that is known is that of the parameters in float32 and at most 0.2 MB of names beside them."""
    convolutions = {"D": 14_714_688, "E": 20_024_384}
    wholes = {
        name: vggkit.summarize(name).totals.parameters for name in {passport.configuration for passport in passports()}
    }
    for passport in passports():
        size = passport.bytes if passport.mebibytes is None else passport.mebibytes * 2**20
        if size is None:
            continue
        whole = passport.classifier or passport.origin == "torchvision"
        parameters = wholes[passport.configuration] if whole else convolutions[passport.configuration]
        assert 0 < size - 4 * parameters < 200_000, passport.file


def test_accuracies_are_missing_exactly_where_they_are_not_published() -> None:
    """Torchvision's and Keras's whole networks have both, the rest neither; what is missing is said."""
    for passport in passports():
        published = passport.classifier and passport.origin in ("torchvision", "keras")
        assert (passport.top1 is not None, passport.top5 is not None) == (published, published), passport.file
        assert passport.known_gaps is None or passport.known_gaps.endswith(".")
        missing = (passport.bytes, passport.licence, passport.address)
        assert passport.known_gaps is not None or None not in missing, passport.file


def test_the_caffe_ports_want_blue_first_and_no_scaling() -> None:
    """Other than torchvision's files, whose names look alike."""
    for file in ("vgg16-00b39a1b.pth", "vgg19-d01eb7cb.pth"):
        passport = expect(file)
        rules = passport.preprocess
        assert passport.sha256_prefix == file[6:14]
        assert (rules["colour"], rules["scale"], rules["mean"]) == ("bgr", 1, [103.939, 116.779, 123.68])


@pytest.mark.parametrize("name", ["C", "A-LRN", "vgg16", ""])
def test_a_configuration_without_weights_is_refused_in_one_line(name: str) -> None:
    """With the ones that have some."""
    with pytest.raises(ArgumentError) as refusal:
        imagenet(name)
    known = "there are some for A, A-BN, B, B-BN, D, D-BN, E and E-BN"
    assert str(refusal.value) == f"weights: nobody has published ImageNet weights for {name}; {known}"


def test_a_name_of_several_lines_stays_on_one() -> None:
    """Nor does a long one fill the screen."""
    for name in ("a\nb", "x" * 1000):
        with pytest.raises(ArgumentError) as refusal:
            imagenet(name)
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 200


def test_only_a_files_name_counts() -> None:
    """Whatever folder it is in; another name has no passport."""
    assert of_file("/nowhere/vgg16-397923af.pth") is imagenet("D")
    assert of_file("vgg16.pth") is None
    assert of_file("") is None


def test_a_passport_takes_no_unknown_field() -> None:
    """A misspelt field in the file can't go unseen."""
    fields = {**msgspec.to_builtins(imagenet("D")), "sha256": "x"}
    with pytest.raises(msgspec.ValidationError, match="sha256"):
        msgspec.convert(fields, Passport)
