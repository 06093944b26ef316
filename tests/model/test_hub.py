"""A model's form for the Hugging Face Hub: what its folder has, and what is built from it. No test needs a network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import vggkit
from tests import drawn, judges
from vggkit.notation.zoo import family_names

huggingface_hub = judges.package("huggingface_hub")
from vggkit.model import hub  # noqa: E402  # it needs the package that is asked for above
from vggkit.model.hub import HubVGG  # noqa: E402  # as above

SMALL = "{name: small, input: 3x8x8, blocks: [[conv3-4, LRN, maxpool]], classifier: [FC-6, FC-3, soft-max]}"
NORMED = "{input: 3x8x8, defaults: {norm: batch}, blocks: [[conv3-4, maxpool], [conv3-6]], classifier: [FC-3]}"
TRUNK = "{input: 1x9x7, defaults: {activation: gelu}, blocks: [[{conv: 4, kernel: 3x1, name: first}, {maxpool: 2}]]}"
HOSTILE = "a: b\n`x`] # <script>*_|\\ \u202e\x1b[31m\x7f\x85 \U0001f600 %YAML ' \" ---\n```\n| a | b |"
"""A name that says something in YAML, JSON, Markdown, HTML or a terminal."""


PRINTED = "".join(char for char in HOSTILE if char.isprintable())
"""What of it a file may have as a name."""


def built(text: str, **options: Any) -> vggkit.VGG:
    """Build a network that has been trained a little, so that its running statistics are its own."""
    model = vggkit.build(vggkit.loads(text), seed=1, **options)
    with torch.no_grad():
        model(torch.randn(4, *model.network.input_shape))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a small model."""
    HubVGG.of(built(SMALL)).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("text", [SMALL, NORMED, TRUNK])
def test_the_model_of_a_folder_is_the_one_that_was_saved(text: str, tmp_path: Path) -> None:
    """The same configuration, and outputs equal to the last bit; vggkit and safetensors read its files as well."""
    model = built(text)
    assert HubVGG.of(model).save_pretrained(tmp_path) is None
    again = HubVGG.from_pretrained(str(tmp_path))
    assert isinstance(again, huggingface_hub.PyTorchModelHubMixin)
    assert isinstance(again, vggkit.VGG)
    assert not again.training
    assert again.config == model.config
    x = torch.randn(2, *model.network.input_shape)
    with torch.no_grad():
        assert torch.equal(again(x), model.eval()(x))
        assert torch.equal(vggkit.load_model(tmp_path / "model.safetensors").eval()(x), model(x))
    stored = judges.package("safetensors.torch").load_file(tmp_path / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()}.items() >= {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }.items()


def test_a_folder_has_a_configuration_weights_and_a_card(folder: Path) -> None:
    """config.json is what the notation's own JSON Schema describes, and `load` reads a copy with a YAML file's name."""
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    schema = json.loads((Path(__file__).parents[2] / "configs" / "schema.json").read_text(encoding="utf-8"))
    judges.package("jsonschema").validate(said, schema)
    assert said["blocks"] == [["conv3-4", "LRN", "maxpool"]]
    (folder / "config.json").rename(folder / "small.yaml")
    assert vggkit.load(folder / "small.yaml") == vggkit.loads(SMALL)


@pytest.mark.parametrize("name", [*vggkit.names(), *family_names()])
def test_a_configuration_as_json_reads_back(name: str) -> None:
    """As an equal one; every one that comes with vggkit."""
    config = vggkit.load(name)
    assert vggkit.loads(hub.config_json(config)) == config


@given(drawn.configs())
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_any_configuration_as_json_reads_back(text: str) -> None:
    """Whatever can be written, under any name."""
    config = msgspec.structs.replace(vggkit.loads(text), name=PRINTED, note=PRINTED)
    said = hub.config_json(config)
    assert vggkit.loads(said) == config
    assert json.loads(said)["name"] == PRINTED


def test_the_form_has_the_models_modules() -> None:
    """So it trains the same weights; what else a model is comes along."""
    model = built(SMALL, softmax=True, checkpoint="block1", freeze="fc1")
    form = HubVGG.of(torch.nn.DataParallel(model))
    assert form.block1.conv1 is model.block1.conv1
    assert [*form.state_dict()] == [*model.state_dict()]
    assert (form.training, form.frozen, form.checkpoint) == (True, ("fc1",), frozenset({"block1"}))
    assert form.ends_in_softmax
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(form.eval()(x), model.eval()(x))
    with pytest.raises(vggkit.ArgumentError, match=r"model: expected a model of vggkit\.build, found 'Linear'"):
        HubVGG.of(torch.nn.Linear(2, 2))


def test_a_changed_model_is_saved_as_it_is(tmp_path: Path) -> None:
    """Another head, and a layer removed."""
    model = built(SMALL)
    model.predictions = torch.nn.Linear(6, 5)
    model.block1.lrn = torch.nn.Identity()
    HubVGG.of(model).save_pretrained(tmp_path)
    again = HubVGG.from_pretrained(tmp_path)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x), model.eval()(x))
    assert [row.kind for row in vggkit.summarize(again.config)] == ["input", "conv", "maxpool", "fc", "fc"]


def test_a_model_is_built_with_any_option_of_build(folder: Path) -> None:
    """The options are no part of the configuration."""
    model = HubVGG.from_pretrained(folder, softmax=True, dtype="float64", freeze="block1")
    assert model.frozen == ("block1_conv1",)
    assert model(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum().item() == pytest.approx(1)  # floating point
    head = HubVGG.from_pretrained(folder, head="new", num_classes=7)
    assert head.predictions.out_features == 7
    assert torch.equal(head.block1.conv1.weight, model.block1.conv1.weight.float())


def test_a_card_that_is_there_stays(folder: Path) -> None:
    """Somebody may have written more into it; the other files are replaced."""
    (folder / "README.md").write_text("mine")
    HubVGG.of(built(NORMED)).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"
    assert HubVGG.from_pretrained(folder).config == vggkit.loads(NORMED)


# The card


def test_a_card_says_what_the_model_is_and_costs(folder: Path, golden: Callable[[str, str], None]) -> None:
    """Its head is what the Hub reads; its tables are those of `summarize` and `memory`."""
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == (
        "vggkit",
        "image-classification",
        None,
    )
    assert {"vgg", "vggkit", "pytorch_model_hub_mixin"} <= {*card.data.tags}
    assert vggkit.summarize(vggkit.loads(SMALL)).written("markdown").strip() in card.text
    assert vggkit.memory(vggkit.loads(SMALL)).written("markdown").strip() in card.text
    assert str(vggkit.loads(SMALL)) in card.text
    golden("model-card.md", (folder / "README.md").read_text(encoding="utf-8"))


def test_a_cards_head_takes_what_the_hub_knows(tmp_path: Path) -> None:
    """A licence above all: vggkit knows none of the weights."""
    metadata = {"license": "mit", "language": "en", "tags": ["mine"], "datasets": ["imagenet-1k"]}
    HubVGG.of(built(TRUNK)).save_pretrained(tmp_path, model_card_kwargs=metadata)
    said = huggingface_hub.ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert (said["license"], said["language"], said["datasets"]) == ("mit", "en", ["imagenet-1k"])
    assert (said["tags"][0], said["tags"][-1], said["pipeline_tag"]) == ("vgg", "mine", "image-feature-extraction")


def test_nothing_in_a_card_is_anybodys_markup() -> None:
    """A name is text: in the heading, in paragraphs and in the block of code."""
    config = msgspec.structs.replace(vggkit.loads(SMALL), name=HOSTILE, source=HOSTILE, note=HOSTILE)
    text = hub.card(vggkit.Network.of(config), {})
    before, _, code = text.partition("## Configuration\n\n")
    assert not set(text) & set("\x1b\x7f\x85\u202e")
    html = (
        judges.package("markdown_it").MarkdownIt("gfm-like", {"linkify": False}).render(before.split("\n---\n", 1)[1])
    )
    assert "<script" not in html
    assert html.count("<h1>") == 1
    assert html.count("<table>") == 4
    assert html.count("<code") == 1
    assert "<em>" not in html
    fence = code.split("yaml")[0]
    assert set(fence) == {"`"}
    assert code.endswith(f"\n{fence}\n")
    assert fence not in code[len(fence) : -len(fence) - 1]


# The Hub


class Api:
    """Stands for the Hub: keeps what is sent there."""

    sent: dict[str, bytes]
    options: dict[str, Any]

    def __init__(self, token: str | None = None) -> None:
        pass

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        """Make a repository."""
        return type("Url", (), {"repo_id": repo_id})

    def upload_folder(self, folder_path: Path, **options: Any) -> str:
        """Take a folder's files."""
        Api.sent = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        Api.options = options
        return f"commit in {options['repo_id']}"


def test_a_model_is_pushed_through_the_mixin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All three files in one commit, as save_pretrained writes them; also by an option of it."""
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    form = HubVGG.of(built(SMALL))
    said = form.push_to_hub("me/small", branch="new", model_card_kwargs={"license": "mit"})
    assert said == "commit in me/small"
    assert (Api.options["revision"], Api.options["repo_type"]) == ("new", "model")
    assert json.loads(Api.sent["config.json"])["name"] == "small"
    assert b"license: mit" in Api.sent["README.md"]
    assert form.save_pretrained(tmp_path / "named", push_to_hub=True) == "commit in named"
    assert Api.sent == {path.name: path.read_bytes() for path in (tmp_path / "named").iterdir()}
    form.save_pretrained(tmp_path / "named", push_to_hub=True, repo_id="me/other", branch="b")
    assert (Api.options["repo_id"], Api.options["revision"]) == ("me/other", "b")


def test_a_model_comes_from_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration and its weights alone, at the revision and from the place that are asked for."""
    asked = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append((repo_id, filename, options["revision"], options["token"], options["local_files_only"]))
        return str(folder / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    model = HubVGG.from_pretrained("me/small", revision="v1", token="t", local_files_only=True)
    assert model.config.name == "small"
    files = ("config.json", "model.safetensors")
    assert asked == [("me/small", file, "v1", "t", True) for file in files]


@pytest.mark.parametrize("name", ["me/nothing", "./nowhere/at all", "a\x1b/b"])
def test_what_the_hub_does_not_have_is_one_line(name: str, tmp_path: Path) -> None:
    """With the Hub's own reason; nothing is asked of the network here."""
    with pytest.raises(
        vggkit.VggkitError, match=r"no folder, and as a repository of the Hub it has no config\.json"
    ) as caught:
        HubVGG.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json:2:1: not YAML"),
        ("[1, 2]", r"config\.json:1:1: expected"),
        ("null", r"config\.json:1:1: expected"),
        ('{"softmax": true, "blocks": [["conv3-4"]]}', r"config\.json:1:2: unknown key 'softmax'"),
        ('{"blocks": [["conv3-four"]]}', r"config\.json:1:14: "),
        ('{"extends": "/etc/passwd"}', r"config\.json:1:13: extends: /etc/passwd: not a configuration"),
        ("[" * 100_000, "exceeded maximum nesting depth"),
        ('{"blocks": [["conv3-4"]], "note": "' + "x" * 2**20 + '"}', "more than the 1,048,576 bytes"),
        ("\udcff", "UTF-8"),
    ],
    ids=["cut", "a list", "null", "another key", "a layer", "a file", "deep", "large", "no text"],
)
def test_a_strangers_configuration_is_checked(text: str, message: str, folder: Path) -> None:
    """As every configuration is, and no key of it is an argument."""
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(vggkit.ConfigError, match=message) as caught:
        HubVGG.from_pretrained(folder)
    assert "root:" not in str(caught.value)


def test_weights_are_safetensors_and_fit(folder: Path) -> None:
    """A pickle under their name is not read, and other weights are not taken."""
    torch.save(built(SMALL).state_dict(), folder / "model.safetensors")
    with pytest.raises(vggkit.CheckpointError, match=r"model\.safetensors: expected safetensors, found "):
        HubVGG.from_pretrained(folder)
    vggkit.save_weights(built(NORMED), folder / "model.safetensors")
    with pytest.raises(vggkit.CheckpointError):
        HubVGG.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    with pytest.raises(vggkit.CheckpointError):
        HubVGG.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    """With what is expected in the folder."""
    (folder / name).unlink()
    with pytest.raises(vggkit.VggkitError, match=rf"{name}: no such file; expected config.json and model.safetensors"):
        HubVGG.from_pretrained(folder)


def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path) -> None:
    """And no file is written or changed."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    form = HubVGG.of(built(NORMED))
    with pytest.raises(vggkit.ArgumentError, match=r"config: expected none, since config\.json is the model's own"):
        form.save_pretrained(folder, config={"a": 1})
    with pytest.raises(vggkit.ArgumentError, match="it is on the meta device and has no values to save"):
        HubVGG.of(vggkit.build("A", device="meta")).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(vggkit.ArgumentError, match=r"weights: expected none, since they are in model\.safetensors"):
        HubVGG.from_pretrained(folder, weights="imagenet")
    with pytest.raises(vggkit.ArgumentError, match=r"build: unknown keyword 'num_clases'\. Did you mean"):
        HubVGG.from_pretrained(folder, num_clases=2)
    (tmp_path / "file").touch()
    with pytest.raises(vggkit.VggkitError, match="file: can't be written: "):
        form.save_pretrained(tmp_path / "file")
    clash = vggkit.loads("classifier: [{fc: 3, name: push_to_hub}]")
    with pytest.raises(vggkit.ArgumentError, match="no layer can be named push_to_hub in a model for the Hub"):
        HubVGG.of(vggkit.build(clash))


LAZY = """
import sys
import vggkit
vggkit.build("A", device="meta")
assert "huggingface_hub" not in sys.modules
sys.modules["huggingface_hub"] = None
try:
    import vggkit.model.hub
except ImportError as error:
    print(error)
"""


def test_the_package_is_asked_for_where_it_is_needed() -> None:
    """A model needs no huggingface_hub; without it, the line says how to get it."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert done.stdout == (
        'vggkit.model.hub needs huggingface_hub, which is not installed; `pip install "vggkit[hub]"`\n'
    )
