"""Cards by name: every spelling finds its card and no other, and each figure has a source and makes sense."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from vggkit.base.errors import ArgumentError
from vggkit.base.numbers import grouped, mebibytes
from vggkit.footprint.cards import CARDS, CONTEXTS, DEFAULT_CONTEXT_BYTES, Card, Context, NamedCard, card_of

PAGE = Path(__file__).parent.parent.parent / "docs" / "cards.md"


@pytest.mark.parametrize("limit", ["24GiB", " 24 gib ", "25769803776 B", 24 * 2**30])
def test_a_size_is_a_card_without_a_name(limit: str | int) -> None:
    """Bytes, or a number with its unit; the context is an RTX 4090's."""
    assert card_of(limit) == Card(None, 24 * 1024**3, card_of("RTX 4090").context_bytes)


@pytest.mark.parametrize(
    "spelling",
    ["RTX 4090", "rtx4090", "4090", "RTX-4090", "NVIDIA GeForce RTX 4090", "geforce rtx 4090", "RTX 4090 24GB"],
)
def test_letter_case_spaces_hyphens_and_brands_dont_matter(spelling: str) -> None:
    """As people write it, and as torch names it."""
    assert card_of(spelling).name == "RTX 4090"


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("GeForce GTX 1060 6GB", "GTX 1060-6GB"),
        ("GeForce GTX 1080 Ti", "GTX 1080 Ti"),
        ("TITAN X (Pascal)", "TITAN X Pascal"),
        ("NVIDIA TITAN V", "TITAN V"),
        ("Tesla P100-PCIE-16GB", "P100-16GB"),
        ("Tesla V100-SXM2-16GB", "V100-16GB"),
        ("Tesla V100-PCIE-32GB", "V100-32GB"),
        ("Tesla T4", "T4"),
        ("Quadro RTX 8000", "RTX 8000"),
        ("NVIDIA RTX A2000 12GB", "RTX A2000-12GB"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_what_torch_calls_a_card_finds_it(device: str, name: str) -> None:
    """A name from `torch.cuda.get_device_name()` can be pasted."""
    assert card_of(device).name == name


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_each_card_is_found_by_its_own_name(card: NamedCard) -> None:
    """A name, also with its size, belongs to one card."""
    assert card_of(card.name) == card.card
    assert card_of(f"{card.name.removesuffix(f'-{card.gibibytes}GB')} {card.gibibytes}GB") == card.card
    assert [other.name for other in CARDS if other.spellings & card.spellings] == [card.name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a100", "'A100-40GB' or 'A100-80GB'"),
        ("Tesla V100", "'V100-16GB' or 'V100-32GB'"),
        ("GTX TITAN X", "'TITAN X Maxwell' or 'TITAN X Pascal'"),
        ("RTX 3060", "'RTX 3060-12GB'"),
    ],
)
def test_a_name_of_several_cards_is_refused(name: str, expected: str) -> None:
    """The message has the names that it may mean."""
    with pytest.raises(ArgumentError) as refused:
        card_of(name)
    assert (
        str(refused.value) == f"there are several cards called '{name}'; expected {expected}, or a size such as 24GiB"
    )


def test_an_unknown_card_gets_a_suggestion() -> None:
    """The message has the nearest name, and says that a size will do."""
    with pytest.raises(ArgumentError) as refused:
        card_of("RTX 4095")
    assert (
        str(refused.value)
        == "expected a size such as 24GiB, or a card such as 'RTX 4090', found 'RTX 4095'. Did you mean 'RTX 4090'?"
    )


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("3", "expected a number and a unit, as in 24GiB, 24GB or 800MB, found '3'"),
        ("24 parsecs", "expected a number and a unit"),
        ("-1GB", "expected a number and a unit"),
        ("", "expected a number and a unit"),
        (0, "limit: expected bytes or text such as '24GiB', found 0"),
        (True, "limit: expected bytes or text such as '24GiB', found True"),
        (2.5, "limit: expected bytes or text such as '24GiB', found 2.5"),
    ],
)
def test_a_wrong_size_is_refused(limit: str | int, message: str) -> None:
    """What begins with a number is a size."""
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        card_of(limit)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_reports_a_little_less_than_it_is_sold_with(card: NamedCard) -> None:
    """The driver keeps up to 6 %, and error correction another 6 %; nothing is lost between MB and MiB."""
    assert 0.85 * card.gibibytes < card.card.total_bytes / 2**30 < 1.02 * card.gibibytes


@pytest.mark.parametrize("named", [*CARDS, *CONTEXTS.values()], ids=lambda named: named.source)
def test_each_figure_has_a_source(named: NamedCard | Context) -> None:
    """A thread on GitHub, a file there, an address, or where a page of this project tells how it was measured."""
    assert re.fullmatch(r"[\w.-]+/[\w.-]+(#\d+|:[\w./-]+)|https://\S+|card\.md#on-a-real-card", named.source)


def test_a_rounded_figure_counts_as_the_fewest_bytes_that_it_can_mean() -> None:
    """9.78 GiB is printed from 9.775 GiB on; bytes stand for themselves."""
    assert abs(card_of("RTX 3080-10GB").total_bytes - 9.775 * 2**30) < 1
    assert card_of("GTX 1080").total_bytes == 8506114048


def test_a_context_is_what_the_process_has_beside_torchs_memory() -> None:
    """The most that it can have been: on the T4 0.31 GiB less 185.38 MiB, and the halves of the last digits."""
    rounding = 0.005 * 2**30 * 2 + 0.005 * 2**20
    assert abs(card_of("T4").context_bytes - (0.31 * 2**30 - 185.38 * 2**20 + rounding)) < 3
    assert card_of("H200").context_bytes == 806_158_336  # as cudaMemGetInfo said, less what torch had reserved
    assert card_of("RTX 5090").context_bytes == DEFAULT_CONTEXT_BYTES  # no measurement for this capability


# The page


def link(source: str) -> str:
    """Return a link to a source."""
    if source.startswith("card.md"):
        return f"[On a real card]({source})"
    if source.startswith("https://"):
        return f"[{source.split('/')[2]}]({source})"
    thread = re.fullmatch(r"(.+)#(\d+)", source)
    if thread:
        return f"[{source}](https://github.com/{thread[1]}/issues/{thread[2]})"
    repository, path = source.split(":")
    return f"[{repository}](https://github.com/{repository}/blob/HEAD/{path})"


def card_table() -> str:
    """Return the page's table of cards."""
    columns = ("card", "sold with", "CUDA reports", "bytes", "compute capability", "source")
    rows = [
        (
            card.name,
            f"{card.gibibytes} GB",
            card.reported,
            grouped(card.card.total_bytes),
            card.capability,
            link(card.source),
        )
        for card in CARDS
    ]
    return markdown(columns, rows)


def context_table() -> str:
    """Return the page's table of contexts."""
    columns = ("compute capability", "card", "in use", "allocated by torch", "reserved besides", "the rest", "source")
    rows = [
        (
            capability,
            context.card,
            context.in_use,
            context.allocated,
            context.unallocated,
            mebibytes(context.total_bytes),
            link(context.source),
        )
        for capability, context in CONTEXTS.items()
    ]
    default = ("others, and plain sizes", "", "", "", "", mebibytes(DEFAULT_CONTEXT_BYTES), "as the RTX 4090")
    return markdown(columns, [*rows, default])


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; numbers are not aligned, since pages are read as text, too."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows))


@pytest.mark.parametrize(("name", "table"), [("cards", card_table), ("contexts", context_table)])
def test_the_page_has_the_tables(name: str, table: Callable[[], str], request: pytest.FixtureRequest) -> None:
    """The documentation's tables are those of the code; `--update-golden` writes them."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(f"<!-- {name} -->\n\n")
    shown, after = rest.split("\n\n<!-- end -->", 1)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(f"{before}<!-- {name} -->\n\n{table()}\n\n<!-- end -->{after}", encoding="utf-8", newline="\n")
    else:
        assert shown == table()
