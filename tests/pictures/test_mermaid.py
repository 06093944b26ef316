"""The architecture as a Mermaid flowchart: what Mermaid itself reads and draws of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import vggkit
from tests import drawn, judges
from tests.conftest import sample
from tests.pictures.drawings import ODD, SIX, network, shown
from vggkit.notation.layers import times
from vggkit.pictures.style import printable

DRAW = """async text => {
    await mermaid.parse(text)
    const drawn = await mermaid.render("chart", text)
    const box = document.getElementById("box")
    box.innerHTML = drawn.svg
    const all = selector => [...box.querySelectorAll(selector)]
    return {
        texts: all(".node .nodeLabel").map(label => label.innerText),
        columns: all(".cluster .nodeLabel").map(label => label.innerText),
        arrows: all(".flowchart-link").length,
        title: all("svg > title").map(one => one.textContent),
        description: all("svg > desc").map(one => one.textContent),
        links: all("a, script, img, foreignObject iframe").length,
        cut: window.cut ?? false,
    }
}"""
"""Has Mermaid read and draw a chart, and returns what is in the picture."""


@pytest.fixture(scope="module")
def mermaid(browser: Any) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Return what draws a chart with Mermaid in a page, which asks for nothing else."""
    script = judges.file("MERMAID", "mermaid.min.js of the npm package mermaid")
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url))
    page.set_content('<div id="box"></div>')
    page.add_script_tag(content=script.read_text(encoding="utf-8"))
    page.evaluate("mermaid.initialize({startOnLoad: false})")
    yield lambda text: page.evaluate(DRAW, text)
    page.close()
    assert wrong == []


def chart(source: Any) -> str:
    """Return a network's flowchart."""
    return vggkit.plot(source).to_bytes("mermaid").decode()


def check(said: dict[str, Any], net: vggkit.Network) -> None:
    """Hold that Mermaid draws a box for each layer, a column for each block, and all in a row."""
    rows = shown(net)
    assert sorted(said["texts"]) == sorted(f"{row.notation}\n{times(row.output_shape)}" for row in rows)
    blocks = list(dict.fromkeys(row.block for row in rows if row.block))
    head = ["classifier"] if any(row.block is None for row in rows[1:]) else []
    assert sorted(said["columns"]) == sorted([*blocks, *head])
    assert said["arrows"] == len(rows) - 1
    assert said["links"] == 0


@pytest.mark.parametrize("name", sample([*SIX, *ODD], ["D", "batch norm", "named", "trunk", "gap"]))
def test_mermaid_draws_each_layer(name: str, mermaid: Callable[[str], dict[str, Any]]) -> None:
    """With its notation and its shape; a screen reader is told what it is."""
    net = network(name)
    said = mermaid(chart(net))
    check(said, net)
    assert said["title"] == [f"{printable(net.name)}: {times(net.input_shape)}"]
    assert len(said["description"][0]) > 80


@pytest.mark.parametrize("examples", sample([8, 40], [8]))
def test_mermaid_draws_whatever_can_be_written(examples: int, mermaid: Callable[[str], dict[str, Any]]) -> None:
    """Drawn networks, of every kind of layer."""

    @given(drawn.networks())
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def draws(net: vggkit.Network) -> None:
        check(mermaid(chart(net)), net)

    draws()


HOSTILE = [
    '"]; click layer0 call cut()',
    "%%{init: {'theme': 'dark', 'securityLevel': 'loose'}}%%",
    "---\n---\nflowchart LR\n  a --> b",
    "<img src=x onerror='window.cut = true'><script>window.cut = true</script>",
    "#quot;]#59; #lt;b#gt; `**bold**` $$x$$ fa:fa-car",
    "\\u0022 \" ' ; { } # & : end subgraph",
    "\u202e\u2028\x00\x1b[31m",
    "x" * 500,
]
"""Names that say something in Mermaid, HTML, YAML or a terminal."""


@pytest.mark.parametrize("name", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_name_is_text(name: str, mermaid: Callable[[str], dict[str, Any]]) -> None:
    """Nothing in it is obeyed."""
    config = msgspec.structs.replace(vggkit.loads("{input: 3x8x8, blocks: [[conv3-4]]}"), name=name)
    said = mermaid(chart(config))
    check(said, vggkit.Network.of(config))
    start = printable(name)[:90]
    assert said["title"][0].startswith(start)
    assert start in said["description"][0]
    assert said["cut"] is False


def test_as_many_arrows_as_mermaid_draws(mermaid: Callable[[str], dict[str, Any]]) -> None:
    """One more is refused here, as it is there."""

    def long(layers: int) -> vggkit.Config:
        return vggkit.loads(f"{{name: long, input: 1x2x2, blocks: [[{', '.join(['tanh'] * layers)}]]}}")

    text = chart(long(500))
    assert text.count("-->") == 500
    with pytest.raises(vggkit.ArgumentError, match=r"^long: expected up to 500 arrows in a Mermaid flowchart, which"):
        chart(long(501))
    assert mermaid(text.replace("layer499 --> layer500", ""))["arrows"] == 499
    with pytest.raises(Exception, match="Edge limit exceeded"):
        mermaid(f"{text}\n  layer0 --> layer2")


def test_as_many_characters_as_mermaid_reads() -> None:
    """A page can't allow more."""

    def long(layers: int) -> vggkit.Config:
        layer = "{conv: 999999999999999999, kernel: 1x3, padding: 9x10, dilation: 1x10, bias: false}"
        return vggkit.loads(f"{{name: long, input: 1x9x9, blocks: [[{', '.join([layer] * layers)}]]}}")

    assert 49_000 < len(chart(long(328))) < 50_000
    with pytest.raises(vggkit.ArgumentError, match=r"^long: expected up to 50,000 characters in a Mermaid flow"):
        chart(long(340))


def test_in_a_markdown_page_it_stands_in_a_fence(tmp_path: Path) -> None:
    """A file of Mermaid's own has it alone, and the word for the format means either."""
    picture = vggkit.plot("A")
    for name in ("A.mmd", "A.md", "B.MD"):
        picture.save(tmp_path / name)
    picture.save(tmp_path / "C.md", "mermaid")
    picture.save(tmp_path / "C.txt", "mermaid")
    text = chart("A")
    fenced = f"```mermaid\n{text}```\n"
    said = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert said == {"A.mmd": text, "A.md": fenced, "B.MD": fenced, "C.md": fenced, "C.txt": text}
    assert re.match(r"---\ntitle: .*\n---\nflowchart LR\n", text)


def test_the_flowchart_of_d(golden: Callable[[str, str], None]) -> None:
    """To read, and to see what changes."""
    golden("plot-D.mmd", chart("D"))
    assert vggkit.plot("D", flat=True).to_bytes("mermaid").decode() == chart("D")
