"""Random small networks as YAML text, with every layer kind and option, valid by a walk over their shapes.

The walk asks vggkit's own rules whether an entry fits, only to leave out what does not; what the tests hold the rules
against is torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

import vggkit
from vggkit.base.errors import LayerError
from vggkit.notation import spelling as notation
from vggkit.notation.config import Config, Defaults
from vggkit.notation.layers import Layer, Linear, Shape, elements

Options = dict[str, Any]
Written = str | Options


def pairs(low: int, high: int) -> SearchStrategy[Any]:
    """Draw a size as the notation has it: a number, or height × width."""
    side = st.integers(low, high)
    return st.one_of(side, st.builds("{}x{}".format, side, side))


flags = st.booleans()
slopes = st.sampled_from([-0.5, 0.0, 0.01, 0.2, 1.0])

TABLE = {1: 1, 2: 2, 3: 1, 4: 2, 6: 3, 12: 4}
"""Groups by the number of channels."""

OPTIONS: dict[str, dict[str, SearchStrategy[Any]]] = {
    "conv": {
        "kernel": pairs(1, 4),
        "stride": pairs(1, 2),
        "padding": st.one_of(st.just("same"), pairs(0, 2)),
        "dilation": pairs(1, 2),
        "groups": st.integers(1, 2),
        "bias": flags,
        "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    },
    "maxpool": {
        "kernel": pairs(1, 3),
        "stride": pairs(1, 3),
        "padding": pairs(0, 1),
        "dilation": pairs(1, 2),
        "ceil_mode": flags,
    },
    "avgpool": {
        "kernel": pairs(1, 3),
        "stride": pairs(1, 3),
        "padding": pairs(0, 1),
        "ceil_mode": flags,
        "count_include_pad": flags,
        "divisor_override": st.one_of(st.none(), st.integers(1, 5)),
    },
    "adaptive-avgpool": {"size": pairs(1, 5)},
    "global-avgpool": {},
    "LRN": {
        "size": st.integers(1, 5),
        "alpha": st.sampled_from([1e-4, 0.5]),
        "beta": st.sampled_from([0.5, 0.75]),
        "k": st.sampled_from([1.0, 2.0]),
    },
    "batchnorm": {
        "eps": st.sampled_from([1e-5, 1e-3]),
        "momentum": st.sampled_from([None, 0.0, 0.1, 1.0]),
        "affine": flags,
        "track_running_stats": flags,
    },
    "groupnorm": {
        "groups": st.sampled_from([1, 1, 2, 3, TABLE]),
        "eps": st.sampled_from([1e-5, 1e-3]),
        "affine": flags,
    },
    "relu": {"inplace": flags},
    "leaky-relu": {"negative_slope": slopes, "inplace": flags},
    "elu": {"alpha": slopes, "inplace": flags},
    "silu": {"inplace": flags},
    "hardtanh": {
        "min_val": st.sampled_from([-2.0, -0.5, 0.0]),
        "max_val": st.sampled_from([0.25, 1.5]),
        "inplace": flags,
    },
    "gelu": {"approximate": st.sampled_from(["none", "tanh"])},
    "tanh": {},
    "sigmoid": {},
    "dropout": {"p": st.sampled_from([0.0, 0.25, 0.5])},
    "flatten": {"order": st.sampled_from(["chw", "hwc"])},
    "FC": {"bias": flags},
    "soft-max": {},
    "log-softmax": {},
}
"""What is drawn for every option of every kind; the output's width is drawn apart."""

REQUIRED: dict[str, dict[str, SearchStrategy[Any]]] = {
    "conv": {"channels": st.sampled_from([1, 2, 3, 4, 6])},
    "FC": {"units": st.integers(1, 6)},
    "adaptive-avgpool": OPTIONS["adaptive-avgpool"],
}
"""The options that can't stay unsaid."""

KINDS = {kind.keyword: kind for kind in vggkit.notation.layers.KINDS}
ACTIVATIONS = [word for word, kind in KINDS.items() if kind.role == "activation"]
NORMS = [word for word, kind in KINDS.items() if kind.role == "norm"]


def some(options: dict[str, SearchStrategy[Any]]) -> SearchStrategy[Options]:
    """Draw a few of a kind's options; those that can't stay unsaid are not among them."""
    return st.fixed_dictionaries({}, optional=options)


def long_form(keyword: str) -> SearchStrategy[Options]:
    """Draw `{keyword: {option: …}}`."""
    options = {word: values for word, values in OPTIONS[keyword].items() if word not in REQUIRED.get(keyword, {})}
    drawn = st.fixed_dictionaries(REQUIRED.get(keyword, {}), optional=options)
    return drawn.map(lambda said: {keyword: said})


def follower(keywords: Sequence[str]) -> SearchStrategy[Written]:
    """Draw what may stand behind `activation:` or `norm:`."""
    return st.one_of(st.just("none"), st.sampled_from(keywords), st.sampled_from(keywords).flatmap(long_form))


FOLLOWERS: dict[str, SearchStrategy[Any]] = {
    "norm": follower(NORMS),
    "activation": follower(ACTIVATIONS),
    "dropout": st.sampled_from([0, 0.25]),
}


@st.composite
def flat_form(draw: DrawFn, keyword: str) -> Options:
    """Draw `{conv: 4, option: …, activation: …}`: options beside the keyword, with followers."""
    said: Options = draw(long_form(keyword))[keyword]
    known = notation.fields(KINDS[keyword])
    primary = next((word for word, field in known.items() if field.name == KINDS[keyword].primary), None)
    value = said.pop(primary, None) if primary else None
    return {keyword: value, **said, **draw(some(FOLLOWERS))}


@st.composite
def short_form(draw: DrawFn, keyword: str) -> Written:
    """Draw `conv3-64`, `FC-10` or a bare keyword, in any letter case."""
    if keyword == "conv":
        stride = draw(st.just("") | pairs(1, 2).map("/{}".format))
        word = draw(st.sampled_from(["conv", "Conv", "CONV"]))
        return f"{word}{draw(pairs(1, 3))}-{draw(st.integers(1, 6))}{stride}"
    if keyword == "FC":
        text = f"FC-{draw(st.integers(1, 6))}"
    elif keyword in REQUIRED:
        return draw(long_form(keyword))
    else:
        text = keyword
    return draw(st.sampled_from([text, text.lower(), text.upper()]))


def entries(keywords: Sequence[str]) -> SearchStrategy[Written]:
    """Draw an entry of one of these kinds in one of its forms."""
    return st.sampled_from(keywords).flatmap(
        lambda keyword: st.one_of(short_form(keyword), long_form(keyword), flat_form(keyword))
    )


POOLS = ["maxpool", "avgpool"]
MAPS = [
    *["conv"] * 5,
    *POOLS * 3,
    *NORMS * 2,
    "adaptive-avgpool",
    "LRN",
    "dropout",
    "soft-max",
    "log-softmax",
    *ACTIVATIONS,
]
HEAD = [*MAPS, "global-avgpool", "flatten", "FC", "FC"]
FLAT = ["FC", "FC", "FC", "dropout", "flatten", "soft-max", "log-softmax", *NORMS, *ACTIVATIONS]


class Walk:
    """Places entries one behind the other, and leaves out what does not fit.

    Args:
        draw: hypothesis's.
        image: channels, height and width of the input.
        defaults: what the file says in `defaults:`, as written.
        growth: how many elements a layer may add to those of its input.
    """

    def __init__(self, draw: DrawFn, image: Shape, defaults: Options, growth: int = 4096) -> None:
        self.draw = draw
        self.growth = growth
        self.shape = image
        self.defaults = read_defaults(defaults)
        self.names = 0

    def entry(self, keywords: Sequence[str]) -> list[Written]:
        """Draw an entry; return it in a list, or an empty list where it does not fit."""
        return [self.named(written) for written in self.fitting(self.draw(entries(keywords)))]

    def fitting(self, written: Written) -> list[Written]:
        """Place an entry; return it in a list, or an empty list where it does not fit or its map is too large."""
        try:
            shape = self.after(written)
        except LayerError:
            return []
        if elements(shape) > self.growth + elements(self.shape):
            return []
        self.shape = shape
        return [written]

    def after(self, written: Written) -> Shape:
        """Return the shape behind an entry and all that stands behind it."""
        entry = self.defaults.entry(notation.parse(written), hidden=True)
        shape = (elements(self.shape),) if isinstance(entry.layer, Linear) else self.shape
        for layer in (entry.layer, entry.norm, entry.activation):
            if layer is not None:
                shape = layer.output_shape(shape)
        return shape

    def named(self, written: Written) -> Written:
        """Give a name to an entry now and then."""
        if isinstance(written, str) or not self.draw(st.booleans()):
            return written
        self.names += 1
        return {**written, "name": f"given{self.names}"}


def read_defaults(written: Options) -> Defaults:
    """Read the `defaults:` of a file."""
    return vggkit.loads(yaml.safe_dump({"defaults": written, "blocks": [["conv1-1"]]})).defaults


@st.composite
def file_defaults(draw: DrawFn) -> Options:
    """Draw `defaults:`, most often none."""
    if draw(st.integers(0, 2)):
        return {}
    kinds = {
        keyword: some({**OPTIONS[keyword], **FOLLOWERS}).filter(bool) for keyword in ("conv", "maxpool", "avgpool")
    }
    kinds["FC"] = some({**OPTIONS["FC"], **FOLLOWERS}).filter(bool)
    return draw(some({**FOLLOWERS, **kinds}))


@st.composite
def configs(draw: DrawFn) -> str:
    """Draw a configuration file whose every layer fits its input."""
    image = (draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    defaults = draw(file_defaults())
    walk = Walk(draw, image, defaults)
    blocks = []
    for _ in range(draw(st.integers(0, 3))):
        block = [entry for _ in range(draw(st.integers(1, 4))) for entry in walk.entry(MAPS)]
        blocks += [block] if block else []
    classifier: list[Written] = []
    for _ in range(draw(st.integers(0 if blocks else 1, 5))):
        classifier += walk.entry(HEAD if len(walk.shape) == 3 else FLAT)
    if classifier and draw(st.booleans()):
        classifier.append(draw(st.sampled_from(["soft-max", "soft-max", "log-softmax"])))
    if not blocks and not classifier:
        blocks = [["relu"]]
    image_text = "x".join(map(str, image))
    document = {"name": "drawn", "input": image_text, "defaults": defaults, "blocks": blocks, "classifier": classifier}
    return yaml.safe_dump({key: value for key, value in document.items() if value}, sort_keys=False)


def networks() -> SearchStrategy[vggkit.Network]:
    """Draw a network: a configuration file, read and placed."""
    return configs().map(lambda text: vggkit.Network.of(vggkit.loads(text)))


class Sample(NamedTuple):
    """One layer and an input, which may or may not fit each other.

    Args:
        layer: the layer.
        input_shape: of one image.
    """

    layer: Layer
    input_shape: Shape


@st.composite
def samples(draw: DrawFn, keyword: str) -> Sample:
    """Draw a layer of a kind, with options that may not fit the input that is drawn with it."""
    layer = notation.parse(draw(long_form(keyword))).layer()
    maps = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))
    flat = st.tuples(st.integers(1, 6))
    return Sample(layer, draw(st.one_of(maps, maps, flat)))


WINDOWS = ["conv", "conv", *POOLS]


@st.composite
def window_configs(draw: DrawFn, side: int) -> Config:
    """Draw up to three layers that look at windows, on one channel of side × side, with nothing between them.

    Args:
        draw: hypothesis's.
        side: height and width of the input, so large that every layer fits.
    """
    defaults = {"activation": "none"}
    walk = Walk(draw, (1, side, side), defaults, growth=10 * side * side)
    block = [
        entry
        for written in draw(st.lists(st.sampled_from(WINDOWS).flatmap(long_form), min_size=2, max_size=3))
        for entry in walk.fitting(written)
    ]
    document = {"input": f"1x{side}x{side}", "defaults": defaults, "blocks": [block or ["conv3-1"]]}
    return vggkit.loads(yaml.safe_dump(document))
