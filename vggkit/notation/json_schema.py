"""The configuration file as a JSON Schema, derived from the layer classes, for editors and for checks.

`msgspec.json.schema` can't do this, since it describes the classes and not the file. It doesn't know the short forms
(`conv3-64`, `3x1`), keywords in any letter case, or the bounds, which are in `Allowed` and not in `msgspec.Meta`. And
it refuses fields whose type is a class of ours.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from vggkit.base.numbers import parse_count
from vggkit.notation.config import CPU, CUDA
from vggkit.notation.layers import KINDS, CountByWidth, Layer, Padding, PaddingOrSame, Size
from vggkit.notation.overrides import OVERRIDES
from vggkit.notation.preprocess import CHANNELS, INTERPOLATIONS, LARGEST_SIDE, PRESETS
from vggkit.notation.reading import BUDGET, device, peak_limit
from vggkit.notation.spelling import FOLLOWERS, SHORT_FORMS, allowed_values, fields

SIZE_PATTERN = "^[1-9][0-9]*[xX×][1-9][0-9]*$"
PADDING_PATTERN = "^[0-9]+[xX×][0-9]+$"
NAME_SCHEMA = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,63}$"}


def schema() -> dict[str, Any]:
    """Return the schema of a configuration file (JSON Schema 2020-12)."""
    block = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/layer"}}
    blocks = {"type": "array", "items": block}
    changed_blocks = {
        "type": "object",
        "patternProperties": {"^[1-9][0-9]*$": {"anyOf": [block, {"type": "null"}]}},
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vggkit configuration",
        "description": "A VGG network in the notation of Simonyan & Zisserman's Table 1.",
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": [key]} for key in ("blocks", "classifier", "extends")],
        "dependentSchemas": {"blocks": {"anyOf": [{"required": ["extends"]}, {"properties": {"blocks": blocks}}]}},
        "properties": {
            "name": {"type": "string", "description": "what it is called; the file's name if absent"},
            "aliases": {"type": "array", "items": {"type": "string"}, "description": "other names that find it"},
            "source": {"type": "string", "description": "where it comes from"},
            "note": {"type": "string", "description": "what is different about it"},
            "extends": {"type": "string", "description": "a name or relative path of the configuration to start from"},
            "input": {"$ref": "#/$defs/input", "description": "channels × height × width of one image"},
            "defaults": _defaults(),
            "blocks": {
                "description": "a list of layers per block; or with `extends`, by number, only the blocks that differ",
                "anyOf": [blocks, changed_blocks],
            },
            "classifier": {
                "description": "the layers after the blocks; none for a trunk",
                "type": ["array", "null"],
                "items": {"$ref": "#/$defs/layer"},
            },
            "preprocess": _preprocess(),
            "overrides": {
                "description": "changes to what is extended or written here",
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {word: {"description": o.meaning, **o.schema} for word, o in OVERRIDES.items()},
            },
            "reported": _reported(),
            "budget": _budget(),
        },
        "$defs": {
            "layer": {"anyOf": [_short(), *({"$ref": f"#/$defs/{kind.__name__}"} for kind in KINDS)]},
            "input": _input(),
            "norm": _follower("norm", "batch", "group", "none"),
            "activation": _follower("activation", "none"),
            **{kind.__name__: _long(kind) for kind in KINDS},
            **{f"{kind.__name__}.value": _behind_keyword(kind) for kind in KINDS},
        },
    }


def _preprocess() -> dict[str, Any]:
    side = {"type": "integer", "minimum": 1, "maximum": LARGEST_SIDE}
    sides = {"anyOf": [side, {"type": "string", "pattern": SIZE_PATTERN}, {"type": "null"}]}
    numbers = {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}, {"type": "null"}]}
    options = {
        "resize": {"description": "the shorter side, or the exact height × width", **sides},
        "crop": {"description": "height × width cut from the centre", **sides},
        "scale": {"description": "values from 0 to 255 are divided by it", "type": ["number", "null"]},
        "mean": {"description": "subtracted from each channel", **numbers},
        "std": {"description": "divides each channel", **numbers},
        "colour": {"enum": [*CHANNELS, None]},
        "interpolation": {"enum": [*INTERPOLATIONS, None]},
    }
    return {
        "description": "how a picture becomes the input",
        "anyOf": [
            {"enum": [*PRESETS, None]},
            {"type": "object", "additionalProperties": False, "properties": options},
        ],
    }


def _any_case(word: str) -> str:
    """Return a pattern that matches a word in any letter case, with or without hyphens."""
    letters = (f"[{char.lower()}{char.upper()}]" if char.isalpha() else char for char in word if char != "-")
    return "[-_ ]?".join(letters)


def _required(kind: type[Layer]) -> list[str]:
    return [word for word, field in fields(kind).items() if field.required]


def _short() -> dict[str, Any]:
    size, number = "[1-9][0-9]*(x[1-9][0-9]*)?", "[1-9][0-9]*"
    numbered = []
    for form in SHORT_FORMS:
        types = {field.name: field.type for field in fields(form.kind).values()}
        parts = [size if types[name] is Size else number for name in form.fields]
        word, *rest = form.spelling.split("{}")
        numbered.append("".join(f"{glue}{part}" for glue, part in zip((_letters(word), *rest), parts)))
    bare = [_any_case(kind.keyword) for kind in KINDS if not _required(kind)]
    return {
        "description": "a layer in the paper's notation",
        "type": "string",
        "pattern": f"^({'|'.join([*numbered, *bare])})$",
        "examples": ["conv3-64", "maxpool", "FC-4096", "soft-max"],
    }


def _letters(word: str) -> str:
    return "".join(f"[{char.lower()}{char.upper()}]" if char.isalpha() else char for char in word)


def _options(kind: type[Layer]) -> dict[str, Any]:
    return {word: _value(field.type) for word, field in fields(kind).items()}


def _behind() -> dict[str, Any]:
    """Return the options for what follows a layer."""
    return {
        "norm": {"$ref": "#/$defs/norm"},
        "activation": {"$ref": "#/$defs/activation"},
        "dropout": {
            "anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1}, {"enum": ["none", None, False]}]
        },
    }


def _long(kind: type[Layer]) -> dict[str, Any]:
    inside = {word: schema for word, schema in _options(kind).items() if word != _primary(kind)}
    beside = {**_behind(), "name": NAME_SCHEMA}
    beside.pop(kind.keyword.lower(), None)  # dropout is a layer of its own and an option of others
    keyword = f"^{_any_case(kind.keyword)}$"
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n")[0],
        "additionalProperties": False,
        "not": {"propertyNames": {"not": {"pattern": keyword}}},  # one of the keys is the keyword
        "patternProperties": {keyword: {"$ref": f"#/$defs/{kind.__name__}.value"}},
        "properties": {**inside, **beside},
    }


def _primary(kind: type[Layer]) -> str | None:
    return next((word for word, field in fields(kind).items() if field.name == kind.primary), None)


def _behind_keyword(kind: type[Layer]) -> dict[str, Any]:
    """Return the values that a kind's keyword may have: its primary field, or a mapping of all its options."""
    options, primary = _options(kind), _primary(kind)
    mapping = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**options, **_behind(), "name": NAME_SCHEMA},
        **({"required": required} if (required := _required(kind)) else {}),
    }
    head = [options[primary]] if primary else []
    return {"anyOf": [*head, mapping, *([] if _required(kind) else [{"type": "null"}])]}


def _value(kind: Any) -> dict[str, Any]:
    allowed = allowed_values(kind)
    schema: dict[str, Any] = {"description": allowed.description}
    if kind in (Size, Padding, PaddingOrSame):
        least = 1 if kind is Size else 0
        sizes: list[dict[str, Any]] = [
            {"type": "integer", "minimum": least},
            {"type": "string", "pattern": SIZE_PATTERN if kind is Size else PADDING_PATTERN},
            {"type": "array", "items": {"type": "integer", "minimum": least}, "minItems": 2, "maxItems": 2},
        ]
        return {**schema, "anyOf": [*sizes, *([{"const": "same"}] if kind is PaddingOrSame else [])]}
    if kind is CountByWidth:
        count = {"type": "integer", "minimum": 1}
        rows = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[1-9][0-9]*$"}}
        return {**schema, "anyOf": [count, {**rows, "additionalProperties": count}]}
    inner = kind.__origin__
    if get_origin(inner) is Literal:
        return {**schema, "enum": list(get_args(inner))}
    types = [_JSON_TYPES[part] for part in (get_args(inner) or (inner,))]
    bounds = {
        "minimum": allowed.minimum,
        "exclusiveMinimum": allowed.above,
        "exclusiveMaximum": allowed.below,
        "maximum": allowed.maximum,
    }
    schema["type"] = types[0] if len(types) == 1 else types
    return {**schema, **{word: bound for word, bound in bounds.items() if bound is not None}}


_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _follower(role: str, *words: str) -> dict[str, Any]:
    """Return the values that the option `norm` or `activation` may have."""
    kinds = [kind for kind in KINDS if kind.role == role]
    named = "|".join([*map(_letters, words), *(_any_case(kind.keyword) for kind in kinds)])
    return {
        "anyOf": [
            {"type": "string", "pattern": f"^({named})$"},
            {"type": "null"},
            *({"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds),
        ]
    }


def _input() -> dict[str, Any]:
    size = "[1-9][0-9]*"
    return {
        "description": "channels × height × width of one image",
        "anyOf": [
            {"type": "string", "pattern": f"^ *{size}[xX×]{size}[xX×]{size} *$"},
            {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 3, "maxItems": 3},
        ],
    }


def _defaults() -> dict[str, Any]:
    kinds = {}
    for kind in KINDS:
        options = {word: schema for word, schema in _options(kind).items() if word not in _required(kind)}
        behind = _behind()
        mapping = {"type": "object", "additionalProperties": False, "properties": {**options, **behind}}
        keyword = _any_case(kind.keyword)
        # in the defaults, the key dropout is the rate after FC layers, and not the layer
        if not kind.is_dropout:
            kinds[f"^{keyword}$"] = mapping
    return {
        "description": "options that the layers of this file need not repeat; merged into those of `extends`",
        "type": ["object", "null"],
        "additionalProperties": False,
        "patternProperties": kinds,
        "properties": {word: value for word, value in _behind().items() if word in FOLLOWERS},
    }


def _budget() -> dict[str, Any]:
    count = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9.]+ ?[kKmMgGtT]?$"}]}
    peak = {"type": "string", "pattern": "^[0-9.]+ ?[a-zA-Z]+( at batch [0-9]+)?$"}
    where = {"enum": [CPU, CUDA], "description": "where memory is meant: reserved on a card (cuda), or tensors (cpu)"}
    kinds: dict[Any, dict[str, Any]] = {parse_count: count, peak_limit: peak, device: where}
    limits = {word: kinds[read] for word, read in BUDGET.items()}
    return {
        "description": "the most that the network may cost; `vggkit validate` checks it",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": limits,
    }


def _reported() -> dict[str, Any]:
    side = {"type": "integer", "minimum": 1}
    percent = {"type": "number", "minimum": 0, "maximum": 100}
    row = {
        "train": {"anyOf": [side, {"type": "array", "items": side, "minItems": 2, "maxItems": 2}]},
        "test": side,
        "top1": percent,
        "top5": percent,
    }
    return {
        "description": "figures that a publication gives for this network",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "parameters_in_millions": {"type": "integer", "minimum": 1, "description": "the paper's Table 2"},
            "single_scale": {
                "description": "the paper's Table 3: sides of training and test images, errors in percent",
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": list(row),
                    "properties": row,
                },
            },
        },
    }
