"""The paper's notation, both ways: `conv3-64` ⇄ Conv2d(out_channels=64, kernel_size=(3, 3)).

An entry of a configuration is a short form (`conv3-64`, `maxpool`, `FC-4096`) or a long one, a mapping from the
layer's keyword to its primary field with options beside it (`{conv: 512, kernel: 3, dilation: 6}`). Either may leave
out options, so parsing gives a `Spec`: the kind, and the options that were given. The long form of every kind follows
from its class; only short forms with numbers in them are listed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from vggkit.base.errors import ELSEWHERE, Fault, NotationError, did_you_mean, shorten
from vggkit.notation.layers import (
    KINDS,
    LARGEST,
    Allowed,
    Conv2d,
    CountByWidth,
    Layer,
    Linear,
    Padding,
    PaddingOrSame,
    Rate,
    Size,
)


class ShortForm(NamedTuple):
    """A short form with numbers in it.

    Args:
        kind: what it stands for.
        fields: the fields that its numbers give, in order.
        spelling: the canonical spelling, with a place for each field.
    """

    kind: type[Layer]
    fields: tuple[str, ...]
    spelling: str

    def match(self, text: str) -> re.Match[str] | None:
        """Find the fields' values in a text of this form, in any letter case."""
        types = {field.name: field.type for field in fields(self.kind).values()}
        values = (_SIZE if types[name] is Size else _NUMBER for name in self.fields)
        return re.fullmatch(self.spelling.format(*values), text, re.IGNORECASE)


_NUMBER = r"([0-9]{1,19})"
_SIZE = r"([0-9]{1,19}(?:x[0-9]{1,19})?)"

SHORT_FORMS = (
    ShortForm(Conv2d, ("kernel_size", "out_channels"), "conv{}-{}"),
    ShortForm(Conv2d, ("kernel_size", "out_channels", "stride"), "conv{}-{}/{}"),
    ShortForm(Linear, ("out_features",), "FC-{}"),
)
"""The first form of a kind has the fewest fields."""

FOLLOWERS = ("norm", "activation", "dropout")
"""What can follow any layer, in this order, as an option of its long form."""

_NORM_NAMES = {"batch": "batchnorm", "group": "groupnorm"}


class Spec(NamedTuple):
    """The options that an entry gives; the rest comes from defaults.

    Args:
        kind: the layer's kind.
        fields: its options, by the field's name.
        followers: what follows it: norm and activation (a layer or None) and dropout (a rate).
        name: the name that the entry gives it.
    """

    kind: type[Layer]
    fields: dict[str, Any]
    followers: dict[str, Any]
    name: str | None = None

    def layer(self) -> Layer:
        """Return the layer, with the paper's defaults for the other options."""
        return self.kind(**self.fields)


def _plain_word(word: str) -> str:
    return re.sub("[-_ ]", "", word).lower()


_KINDS = {_plain_word(kind.keyword): kind for kind in KINDS}
_FIELDS: dict[type[Layer], dict[str, msgspec.structs.FieldInfo]] = {}


def fields(kind: type[Layer]) -> dict[str, msgspec.structs.FieldInfo]:
    """Return a kind's fields by the word that the notation uses for each."""
    if kind not in _FIELDS:
        _FIELDS[kind] = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    return _FIELDS[kind]


def kind_of(word: str) -> type[Layer] | None:
    """Return the kind that a keyword names; letter case and hyphens don't matter.

    >>> kind_of("softmax").__name__
    'Softmax'
    """
    return _KINDS.get(_plain_word(word))


def parse(entry: object) -> Spec:
    """Read an entry, short or long.

    Args:
        entry: a string, or a mapping as YAML gives it.

    Returns:
        Its kind and options.

    Raises:
        NotationError: with everything that is wrong with it.

    >>> parse("conv3-64").layer().output_shape((3, 224, 224))
    (64, 224, 224)
    """
    if isinstance(entry, str):
        return _parse_short(entry)
    if isinstance(entry, Mapping) and all(isinstance(key, str) for key in entry):
        return _parse_long(entry)
    if isinstance(entry, list) and len(entry) > 1:
        raise NotationError(_no_chain("a list inside a list is a branch"))
    raise NotationError(Fault((), f"expected a layer such as conv3-64, found {shorten(entry)}"))


def _parse_short(text: str) -> Spec:
    for form in SHORT_FORMS:
        if match := form.match(text.strip()):
            said = zip(form.fields, match.groups())
            words = {field.name: word for word, field in fields(form.kind).items()}
            return _checked(form.kind, {words[name]: _number_or_pair(value) for name, value in said})
    kind = kind_of(text)
    if kind is None:
        raise NotationError(_beyond_a_chain(text) or Fault((), f"unknown layer {shorten(text)}", _advice(text)))
    return _checked(kind, {})


_BEYOND_A_CHAIN = {
    "a skip": "skip shortcut residual identity add sum resblock basicblock bottleneck from",
    "a branch": "branch branches concat concatenate cat merge split parallel inception fire denseblock upstream",
    "a recurrent layer": "rnn lstm blstm bilstm gru bgru bigru convlstm recurrent",
    "unpooling": "unpool unpooling maxunpool upsample upsampling deconv deconvolution convtranspose transposedconv",
}
"""What people may look for but a chain of layers can't have, and their words for it."""


def _beyond_a_chain(word: str, path: tuple[str, ...] = ()) -> Fault | None:
    """Return the fault of a word that names something a chain of layers can't have; None for any other word."""
    plain = re.sub("[^a-z].*", "", _plain_word(word), flags=re.DOTALL)
    found = next((what for what, words in _BEYOND_A_CHAIN.items() if plain in words.split()), None)
    return _no_chain(f"{shorten(word)} is {found}", path) if found else None


def _no_chain(what: str, path: tuple[str, ...] = ()) -> Fault:
    message = f"a network here is a chain, each layer feeding only the next, and {what}"
    return Fault(path, message, " Write the chain up to it as a network of its own", at_key=bool(path))


def _advice(text: str) -> str:
    known = [*(kind.keyword for kind in KINDS if not _required(kind)), *_respelt(text)]
    word = re.match("[a-z]*(?:[123]d)?", text, re.IGNORECASE)
    called = ELSEWHERE.get(word[0].lower(), word[0]) + text[word.end() :] if word else text
    return did_you_mean(called, known) or " A layer reads like conv3-64, maxpool or FC-4096"


def _respelt(text: str) -> list[str]:
    """Return the short forms with the numbers of a misspelt one; a convolution that has one number is 3×3.

    What several numbers in a call such as `Conv2d(3, 64, 3)` mean depends on the tool, so nothing is guessed.
    """
    numbers = re.findall(r"[0-9]{1,19}", re.sub("[123]d", "", text, flags=re.IGNORECASE))
    if "(" in text and len(numbers) > 1:
        return []
    forms = [form.spelling.format(*numbers) for form in SHORT_FORMS if len(form.fields) == len(numbers)]
    return [*forms, *(SHORT_FORMS[0].spelling.format(3, number) for number in numbers if len(numbers) == 1)]


def describe(layer: Layer) -> str:
    """Write a layer on one line for people: its short form, then what differs from the paper's defaults.

    >>> describe(Conv2d(512, 3, padding=6, dilation=6))
    'conv3-512, padding 6, dilation 6'
    """
    form = next((form for form in SHORT_FORMS if form.kind is type(layer)), None)
    head = form.spelling.format(*(spell_value(getattr(layer, name)) for name in form.fields)) if form else layer.keyword
    changed = {
        word: getattr(layer, field.name)
        for word, field in fields(type(layer)).items()
        if getattr(layer, field.name) != field.default and not (form and field.name in form.fields)
    }
    parts = [head]
    for word, value in changed.items():
        if fields(type(layer))[word].name == layer.primary:
            parts[0] += f" {spell_value(value)}"
        elif isinstance(value, bool):
            parts.append(word if value else f"no {word}")
        else:
            parts.append(f"{word} {spell_value(value)}")
    return ", ".join(parts)


def _number_or_pair(text: str) -> Any:
    return int(text) if text.isdigit() else text


def _required(kind: type[Layer]) -> list[str]:
    return [word for word, field in fields(kind).items() if field.required]


def parse_options(kind: type[Layer], options: Mapping[str, Any]) -> Spec:
    """Read options of a kind in `defaults`. Those that a layer must give itself, and its name, are refused.

    Raises:
        NotationError: with everything that is wrong with them.
    """
    single = [word for word in options if word in (*_required(kind), "name")]
    faults = [Fault((word,), f"{kind.keyword}: {word} can't have a default", at_key=True) for word in single]
    try:
        spec = _checked(kind, {word: value for word, value in options.items() if word not in single}, partly=True)
    except NotationError as error:
        faults += error.faults
    if faults:
        raise NotationError(*faults)
    return spec


def _parse_long(entry: Mapping[str, Any]) -> Spec:
    keyword, kind = _keyword(entry)
    options = dict(entry)
    primary = options.pop(keyword)
    inner: tuple[str, ...] = ()
    if isinstance(primary, Mapping) and not _is_table(primary):
        inner, options = tuple(primary), {**options, **primary}
        if twice := [word for word in primary if word in entry]:
            message = f"{keyword}: {shorten(twice[0])} is given twice, inside it and beside it"
            raise NotationError(Fault((twice[0],), message, at_key=True))
    elif primary is not None:
        if kind.primary is None:
            words = ", ".join(fields(kind)) or "none"
            raise NotationError(
                Fault((keyword,), f"{keyword}: expected a mapping of its options ({words}), found {shorten(primary)}")
            )
        word = next(word for word, field in fields(kind).items() if field.name == kind.primary)
        if word in options:
            message = f"{keyword}: {word} is given twice, as the value of {keyword} and beside it"
            raise NotationError(Fault((word,), message, at_key=True))
        options = {word: primary, **options}
        return _checked(kind, options, {word: (keyword,)})
    return _checked(kind, options, {word: (keyword, word) for word in inner})


def _keyword(entry: Mapping[str, Any]) -> tuple[str, type[Layer]]:
    found = {key: kind for key in entry if (kind := kind_of(key))}
    if len(found) > 1:  # dropout is a layer of its own and an option of others
        found = {key: kind for key, kind in found.items() if not kind.is_dropout}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        raise NotationError(Fault((list(found)[1],), f"two layers in one entry: {' and '.join(found)}", at_key=True))
    first = next(iter(entry), "")
    if beyond := _beyond_a_chain(first, (first,)):
        raise NotationError(beyond)
    message = f"no layer in this entry: expected a key such as conv, maxpool or fc, found {shorten(first)}"
    advice = did_you_mean(first, [kind.keyword for kind in KINDS])
    raise NotationError(Fault((first,), message, advice, at_key=True))


def _checked(
    kind: type[Layer],
    options: Mapping[str, Any],
    paths: Mapping[str, tuple[str, ...]] | None = None,
    *,
    partly: bool = False,
) -> Spec:
    """Check every option of an entry and type it.

    Args:
        kind: the layer's kind.
        options: as they were found, by the notation's words.
        paths: where an option is in the entry, if not under its own word.
        partly: whether required options may be missing.
    """
    known, paths = fields(kind), paths or {}
    faults: list[Fault] = []
    said: dict[str, Any] = {}
    followers: dict[str, Any] = {}
    name: str | None = None
    for word, value in options.items():
        path = paths.get(word, (word,))
        try:
            if word in known:
                said[known[word].name] = typed(value, known[word].type)
            elif word in FOLLOWERS:
                followers[word] = _follower(word, value)
            elif word == "name":
                name = _layer_name(value)
            elif beyond := _beyond_a_chain(word, path):
                faults.append(beyond)
            else:
                every = [*known, *FOLLOWERS, "name"]
                advice = did_you_mean(word, every) or f" Known: {', '.join(every)}"
                faults.append(Fault(path, f"{kind.keyword}: unknown option {shorten(word)}", advice, at_key=True))
        except (ValueError, msgspec.ValidationError) as error:
            faults.append(Fault(path, f"{kind.keyword}: {word}: {error}"))
    missing = [] if partly else [word for word in _required(kind) if word not in options]
    faults += [Fault((), f"{kind.keyword}: {word} is missing, as in {_example(kind)}") for word in missing]
    if faults:
        raise NotationError(*faults)
    return Spec(kind, said, followers, name)


def _example(kind: type[Layer]) -> str:
    form = next((form for form in SHORT_FORMS if form.kind is kind), None)
    return form.spelling.format(*("3", "64")[-len(form.fields) :]) if form else f"{{{kind.keyword}: 7x7}}"


def typed(value: Any, kind: Any) -> Any:
    """Turn a plain value into a field's type. A size may be one number or height × width; a table is a mapping.

    Raises:
        ValueError: says what was found and what was expected.
    """
    allowed = allowed_values(kind)
    raw = value
    if kind in (Size, Padding, PaddingOrSame):
        raw = size(value)
    elif kind is CountByWidth:
        raw = table(value)
    try:
        result = msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        raise ValueError(f"expected {allowed.description}, found {shorten(value)}") from None
    if not allowed.admits(result):
        limit = f" to {LARGEST:.0e}" if isinstance(value, (int, float)) and value > LARGEST else ""
        raise ValueError(f"expected {allowed.description}{limit}, found {shorten(value)}")
    return result


def allowed_values(kind: Any) -> Allowed:
    """Return the allowed values that a field's type is annotated with."""
    allowed: Allowed = kind.__metadata__[0]
    return allowed


def size(value: Any) -> Any:
    """Return [height, width] of `3`, `3x1` or `[3, 1]`, and anything else as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, value]
    if isinstance(value, str) and (match := re.fullmatch(rf"{_NUMBER}[x×]{_NUMBER}", value, re.IGNORECASE)):
        return [int(part) for part in match.groups()]
    return value


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(re.fullmatch(_NUMBER, str(key)) for key in value)


def table(value: Any) -> Any:
    """Return the sorted pairs of `{64: 4, 128: 8}`, a number as it is, and None of anything else."""
    if not _is_table(value):
        return value if isinstance(value, int) else None
    return sorted(([int(key), number] for key, number in value.items()), key=lambda row: row[0])


def _follower(word: str, value: Any) -> Any:
    if word == "dropout":
        return typed(0 if value in (None, "none", False) else value, Rate)
    return parse_follower(word, value)


def parse_follower(role: str, value: Any) -> Layer | None:
    """Read the value of the option `norm` or `activation`.

    Args:
        role: "norm" or "activation".
        value: a name, a long form, or "none".

    Raises:
        ValueError: says what was found and what was expected.
    """
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    known = [kind.keyword for kind in KINDS if kind.role == role]
    choices = ", ".join([*(_NORM_NAMES if role == "norm" else known), "none"])
    if isinstance(value, str):
        value = _NORM_NAMES.get(value.lower(), value)
    if not isinstance(value, (str, Mapping)):
        raise ValueError(f"expected one of {choices}, found {shorten(value)}")
    try:
        spec = parse(value)
    except NotationError as error:
        if isinstance(value, str):
            raise ValueError(f"expected one of {choices}, found {shorten(value)}") from None
        raise ValueError("; ".join(fault.told() for fault in error.faults)) from None
    if spec.kind.role != role or spec.followers or spec.name:
        raise ValueError(f"expected one of {choices}, found {shorten(value)}")
    return spec.layer()


def _layer_name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", value) and value not in RESERVED_NAMES:
        return value
    if isinstance(value, str) and value in RESERVED_NAMES:
        raise ValueError(f"{value} is a method of the torch module; choose another name")
    raise ValueError(f"expected a name of letters, digits and _, such as conv4_3, found {shorten(value)}")


RESERVED_NAMES = frozenset(
    """
    report apply_remedy checkpoint ends_in_softmax fold_batch_norm layers frozen unfreeze
    T_destination add_module append apply bfloat16 buffers call_super_init children compile config cpu
    cuda double dump_patches eval extend extra_repr float forward forward_features freeze get_buffer
    get_extra_state get_parameter get_submodule half insert ipu load_state_dict modules mtia
    named_buffers named_children named_modules named_parameters network parameters pop
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
    register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook
    register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state_dict to
    to_empty train training type xpu zero_grad
    """.split()  # noqa: SIM905  # one word per name reads better than 60 quoted ones
)
"""Names that a torch module needs for itself, so that no layer can have them."""


def spell(layer: Layer, default: Layer | None = None, **others: Any) -> str | dict[str, Any]:
    """Write a layer in the shortest canonical form.

    Args:
        layer: the layer.
        default: a layer of the same kind; options that equal its own are left out. The paper's defaults if absent.
        others: further options to write (norm, activation, dropout, name).

    Returns:
        A string, or a mapping for YAML.

    >>> spell(Conv2d(64, 3)), spell(Conv2d(64, 3, stride=2)), spell(Conv2d(64, 3, bias=False))
    ('conv3-64', 'conv3-64/2', {'conv': 64, 'bias': False})
    """
    kind = type(layer)
    known = fields(kind)
    unsaid = {word: getattr(default, field.name) if default else field.default for word, field in known.items()}
    said = {word: getattr(layer, field.name) for word, field in known.items()}
    changed = {word: value for word, value in said.items() if known[word].required or value != unsaid[word]}
    if not others and not changed:
        return kind.keyword
    for form in SHORT_FORMS:
        if not others and form.kind is kind and {known[word].name for word in changed} <= set(form.fields):
            return form.spelling.format(*(spell_value(getattr(layer, name)) for name in form.fields))
    return _spell_long(kind, said, changed, others)


def _spell_long(
    kind: type[Layer], said: dict[str, Any], changed: dict[str, Any], others: dict[str, Any]
) -> dict[str, Any]:
    values = {word: spell_value(value) for word, value in changed.items()}
    primary = next((word for word, field in fields(kind).items() if field.name == kind.primary), None)
    if primary is None:
        return {kind.keyword: values, **others}
    values.pop(primary, None)
    return {kind.keyword: spell_value(said[primary]), **values, **others}


def spell_value(value: Any) -> Any:
    """Write an option's value: a size with equal sides as one number, another as height × width, pairs as a table.

    >>> spell_value((3, 3)), spell_value((3, 1)), spell_value(((64, 4), (128, 8)))
    (3, '3x1', {64: 4, 128: 8})
    """
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, tuple):
        return value[0] if value[0] == value[1] else f"{value[0]}x{value[1]}"
    return value
