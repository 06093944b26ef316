"""Random small networks, written in the notation, for every judge."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from vggkit import ConfigError, Network, loads
from vggkit.config import Config

ACTIVATIONS = (
    "relu", "silu", "gelu", "tanh", "sigmoid", "hardtanh", "{leaky-relu: 0.2}", "{leaky-relu: -0.2}", "{elu: 0.5}",
    "{relu: {inplace: false}}", "{hardtanh: {min_val: -0.5, max_val: 2}}", "{gelu: {approximate: tanh}}",
)  # fmt: skip
NORMS = (
    "batch", "{batchnorm: {eps: 0.01, affine: false}}", "{groupnorm: 2}", "{groupnorm: {groups: 1, affine: false}}",
    "{batchnorm: {track_running_stats: false, momentum: null}}",
)  # fmt: skip

sizes = st.sampled_from(["1", "2", "3", "1x3", "3x1", "2x3", "5x1"])
steps = st.sampled_from(["1", "1", "2", "2x1", "1x2"])
booleans = st.sampled_from(["true", "false"])


def entry(keyword: str, primary: str, options: dict[str, str]) -> str:
    """Write a long form."""
    return "{" + ", ".join([f"{keyword}: {primary}", *(f"{word}: {value}" for word, value in options.items())]) + "}"


@st.composite
def some(draw: DrawFn, options: dict[str, SearchStrategy[str]]) -> dict[str, str]:
    """Draw a few of the options."""
    chosen = draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=4))
    return {word: draw(options[word]) for word in chosen}


FOLLOWERS: dict[str, SearchStrategy[str]] = {
    "norm": st.sampled_from([*NORMS, "none"]),
    "activation": st.sampled_from([*ACTIVATIONS, "none"]),
    "dropout": st.sampled_from(["0", "0.3"]),
}


@st.composite
def convolutions(draw: DrawFn) -> str:
    """Draw a convolution, short or long."""
    channels = draw(st.sampled_from(["2", "4", "6", "8"]))
    if draw(st.booleans()):
        return f"conv{draw(st.sampled_from(['1', '3', '3x1', '5']))}-{channels}"
    options = {
        "kernel": draw(sizes),
        **draw(
            some(
                {
                    "stride": steps,
                    "padding": st.sampled_from(["0", "1", "1x0", "2"]),
                    "dilation": st.sampled_from(["1", "2", "1x2"]),
                    "groups": st.sampled_from(["1", "2"]),
                    "bias": booleans,
                    "padding_mode": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
                    **FOLLOWERS,
                }
            )
        ),
    }
    return entry("conv", channels, options)


@st.composite
def pools(draw: DrawFn) -> str:
    """Draw a pool, short or long."""
    keyword = draw(st.sampled_from(["maxpool", "avgpool"]))
    if draw(st.booleans()):
        return keyword
    options: dict[str, SearchStrategy[str]] = {
        "stride": steps,
        "padding": st.sampled_from(["0", "1", "0x1"]),
        "ceil_mode": booleans,
    }
    if keyword == "maxpool":
        options["dilation"] = st.sampled_from(["1", "2"])
    else:
        options |= {"count_include_pad": booleans, "divisor_override": st.sampled_from(["null", "3"])}
    return entry(keyword, draw(sizes), draw(some(options)))


between: SearchStrategy[str] = st.sampled_from(
    [
        *ACTIVATIONS, "LRN", "{LRN: 3, alpha: 0.001, k: 1}", "batchnorm", "{groupnorm: 2}", "{dropout: 0.2}",
        "{adaptive-avgpool: 3x2}", "{adaptive-avgpool: 5}",
    ]
)  # fmt: skip

flat: SearchStrategy[str] = st.sampled_from(
    [
        "FC-6", "{fc: 8, bias: false}", "{fc: 8, norm: batch, activation: gelu, dropout: 0.2}", "{fc: 4, norm: {groupnorm: 2}}",
        "relu", "batchnorm", "{dropout: 0.5}", "flatten",
    ]
)  # fmt: skip


@st.composite
def texts(draw: DrawFn) -> str:
    """Draw a configuration file, which need not fit its input."""
    image = "x".join(str(draw(st.integers(low, high))) for low, high in ((1, 4), (5, 14), (5, 14)))
    layer = st.one_of(convolutions(), convolutions(), pools(), between)
    blocks = draw(st.lists(st.lists(layer, min_size=1, max_size=4), min_size=1, max_size=3))
    heads: list[SearchStrategy[list[str]]] = [
        st.just([]),
        st.lists(flat, min_size=1, max_size=3).map(lambda layers: [*layers, "FC-5", "soft-max"]),
        st.just(["{flatten: hwc}", "FC-7", "FC-5"]),
        st.just(["global-avgpool", "FC-5", "soft-max"]),
        st.just(["{conv: 6, kernel: 2, padding: 1}", "{dropout: 0.5}", "conv1-5", "global-avgpool", "flatten"]),
    ]
    head = draw(st.one_of(heads))
    defaults = draw(some({"activation": FOLLOWERS["activation"], "norm": FOLLOWERS["norm"], "conv": st.just("{bias: false}")}))
    lines = [f"input: {image}"]
    lines += ["defaults:", *(f"  {word}: {value}" for word, value in defaults.items())] if defaults else []
    lines += ["blocks:", *(f"  - [{', '.join(block)}]" for block in blocks)]
    lines += [f"classifier: [{', '.join(head)}]"] if head else []
    return "\n".join(lines)


def _placed(text: str) -> Network | None:
    try:
        return Network.of(loads(text))
    except ConfigError:
        return None


def networks() -> SearchStrategy[Network]:
    """Draw networks whose layers fit their inputs."""
    fitting: Any = texts().map(_placed).filter(lambda network: network is not None)
    return fitting  # type: ignore[no-any-return]


def configs() -> SearchStrategy[Config]:
    """Draw the configurations of such networks."""
    return networks().map(lambda network: network.config)
