"""What a file may say: every key, defaults and extends; all mistakes together, each with its place."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import vggkit
from vggkit.base.errors import ConfigError
from vggkit.notation.config import Entry, input_shape
from vggkit.notation.json_schema import schema
from vggkit.notation.layers import (
    BatchNorm,
    Conv2d,
    GroupNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
)
from vggkit.notation.reading import KEYS
from vggkit.notation.spelling import spell


def problems(text: str, **keywords: Any) -> list[str]:
    """Return the lines of what is wrong with a text."""
    with pytest.raises(ConfigError) as caught:
        vggkit.loads(text, file="my.yaml", **keywords)
    return str(caught.value).split("\n")


def first(text: str) -> Entry:
    """Return the first entry of a file with one block."""
    return vggkit.loads(text).blocks[0][0]


def spelt(config: vggkit.Config) -> str:
    """Return a configuration as `show` prints it, without its name."""
    return vggkit.dump(config).split("\n", 1)[1]


# keys


def test_every_key_has_its_value_in_the_config() -> None:
    """A file with every key fills every field."""
    config = vggkit.loads(
        "name: mine\naliases: [my, own]\nsource: 'a: b'\nnote: 'c: d'\nextends: A\ninput: 1x28x30\n"
        "defaults: {dropout: 0.1}\nblocks: [[conv3-8, maxpool]]\nclassifier: [FC-4]\noverrides: {num_classes: 5}\n"
    )
    assert (config.name, config.aliases, config.source, config.note) == ("mine", ("my", "own"), "a: b", "c: d")
    assert config.input == (1, 28, 30)
    assert config.defaults.dropout == 0.1
    assert [type(entry.layer) for entry in config.blocks[0]] == [Conv2d, MaxPool2d]
    assert config.classifier[0].layer == Linear(5)


def test_an_absent_key_has_its_documented_default() -> None:
    """Without name, input and classifier: the file's name, 3×224×224, a trunk."""
    config = vggkit.loads("blocks: [[conv3-64]]", file="folder/slim.yaml")
    assert (config.name, config.aliases, config.source, config.note) == ("slim", (), None, None)
    assert config.input == (3, 224, 224)
    assert config.classifier == ()
    assert config.reported is None
    assert vggkit.loads("blocks: [[conv3-64]]").name == "network"


@pytest.mark.parametrize("text", ["classifier:", "classifier: []", "classifier: null", "name: x"])
def test_no_classifier_means_a_trunk(text: str) -> None:
    """null, an empty list and no key at all are the same."""
    assert vggkit.loads(f"blocks: [[conv3-64]]\n{text}").classifier == ()


def test_blocks_may_be_absent_where_there_is_a_classifier() -> None:
    """A network of FC layers only is a network."""
    assert vggkit.summarize(vggkit.loads("input: 1x2x2\nclassifier: [FC-3]")).totals.parameters == 15


@pytest.mark.parametrize("text", ["name: x", "{}", "blocks: []", "blocks: []\nclassifier: []"])
def test_a_file_without_layers_is_refused(text: str) -> None:
    """No layers at all is a mistake that says what was expected."""
    assert problems(text) == ["my.yaml:1:1: no layers: expected 'blocks', a list of lists such as [conv3-64, maxpool]"]


@pytest.mark.parametrize(
    ("text", "shape"),
    [("3x64x96", (3, 64, 96)), ("3×64×96", (3, 64, 96)), ("[3, 64, 96]", (3, 64, 96)), ("' 1x02x3 '", (1, 2, 3))],
)
def test_input_is_channels_height_width(text: str, shape: tuple[int, int, int]) -> None:
    """The input is C×H×W, as a word or a list."""
    assert vggkit.loads(f"blocks: [[relu]]\ninput: {text}").input == shape
    assert input_shape(shape) == shape


@pytest.mark.parametrize(
    "text", ["3x0x3", "3x64", "224", "3x64x64x64", "axbxc", "[3, 64]", "[3, 64, -1]", "", "{}", "3.0x1x1"]
)
def test_a_wrong_input_is_told_with_the_right_form(text: str) -> None:
    """Zero, too few, too many, no numbers: the message shows a right one."""
    (line,) = problems(f"blocks: [[relu]]\ninput: {text}")
    assert line.startswith("my.yaml:2:")
    assert "input: expected channels × height × width, as in 3x224x224, found" in line


@pytest.mark.parametrize("key", KEYS)
def test_a_misspelt_key_is_told_with_the_right_one(key: str) -> None:
    """Each key with a letter too many is refused with the right spelling."""
    (line,) = problems(f"blocks: [[relu]]\nx{key}: 1")
    assert line == f"my.yaml:2:1: unknown key 'x{key}'. Did you mean '{key}'?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [1]", "1:7: name: expected a name, found [1]"),
        ("name: 16", "1:7: name: expected a name, found 16"),
        ("name: ''", "1:7: name: expected a name that can be printed on one line, found ''"),
        (r'name: "a\nb"', r"1:7: name: expected a name that can be printed on one line, found 'a\nb'"),
        (
            'source: "\\e[31m"',
            r"1:9: source: expected a line of text that can be printed on one line, found '\x1b[31m'",
        ),
        ("aliases: D", "1:10: aliases: expected a list of names, found 'D'"),
        ("aliases: [D, 1]", "1:10: aliases: expected a list of names, found ['D', 1]"),
        ("extends: 3", "1:10: extends: expected a name or a path, found 3"),
        ("blocks: conv3-64", "1:9: blocks: expected a list of lists such as [conv3-64, maxpool], found 'conv3-64'"),
        ("blocks: [conv3-64]", "1:10: block 1: expected a list such as [conv3-64, maxpool], found 'conv3-64'"),
        ("blocks: [[]]", "1:10: block 1: expected a list such as [conv3-64, maxpool], found []"),
        ("blocks: [[3]]", "1:11: expected a layer such as conv3-64, found 3 in block 1"),
        ("classifier: FC-3", "1:13: classifier: expected a list such as [FC-4096, FC-1000, soft-max], found 'FC-3'"),
        ("defaults: 3", "1:11: defaults: expected options, found 3"),
        ("overrides: 3", "1:12: overrides: expected options such as {num_classes: 10}, found 3"),
        ("[conv3-64]", "1:1: expected keys such as name, input and blocks, found ['conv3-64']"),
        ("conv3-64", "1:1: expected keys such as name, input and blocks, found 'conv3-64'"),
        (
            "reported: {single_scale: [{train: 1, test: 1, top1: x, top5: 1}]}",
            "1:53: reported: Expected float, got str",
        ),
        ("reported: {parameters_in_million: 1}", "1:11: reported: "),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_what_was_expected(text: str, message: str) -> None:
    """Each key's wrong value is one line: where, what was found, what was expected."""
    assert any(line.startswith(f"my.yaml:{message}") for line in problems(text))


@pytest.mark.parametrize(
    "row",
    [
        "{train: 0, test: 1, top1: 2, top5: 1}",
        "{train: 1, test: 1, top1: 1, top5: 2}",
        "{train: 1, test: 1, top1: 101, top5: 2}",
        "{train: 1, test: 1, top1: 1}",
    ],
)
def test_reported_figures_must_make_sense(row: str) -> None:
    """Sides from 1, percentages, top-5 not above top-1, nothing missing."""
    (line,) = problems(f"blocks: [[relu]]\nreported: {{single_scale: [{row}]}}")
    assert line.startswith("my.yaml:2:27: reported: ")


# defaults


def test_defaults_are_the_papers() -> None:
    """Unsaid, a convolution has ReLU, no norm, a bias, stride 1 and padding that keeps the size."""
    entry = first("blocks: [[conv3-64]]")
    assert entry.layer == Conv2d(64, (3, 3), stride=(1, 1), padding="same", bias=True)
    assert (entry.norm, entry.activation, entry.dropout) == (None, ReLU(), 0)


def test_the_three_followers_of_defaults_change_what_stands_behind_layers() -> None:
    """Norm and activation stand behind convolutions, activation and dropout behind hidden FC layers."""
    config = vggkit.loads(
        "defaults: {norm: batch, activation: {leaky-relu: 0.2}, dropout: 0.3}\n"
        "blocks: [[conv3-8, maxpool]]\nclassifier: [FC-4, FC-2, soft-max]"
    )
    (conv, pool), (hidden, last, softmax) = config.blocks[0], config.classifier
    leaky = LeakyReLU(negative_slope=0.2)
    assert (conv.norm, conv.activation, conv.dropout) == (BatchNorm(), leaky, 0)
    assert (hidden.norm, hidden.activation, hidden.dropout) == (None, leaky, 0.3)
    for entry in (pool, last, softmax):
        assert (entry.norm, entry.activation, entry.dropout) == (None, None, 0)


def test_defaults_of_a_kind_win_over_the_three_and_an_entry_over_both() -> None:
    """An entry says the last word, then its kind's defaults, then the file's."""
    config = vggkit.loads(
        "defaults: {norm: batch, conv: {bias: false, stride: 2, activation: none, norm: {groupnorm: 4}},"
        " maxpool: {stride: 3}, fc: {bias: false, dropout: 0}}\n"
        "blocks: [[conv3-8, {conv: 8, bias: true, activation: tanh, norm: none}, maxpool]]\nclassifier: [FC-3, FC-2]"
    )
    plain, own, pool = config.blocks[0]
    assert plain.layer == Conv2d(8, stride=(2, 2), bias=False)
    assert (plain.norm, plain.activation) == (GroupNorm(4), None)
    assert own.layer == Conv2d(8, stride=(2, 2))
    assert (own.norm, own.activation) == (None, Tanh())
    assert pool.layer == MaxPool2d(stride=(3, 3))
    assert config.classifier[0].layer == Linear(3, bias=False)
    assert config.classifier[0].dropout == 0


def test_an_entry_of_the_last_layer_may_have_followers_of_its_own() -> None:
    """What stands behind the last layer is what it says itself, not what the kind's defaults say."""
    config = vggkit.loads("defaults: {fc: {activation: tanh}}\nblocks: [[relu]]\nclassifier: [{fc: 3, dropout: 0.2}]")
    assert (config.classifier[0].activation, config.classifier[0].dropout) == (None, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{nrom: batch}", "1:12: defaults: unknown key 'nrom'. Did you mean 'norm'?"),
        ("{norm: relu}", "1:18: defaults: norm: expected one of batch, group, none, found 'relu'"),
        ("{activation: maxpool}", "1:24: defaults: activation: expected one of relu, leaky-relu, "),
        ("{dropout: 1}", "1:21: defaults: dropout: expected a number from 0 to below 1, found 1"),
        ("{conv: 3}", "1:18: defaults: conv: expected options such as {stride: 1}, found 3"),
        ("{conv: {channels: 3}}", "1:19: defaults: conv: channels can't have a default"),
        ("{conv: {name: x}}", "1:19: defaults: conv: name can't have a default"),
        ("{conv: {strude: 3}}", "1:19: defaults: conv: unknown option 'strude'. Did you mean 'stride'?"),
        (
            "{maxpool: {stride: 0}}",
            "1:30: defaults: maxpool: stride: expected a whole number from 1, or height × width",
        ),
    ],
)
def test_a_mistake_in_defaults_is_told_with_its_place(text: str, message: str) -> None:
    """Wrong words and wrong values of defaults, at their own line and column."""
    (line,) = problems(f"defaults: {text}\nblocks: [[conv3-8]]")
    assert line.startswith(f"my.yaml:{message}")


# extends


def test_extends_takes_over_layers_input_and_defaults_but_no_names() -> None:
    """What the base says of the network is taken over; what it is called, and what was published of it, is not."""
    config = vggkit.loads("extends: vgg16_bn\nname: mine")
    base = vggkit.load("vgg16_bn")
    assert (config.blocks, config.classifier, config.input) == (base.blocks, base.classifier, base.input)
    assert config.defaults == base.defaults
    assert (config.name, config.aliases, config.source, config.reported) == ("mine", (), None, None)


def test_extends_replaces_key_by_key() -> None:
    """A key of the child replaces the base's, whole."""
    config = vggkit.loads("extends: A\nclassifier: [global-avgpool, FC-10]\ninput: 3x64x64")
    assert config.blocks == vggkit.load("A").blocks
    assert [spell(entry.layer) for entry in config.classifier] == ["global-avgpool", "FC-10"]
    assert config.input == (3, 64, 64)
    assert vggkit.loads("extends: A\nclassifier: null").classifier == ()


def test_extends_replaces_adds_and_takes_away_single_blocks() -> None:
    """By their numbers; the others stay as they are in the base, and its defaults hold for the new."""
    config = vggkit.loads("extends: vgg16_bn\nblocks: {2: [conv3-8], 4: , 6: [maxpool], 7: [conv1-9]}")
    base = vggkit.load("vgg16_bn").blocks
    assert config.blocks[0] == base[0]
    assert (config.blocks[1][0].layer, config.blocks[1][0].norm) == (Conv2d(8), BatchNorm())
    assert config.blocks[2:4] == (base[2], base[4])
    assert [entry.layer for block in config.blocks[4:] for entry in block] == [MaxPool2d(), Conv2d(9, 1)]
    assert vggkit.loads(vggkit.dump(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: D\nblocks: {7: [relu]}", "2:10: blocks: expected a block's number from 1 to 6, found '7'"),
        ("extends: D\nblocks: {0: [relu]}", "2:10: blocks: expected a block's number from 1 to 6, found '0'"),
        ("extends: D\nblocks: {five: [relu]}", "2:10: blocks: expected a block's number from 1 to 6, found 'five'"),
        ("extends: D\nblocks: {5: []}", "2:13: block 5: expected a list such as [conv3-64, maxpool], found []"),
        ("extends: D\nblocks: {5: relu}", "2:13: block 5: expected a list such as [conv3-64, maxpool], found 'relu'"),
        ("extends: D\nblocks: {5: [rely]}", "2:14: unknown layer 'rely' in block 5. Did you mean 'relu'?"),
        ("blocks: {1: [relu]}", "1:9: blocks: expected a list of lists such as [conv3-64, maxpool], found {'1'"),
    ],
)
def test_a_wrong_change_of_a_block_is_told_at_its_place(text: str, message: str) -> None:
    """Which numbers there are, and what stands behind them; without a base there is nothing to change."""
    (line,) = problems(text)
    assert line.startswith(f"my.yaml:{message}")


def test_extends_merges_defaults_which_govern_the_childs_own_layers(tmp_path: Path) -> None:
    """The base's defaults hold for the child's layers, unless the child's own say otherwise; the base's layers stay."""
    (tmp_path / "base.yaml").write_text(
        "defaults: {norm: batch, conv: {bias: false, stride: 2}}\nblocks: [[conv3-8]]\nclassifier: [FC-4, FC-2]"
    )
    (tmp_path / "child.yaml").write_text(
        "extends: ./base.yaml\ndefaults: {conv: {stride: 1}, dropout: 0}\nblocks: [[conv3-4]]"
    )
    config = vggkit.load(tmp_path / "child.yaml")
    assert config.blocks[0][0].layer == Conv2d(4, bias=False)
    assert config.blocks[0][0].norm == BatchNorm()
    assert config.classifier[0].dropout == 0.5
    nothing = vggkit.loads("extends: ./base.yaml\ndefaults: null\nblocks: [[conv3-4]]", file=str(tmp_path / "x.yaml"))
    assert nothing.blocks[0][0].layer == Conv2d(4, bias=False, stride=(2, 2))
    assert "merged into those of `extends`" in schema()["properties"]["defaults"]["description"]


def test_extends_by_a_path_starts_from_the_files_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is relative to the file that says it, wherever the command runs."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "base.yaml").write_text("blocks: [[conv3-5]]")
    (tmp_path / "inner" / "middle.yaml").write_text("extends: ../base.yaml")
    (tmp_path / "inner" / "child.yaml").write_text("extends: middle.yaml\noverrides: {in_channels: 1}")
    monkeypatch.chdir(tmp_path.parent)
    config = vggkit.load(tmp_path / "inner" / "child.yaml")
    assert config.blocks[0][0].layer == Conv2d(5)
    assert config.input == (1, 224, 224)
    text = "extends: ../base.yaml"
    assert vggkit.loads(text, file=str(tmp_path / "inner" / "x.yaml")).blocks[0][0].layer == Conv2d(5)


def test_a_chain_of_extends_applies_each_files_overrides_in_turn(tmp_path: Path) -> None:
    """A → b → c: each file's overrides change what it extends, once."""
    (tmp_path / "b.yaml").write_text("extends: A\noverrides: {width: 0.5, num_classes: 10}")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\noverrides: {width: 0.5}")
    config = vggkit.load(tmp_path / "c.yaml")
    assert config.blocks[0][0].layer == Conv2d(16)
    assert [getattr(entry.layer, "out_features", None) for entry in config.classifier] == [1024, 1024, 10, None]


def test_a_cycle_is_refused_with_its_chain(tmp_path: Path) -> None:
    """a → b → a says so, at the `extends` that closes the circle."""
    (tmp_path / "a.yaml").write_text("name: a\nextends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml")
    with pytest.raises(ConfigError) as caught:
        vggkit.load(tmp_path / "a.yaml")
    assert str(caught.value).endswith("b.yaml:1:10: extends: extends itself through a.yaml → b.yaml → a.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "root:x:0:0:root:/root:/bin/bash\nnobody:x\n",
        "password: s3cret\n",
        "[s3cret",
        "- s3cret",
        "\0s3cret",
        "name: s3cret",
    ],
)
def test_a_file_that_is_no_configuration_is_not_quoted(text: str, tmp_path: Path) -> None:
    """A stranger's file names what it extends, so its lines may be secret; one line says that it is none."""
    (tmp_path / "secret.yaml").write_text(text)
    (tmp_path / "my.yaml").write_text("extends: ./secret.yaml\nblocks: [[relu]]")
    with pytest.raises(ConfigError) as caught:
        vggkit.load(tmp_path / "my.yaml")
    (problem,) = caught.value.problems
    assert problem.message == (
        f"extends: {tmp_path / 'secret.yaml'}: not a configuration; `vggkit validate` says what is wrong in a file"
    )
    assert problem.position is not None
    assert problem.position.text == "extends: ./secret.yaml"


def test_a_mistake_in_a_configuration_that_is_extended_is_shown(tmp_path: Path) -> None:
    """A file with layers is one, and its line says what is wrong with it."""
    (tmp_path / "base.yaml").write_text("blocks: [[rely]]")
    with pytest.raises(ConfigError, match=r"base\.yaml:1:11: unknown layer 'rely'"):
        vggkit.loads("extends: ./base.yaml", str(tmp_path / "my.yaml"))


def test_a_pipe_that_a_file_extends_is_refused(tmp_path: Path) -> None:
    """Rather than waited for, for ever; a pipe that the user names is read."""
    os.mkfifo(tmp_path / "pipe.yaml")
    text = "extends: ./pipe.yaml\nblocks: [[relu]]"
    for place in ("./pipe.yaml", "/dev/tty"):
        with pytest.raises(ConfigError, match=r"extends: .*: expected a file, found a pipe or a device"):
            vggkit.loads(text.replace("./pipe.yaml", place), str(tmp_path / "my.yaml"))
    Thread(target=(tmp_path / "pipe.yaml").write_text, args=("blocks: [[relu]]",), daemon=True).start()
    assert vggkit.load(tmp_path / "pipe.yaml").blocks


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    """The shortest circle."""
    (tmp_path / "a.yaml").write_text("extends: a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml:1:10: extends: extends itself through a\.yaml → a\.yaml"):
        vggkit.load(tmp_path / "a.yaml")


def test_a_long_chain_is_refused_and_does_not_crash(tmp_path: Path) -> None:
    """Three hundred files, each extending the next, end in a ConfigError, not in a RecursionError."""
    for number in range(300):
        (tmp_path / f"{number}.yaml").write_text(f"extends: ./{number + 1}.yaml")
    (tmp_path / "300.yaml").write_text("extends: D")
    with pytest.raises(ConfigError):
        vggkit.load(tmp_path / "0.yaml")


def test_a_missing_base_is_told_at_the_key() -> None:
    """A file that is not there, and a name that is not known with the nearest one that is."""
    assert problems("name: x\nextends: vg16") == [
        "my.yaml:2:10: extends: unknown configuration 'vg16'. Did you mean 'VGG16'?"
    ]
    (line,) = problems("extends: ./nowhere.yaml")
    assert line == "my.yaml:1:10: extends: nowhere.yaml: no such file"


def test_mistakes_of_a_base_are_told_in_the_base_and_the_childs_in_the_child(tmp_path: Path) -> None:
    """Each problem names the file that it stands in."""
    (tmp_path / "base.yaml").write_text("name: x\nblocks: [[convv3-64]]")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nclassifier: [FC4]")
    with pytest.raises(ConfigError) as caught:
        vggkit.load(tmp_path / "child.yaml")
    assert str(caught.value).split("\n") == [
        f"{tmp_path / 'base.yaml'}:2:11: unknown layer 'convv3-64' in block 1. Did you mean 'conv3-64'?",
        f"{tmp_path / 'child.yaml'}:2:14: unknown layer 'FC4' in the classifier. Did you mean 'FC-4'?",
    ]


def test_a_layer_of_the_base_that_does_not_fit_is_told_in_the_base(tmp_path: Path) -> None:
    """The place of a layer travels with it."""
    (tmp_path / "base.yaml").write_text("blocks: [[conv3-4, maxpool]]")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\ninput: 3x1x1")
    with pytest.raises(ConfigError, match=r"base\.yaml:1:20: block1_pool: a 2×2 pool does not fit its 1×1 input"):
        vggkit.Network.of(tmp_path / "child.yaml")


# all problems together

TEN_MISTAKES = """\
nmae: mine
aliases: D
input: 3x224
defaults: {dropuot: 0.1}
blocks:
  - [conv3-64, convv3-64, maxpol]
  - [{conv: 64, kernal: 3}, conv3-0]
  - []
classifier: [FC4096, {fc: -1}]
overrides: {widht: 2}
blocks: []
"""


def test_all_problems_of_a_file_come_together_in_order_of_their_lines() -> None:
    """Twelve mistakes in one file are twelve lines, each at its line and column."""
    assert problems(TEN_MISTAKES) == [
        "my.yaml:1:1: unknown key 'nmae'. Did you mean 'name'?",
        "my.yaml:2:10: aliases: expected a list of names, found 'D'",
        "my.yaml:3:8: input: expected channels × height × width, as in 3x224x224, found '3x224'",
        "my.yaml:4:12: defaults: unknown key 'dropuot'. Did you mean 'dropout'?",
        "my.yaml:6:16: unknown layer 'convv3-64' in block 1. Did you mean 'conv3-64'?",
        "my.yaml:6:27: unknown layer 'maxpol' in block 1. Did you mean 'maxpool'?",
        "my.yaml:7:17: conv: unknown option 'kernal'. Did you mean 'kernel'?",
        "my.yaml:7:29: conv: channels: expected a whole number from 1, found 0",
        "my.yaml:8:5: block 3: expected a list such as [conv3-64, maxpool], found []",
        "my.yaml:9:14: unknown layer 'FC4096' in the classifier. Did you mean 'FC-4096'?",
        "my.yaml:9:27: FC: units: expected a whole number from 1, found -1",
        "my.yaml:10:13: overrides: unknown override 'widht'. Did you mean 'width'?",
        "my.yaml:11:1: key 'blocks' is repeated; it was given first in line 5",
    ]


def test_a_misspelt_layer_is_told_word_for_word() -> None:
    """A misspelt convolution in block 2, at line 7, column 20."""
    blocks = "  - [conv3-64, maxpool]\n  - [   conv3-64,  convv3-64, maxpool]\n"
    text = f"# mine\nname: mine\ninput: 3x224x224\n\nblocks:\n{blocks}"
    assert problems(text) == ["my.yaml:7:20: unknown layer 'convv3-64' in block 2. Did you mean 'conv3-64'?"]


def test_a_pool_that_does_not_fit_is_told_word_for_word() -> None:
    """A pool that does not fit, at line 9, column 5, with how the maps became so small."""
    blocks = "  - [conv3-8, maxpool]\n" * 2 + "  - [{conv: 8, stride: 2}, maxpool]\n"
    text = f"name: mine\ninput: 3x16x16\nblocks:\n{blocks}  -\n    - conv3-8\n    - maxpool\n"
    with pytest.raises(ConfigError) as caught:
        vggkit.Network.of(vggkit.loads(text, file="my.yaml"))
    message = "block4_pool: a 2×2 pool does not fit its 1×1 input (3×16×16 has been halved 4 times before it)"
    assert str(caught.value) == f"my.yaml:9:7: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks: [[relu]]\ninput:", "input: expected channels × height × width"),
        ("blocks: [[{conv: 64, kernel: null}]]", "conv: kernel: expected a whole number from 1"),
        ("blocks: [[{conv: 64, bias: ~}]]", "conv: bias: expected true or false, found None"),
        ("blocks: [[{LRN: {k: null}}]]", "LRN: k: expected a number"),
        ("extends: D\noverrides: {num_classes: null}", "overrides: num_classes: expected a whole number from 1"),
        ("extends: D\noverrides: {width: null}", "overrides: width: expected a number above 0"),
    ],
)
def test_null_is_refused_where_a_value_is_needed(text: str, message: str) -> None:
    """An option without a value is a mistake, not an option that is None."""
    (line,) = problems(text)
    assert message in line
