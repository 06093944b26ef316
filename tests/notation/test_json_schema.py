"""The JSON Schema: valid itself, it accepts what `loads` accepts and refuses plain mistakes."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import vggkit
from tests.notation.test_spelling import layers, values
from vggkit.base import tables
from vggkit.notation.json_schema import schema
from vggkit.notation.layers import KINDS, Layer
from vggkit.notation.overrides import OVERRIDES
from vggkit.notation.reading import BUDGET, KEYS
from vggkit.notation.spelling import fields, spell_value
from vggkit.notation.zoo import folder

SCHEMA = schema()
JUDGE = jsonschema.Draft202012Validator(SCHEMA)


def valid(text: str) -> bool:
    """Tell whether a file's text is valid to an editor."""
    return bool(JUDGE.is_valid(json.loads(json.dumps(yaml.safe_load(text)))))  # JSON has keys of text


def test_it_is_a_valid_2020_12_schema() -> None:
    """The meta-schema says so."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_shipped_schema_is_what_the_command_prints() -> None:
    """configs/schema.json is what `vggkit schema` prints."""
    assert (folder() / "schema.json").read_text(encoding="utf-8") == tables.json(schema())


@pytest.mark.parametrize("name", vggkit.names())
def test_every_shipped_file_is_valid(name: str) -> None:
    """As written, and as `vggkit show` writes it."""
    assert valid((folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    assert valid(vggkit.dump(name))
    assert valid(vggkit.dump(vggkit.load(name, batch_norm=True, activation="gelu", dropout=0, head="gap")))


def test_every_key_override_and_limit_is_in_it() -> None:
    """A new key, override or limit of a budget is in the schema at once."""
    inside = SCHEMA["properties"]
    assert set(inside) == set(KEYS)
    assert set(inside["overrides"]["properties"]) == set(OVERRIDES)
    assert set(inside["budget"]["properties"]) == set(BUDGET)


def test_every_override_and_key_is_explained() -> None:
    """An editor shows what each of them means."""
    assert all(SCHEMA["properties"][key].get("description") for key in KEYS)
    for word, override in OVERRIDES.items():
        assert SCHEMA["properties"]["overrides"]["properties"][word]["description"] == override.meaning


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.keyword)
def test_every_kind_and_option_is_in_it(kind: type[Layer]) -> None:
    """A new layer kind, or option of one, is in the schema at once."""
    forms = SCHEMA["$defs"][f"{kind.__name__}.value"]["anyOf"]
    assert any(set(fields(kind)) <= set(form.get("properties", ())) for form in forms)
    assert {"$ref": f"#/$defs/{kind.__name__}"} in SCHEMA["$defs"]["layer"]["anyOf"]


def test_every_reference_in_it_leads_somewhere() -> None:
    """No `$ref` is dangling, and no definition is unused."""
    used = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(SCHEMA)))
    assert used == set(SCHEMA["$defs"])


FORMS = [
    "conv3-64",
    "CONV3-64",
    "conv3x1-64",
    "LRN",
    "lrn",
    "maxpool",
    "max-pool",
    "MaxPool",
    "avgpool",
    "FC-4096",
    "fc-4096",
    "soft-max",
    "softmax",
    "Soft_Max",
    "{conv: 512, kernel: 3, stride: 1, padding: 6, dilation: 6, groups: 1, bias: false, norm: batch, name: x}",
    "{maxpool: 3, stride: 1, padding: 1, ceil_mode: true}",
    "{fc: 4096, dropout: 0.5, activation: relu, bias: false}",
    "{FC: 4096, dropout: none}",
    "{conv: 8, kernel: 2x1, padding: [1, 0], stride: 2x1}",
    "{conv: {channels: 8, padding: same}, activation: none}",
    "{Conv: 8}",
    "{CONV: 8}",
    "{MaxPool: 3}",
    "batchnorm",
    "{batchnorm: {eps: 1.0e-3, affine: false}}",
    "{batchnorm: }",
    "{groupnorm: 32}",
    "{LRN: 5, alpha: 5.0e-4}",
    "{lrn: {size: 3}}",
    "relu",
    "ReLU",
    "gelu",
    "leaky-relu",
    "LeakyReLU",
    "{leaky-relu: 0.2}",
    "{leaky_relu: 0.2}",
    "{elu: 1}",
    "silu",
    "tanh",
    "sigmoid",
    "hardtanh",
    "{hardtanh: {min_val: 0, max_val: 6}}",
    "{gelu: {approximate: tanh}}",
    "dropout",
    "{dropout: 0.3}",
    "flatten",
    "{flatten: chw}",
    "{flatten: hwc}",
    "global-avgpool",
    "{global-avgpool: {}}",
    "{adaptive-avgpool: 7x7}",
    "{adaptive-avgpool: 7}",
    "{conv: 8, norm: {groupnorm: 4}, activation: {leaky-relu: 0.1}}",
    "{conv: 8, norm: group, activation: LeakyReLU}",
    "{conv: 8, norm: Batch, activation: None}",
    "{conv: 8, norm: null, activation: null}",
    "CONV3x1-64",
    "FC-10",
    "conv3-64/2",
    "Conv3x1-64/2x1",
    "log-softmax",
    "LogSoftmax",
    "{log-softmax: {}}",
    "{groupnorm: {64: 8, 128: 16}}",
    "{groupnorm: {groups: {64: 8}, affine: false}}",
    "{conv: 64, norm: {groupnorm: {64: 8}}}",
    "conv1-512",
    "{FC: 10, dropout: 0, name: last}",
    "{avgpool: 2, count_include_pad: false, divisor_override: 3}",
    "{conv: 64, kernel: 3x1, stride: [2, 1], padding: 1x0, dilation: 2x1, padding_mode: reflect}",
    "{conv: 64, norm: none, activation: null, dropout: none}",
    "{conv: 64, norm: {batchnorm: {eps: 1.0e-3, momentum: null}}, activation: gelu}",
    "{conv: 64, padding: same, norm: {groupnorm: 8}, activation: {leaky-relu: 0.2}, dropout: 0.1}",
    "{conv: {channels: 64, kernel: 5}, activation: none}",
    "{groupnorm: {groups: 4, affine: false}}",
    "{lrn: {size: 3, k: 1}}",
    "{maxpool: {kernel: 2x3, dilation: 2}}",
    "{soft-max: {}}",
    "{conv: 512, kernel: 3, stride: 1, padding: 6, dilation: 6, groups: 1, bias: false, norm: batch, name: conv6}",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_notation_is_valid_and_loads(form: str) -> None:
    """Short and long forms of the design, in the letter cases that people write; and `loads` reads them."""
    assert vggkit.loads(f"blocks: [[{form}]]")
    assert valid(f"blocks: [[{form}]]")


@pytest.mark.parametrize(
    "text",
    [
        "extends: D",
        "extends: ./base.yaml\noverrides: {num_classes: 10, batch_norm: true, width: 0.5, head: gap, pool: avg}",
        "extends: D\noverrides: {input: 3x64x64, in_channels: 1, dropout: 0, activation: none}",
        "extends: D\noverrides: {activation: {leaky-relu: 0.1}}",
        "extends: D\noverrides: {input: [3, 64, 64]}",
        "extends: D\noverrides:",
        "{blocks: [[conv3-8]], classifier: []}",
        "{extends: ./base.yaml, overrides: {num_classes: 10, width: 0.5}}",
        "{input: [3, 64, 96], blocks: [[conv3-8]], classifier: null}",
        "{name: x, aliases: [y, z], source: 'a: b', input: 1x28x28, blocks: [[conv3-8]]}",
        "extends: D\nbudget: {parameters: 140M, multiply_accumulates: 16G}",
        "extends: D\ninput: [3, 64, 64]",
        "extends: D\ninput: 3×64×64",
        "extends: D\nclassifier:",
        "extends: D\nclassifier: []",
        "classifier: [FC-10]",
        "defaults: {norm: batch, dropout: 0, activation: {elu: 0.2}, conv: {bias: false}, avgpool: {stride: 1}}\n"
        "blocks: [[conv3-8]]",
        "defaults: {FC: {bias: false}, LRN: {k: 1}, MaxPool: {stride: 1}}\nblocks: [[conv3-8]]",
        "defaults:\nblocks: [[conv3-8]]",
        "reported:\nblocks: [[conv3-8]]",
        "extends: D\nnote: what is different",
        "extends: D\nblocks: {5: [conv3-8], 6: [conv3-8, maxpool], 1: }",
        "extends: D\noverrides: {width: 0.5}",
        "extends: D\noverrides: {width: 0.5 ceil}",
        "extends: D\noverrides: {width: 1.5 floor}",
        "extends: D\noverrides: {width: 0.5 multiple of 8}",
        "reported: {parameters_in_millions: 3, single_scale: [{train: [1, 2], test: 1, top1: 2, top5: 1}]}\nextends: D",
    ],
)
def test_every_key_of_a_file_is_valid_and_loads(text: str) -> None:
    """All keys, with what may stand behind them; and `loads` reads them."""
    if "./base" not in text:
        assert vggkit.loads(text)
    assert valid(text)


WRONG_LAYERS = [
    "3",
    "FC",
    "[]",
    "adaptive-avgpool",
    "conv-64",
    "conv0-64",
    "conv3-0",
    "conv3",
    "conv3x-64",
    "convv3-64",
    "fc4096",
    "null",
    "{batchnorm: 3}",
    "{batchnorm: {eps: 0}}",
    "{conv: 0}",
    "{conv: 64, activation: rely}",
    "{conv: 64, bias: 1}",
    "{conv: 64, dropout: 1}",
    "{conv: 64, kernal: 3}",
    "{conv: 64, kernel: 0}",
    "{conv: 64, kernel: [1, 2, 3]}",
    "{conv: 64, maxpool: 2}",
    "{conv: 64, name: 'a b'}",
    "{conv: 64, norm: layer}",
    "{conv: 64, padding: valid}",
    "{conv: many}",
    "{conv: {}}",
    "{dropout: 1}",
    "{flatten: whc}",
    "{maxpool: 2, padding: same}",
    "{}",
    "FC4096",
    "{conv: 8, kernal: 3}",
    "{conv: 8, kernel: 0}",
    "{conv: 8, kernel: [1, 2, 3]}",
    "{conv: 8, bias: 1}",
    "{conv: 8, padding: valid}",
    "{conv: }",
    "{conv: 8, maxpool: 2}",
    "{fc: 3, dropout: 1}",
    "{conv: 8, norm: relu}",
    "{conv: 8, activation: batchnorm}",
    "{conv: 8, name: a b}",
    "conv3-64/0",
    "conv3-64/",
    "{groupnorm: {}, eps: 0}",
    "{groupnorm: {groups: {}}}",
    "{groupnorm: {64: 0}}",
    "{groupnorm: {64: 4, many: 2}}",
    "LSTM",
    "[conv3-64, conv1-64]",
]

WRONG_FILES = [
    "3",
    "[]",
    "{aliases: x, blocks: [[conv3-8]]}",
    "{blocks: [[]]}",
    "{blocks: [[conv3-8]], classifier: FC-10}",
    "{blocks: [[conv3-8]], defaults: {conv: {channels: 3}}}",
    "{blocks: [[conv3-8]], defaults: {convolution: {}}}",
    "{blocks: [conv3-8]}",
    "{blocks: conv3-8}",
    "{blokcs: [[conv3-8]]}",
    "{extends: D, budget: {params: 3}}",
    "{extends: D, budget: {training_peak: 3}}",
    "{extends: D, overrides: {batch_norm: 1}}",
    "{extends: D, overrides: {num_classes: 0}}",
    "{extends: D, overrides: {pool: mean}}",
    "{extends: D, overrides: {widht: 2}}",
    "{extends: D, reported: {parameters_in_millions: x}}",
    "{extends: D, reported: {single_scale: [{train: 256}]}}",
    "{input: 3x224, blocks: [[conv3-8]]}",
    "{input: [3, 0, 1], blocks: [[conv3-8]]}",
    "{name: 3, blocks: [[conv3-8]]}",
    "{name: x}",
    "{}",
    "",
    "name: x",
    "blocks: conv3-64",
    "blocks: [conv3-64]",
    "blocks: [[]]",
    "blocks: [[relu]]\ninput: 3x224",
    "blocks: [[relu]]\ninput: 3x0x1",
    "blocks: [[relu]]\ninput: [3, 0, 1]",
    "blocks: [[relu]]\ninput:",
    "blocks: [[relu]]\nname: 3",
    "blocks: [[relu]]\naliases: D",
    "blocks: [[relu]]\nnmae: x",
    "blocks: [[relu]]\nextends: 3",
    "blocks: [[relu]]\nclassifier: FC-3",
    "blocks: [[relu]]\noverrides: {widht: 2}",
    "blocks: [[relu]]\noverrides: {width: 0}",
    "blocks: [[relu]]\noverrides: {pool: mean}",
    "blocks: [[relu]]\noverrides: {num_classes: null}",
    "blocks: [[relu]]\noverrides: {activation: batchnorm}",
    "blocks: [[relu]]\ndefaults: {nrom: batch}",
    "blocks: [[relu]]\ndefaults: {conv: {channels: 3}}",
    "blocks: [[relu]]\ndefaults: {conv: 3}",
    "blocks: [[relu]]\nreported: {parameters: 3}",
    "blocks: [[relu]]\nreported: {single_scale: [{train: 1, test: 1, top1: 1}]}",
    "blocks: [[relu]]\nbudget: {parameterz: 1}",
    "blocks: {1: [relu]}",
    "extends: D\nblocks: {1: relu}",
    "extends: D\nblocks: {0: [relu]}",
    "extends: D\nblocks: {five: [relu]}",
    "extends: D\nblocks: {5: []}",
    "extends: D\noverrides: {width: 0.5 round}",
    "extends: D\noverrides: {width: 0.5 multiple of 0}",
    "extends: D\nnote: 3",
]


def refused(text: str) -> bool:
    """Tell whether `loads` refuses a text."""
    try:
        vggkit.loads(text)
    except vggkit.ConfigError:
        return True
    return False


@pytest.mark.parametrize("layer", WRONG_LAYERS)
def test_a_wrong_layer_is_neither_valid_nor_loaded(layer: str) -> None:
    """What `loads` refuses for its form, the editor marks, too."""
    assert refused(f"blocks: [[{layer}]]")
    assert not valid(f"blocks: [[{layer}]]")


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_wrong_file_is_neither_valid_nor_loaded(text: str) -> None:
    """The same for each key of a file."""
    assert refused(text)
    assert not valid(text)


@st.composite
def long_forms(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a long form of any kind, with options of any sort beside or behind the keyword."""
    kind: type[Layer] = draw(st.sampled_from(KINDS))
    options = {}
    for word, field in fields(kind).items():
        if field.required or draw(st.booleans()):
            value = spell_value(draw(values(field.type)))
            options[word] = value
    followers = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "norm": st.sampled_from(["batch", "group", "none", "batchnorm", {"groupnorm": 2}, None]),
                "activation": st.sampled_from(["relu", "LeakyReLU", "none", {"elu": 2}, {"gelu": {}}, None]),
                "dropout": st.sampled_from([0, 0.5, "none", None, False]),
                "name": st.sampled_from(["a", "conv4_3"]),
            },
        )
    )
    keyword = draw(
        st.sampled_from([kind.keyword, kind.keyword.lower(), kind.keyword.upper(), kind.keyword.replace("-", "")])
    )
    followers.pop("dropout" if kind.keyword == "dropout" else "", None)
    primary = next((word for word, field in fields(kind).items() if field.name == kind.primary), None)
    if primary in options and draw(st.booleans()):
        return {keyword: options.pop(primary), **options, **followers}
    beside = {word: options.pop(word) for word in list(options) if word != primary and draw(st.booleans())}
    return {keyword: options, **beside, **followers}


@given(long_forms())
@settings(max_examples=500, deadline=None)
def test_what_loads_accepts_of_long_forms_the_schema_accepts(form: dict[str, Any]) -> None:
    """No red line in an editor under what vggkit reads."""
    text = json.dumps({"blocks": [[form]]})
    assert vggkit.loads(text)
    errors = [error.message for error in JUDGE.iter_errors(json.loads(text))]
    assert errors == []


@given(st.lists(layers(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_dump_writes_the_schema_accepts(drawn: list[Layer]) -> None:
    """Whatever the layers, the canonical text is valid."""
    config = vggkit.Config("x", blocks=(tuple(vggkit.notation.config.Entry(layer) for layer in drawn),))
    text = vggkit.dump(config)
    vggkit.loads(text)
    assert JUDGE.is_valid(plain(text))


def plain(text: str) -> Any:
    """Return a text's values as vggkit's own reader has them: PyYAML's 1e-05 is a word."""
    from vggkit.notation.document import read

    return msgspec.to_builtins(read(text, "my.yaml", []).plain())
