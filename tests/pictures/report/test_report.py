"""What a page of networks is told: the figures of its first state, and lines for every other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vggkit
from tests.cli.test_app import run
from tests.conftest import Run
from vggkit.base.errors import ArgumentError
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.network import ELEMENT_BYTES
from vggkit.pictures.report.page import CONTEXT_MIB, STEPS
from vggkit.pictures.report.report import LARGEST_BATCH, LARGEST_BYTES, LARGEST_COUNT, MOST_REPORTED, report

SMALL = "{name: small, input: 3x8x8, blocks: [[conv3-4, maxpool]], classifier: [FC-3]}"


def test_the_first_state_is_what_the_other_functions_say() -> None:
    """Summary, plans, notation and comparison are theirs, with every change made."""
    changes = {"num_classes": 7, "input": "3x64x64"}
    made = report("D", "A:width=0.5", batch=3, dtype="float16", **changes)
    assert made.comparison == vggkit.compare("D", "A:width=0.5", batch=3, dtype="float16", **changes)
    for one, name, more in zip(made, ("D", "A"), ({}, {"width": 0.5})):
        arguments = {**changes, **more}
        assert one.summary == vggkit.summarize(name, batch=3, dtype="float16", **arguments)
        assert one.image.rows == vggkit.summarize(name, **arguments).rows
        assert one.plan == vggkit.memory(name, batch=3, dtype="float16", **arguments)
        assert one.on_card.plan == vggkit.memory(name, batch=3, dtype="float16", device="cuda", **arguments)
        assert one.notation == vggkit.dump(vggkit.load(name, **arguments))
    assert [one.compared.label for one in made] == ["D", "A:width=0.5"]


@pytest.mark.parametrize("optimizer", ["adamw", "none"])
def test_it_opens_with_the_optimizer_that_is_asked_for(optimizer: str) -> None:
    """In its figures, in its pictures and in its control."""
    made = report("A", "B", input="3x32x32", optimizer=optimizer)
    assert made.comparison == vggkit.compare("A", "B", input="3x32x32", optimizer=optimizer)
    for one, name in zip(made, ("A", "B")):
        assert one.plan == vggkit.memory(name, input="3x32x32", optimizer=optimizer)
        assert one.on_card.plan == vggkit.memory(name, input="3x32x32", optimizer=optimizer, device="cuda")
    assert re.findall('<option value="([a-z-]+)" selected', made.to_html().split('id="step"')[1])[0] == optimizer


def test_there_are_lines_for_every_dtype_and_step() -> None:
    """Inference, and training with each optimizer; at batch 5 they are the plan's."""
    (one,) = report(vggkit.loads(SMALL))
    assert set(one.steps) == set(ELEMENT_BYTES)
    for dtype, steps in one.steps.items():
        assert set(steps) == {"inference", *OPTIMIZERS} == set(STEPS)
        for word, step in steps.items():
            options = {"mode": "inference"} if word == "inference" else {"optimizer": word}
            plan = vggkit.memory(vggkit.loads(SMALL), batch=5, dtype=dtype, **options)
            assert step.peak(5).size.at(5) == plan.peak_bytes


def test_beside_a_card_stands_what_the_tensors_alone_would_allow() -> None:
    """On 24 GiB less CUDA's context; one image more would not fit. The step itself is tried there, too."""
    room = 24 * 2**30 - CONTEXT_MIB * 2**20
    on_card = report("D", batch=400).networks[0].on_card
    for number, fits in ((on_card.tensors_alone, True), (on_card.tensors_alone + 1, False)):
        assert (vggkit.memory("D", batch=number, device="cuda").peak_bytes <= room) == fits
    assert on_card.steps == (None,)  # more than the tensors alone would allow


def test_the_pictures_are_the_plots() -> None:
    """Architecture and cost of each network; of several what compares them."""
    made = report("A", "B", batch=2, dtype="float64", input="3x32x32")
    titles = [[picture.title for picture in one.pictures] for one in made]
    assert titles == [[f"{name}: 3×32×32", f"{name}: 3×32×32, batch 2, float64"] for name in ("A", "B")]
    assert made.picture is not None
    assert made.picture.title == vggkit.plot("A", "B", kind="compare", batch=2, dtype="float64", input="3x32x32").title
    assert report(vggkit.loads(SMALL)).picture is None


def test_the_control_takes_65536_images() -> None:
    """Of the paper's networks."""
    assert report("D").largest_batch == LARGEST_BATCH == 65_536


@pytest.mark.parametrize(
    "text",
    ["{input: 3x4096x4096, blocks: [[conv3-64, conv3-64]]}", "{input: 1024x64x64, blocks: [[conv3-8192]]}"],
    ids=["bytes", "MACs"],
)
def test_no_figure_is_larger_than_a_page_can_compute(text: str) -> None:
    """The largest batch is the last at which bytes, or MACs, stay exact."""
    network = vggkit.Network.of(vggkit.loads(text))

    def fits(batch: int) -> bool:
        totals = vggkit.summarize(network, batch=batch, dtype="float64").totals
        peak = vggkit.memory(network, batch=batch, dtype="float64", optimizer="adamw").peak_bytes
        return max(peak, totals.activation_bytes) <= LARGEST_BYTES and totals.multiply_accumulates <= LARGEST_COUNT

    largest = report(network).largest_batch
    assert largest < LARGEST_BATCH
    assert fits(largest)
    assert not fits(largest + 1)


def test_a_network_beyond_all_measure_is_refused() -> None:
    """In a line that says which it is."""
    huge = vggkit.loads("{name: huge, input: 3x900000x900000, blocks: [[conv3-64, maxpool]]}")
    with pytest.raises(ArgumentError, match="huge: its figures are too large for a page's arithmetic"):
        report("A", huge)


@pytest.mark.parametrize("number", [0, MOST_REPORTED + 1])
def test_a_page_has_one_to_eight_networks(number: int) -> None:
    """More would be more than a megabyte."""
    with pytest.raises(ArgumentError, match=f"expected 1 to 8 networks in a report, found {number}"):
        report(*["A"] * number)


# The command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "file"), [(("D",), "D-report.html"), (("vgg16", "A:width=0.5"), "D-A_width_0.5-report.html")], ids=str
)
def test_without_a_file_one_is_named_written_and_told(names: tuple[str, ...], file: str, folder: Path) -> None:
    """In the working directory; nothing is on stdout."""
    result = run("report", *names)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{file} written\n")
    assert os.listdir(folder) == [file]


def test_the_file_is_what_python_makes(folder: Path) -> None:
    """To the byte, with every option, and every time."""
    options = ("--batch", "4", "--dtype", "float16", "--input", "3x64x64", "--set", "num_classes=7", "-o", "x.HTML")
    assert run("report", "A", "B", *options).exit_code == 0
    made = report("A", "B", batch=4, dtype="float16", input="3x64x64", num_classes=7)
    assert (folder / "x.HTML").read_text(encoding="utf-8") == made.to_html()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("D", "-o", "x.pdf"), "--output: expected a file that ends in .html or .htm, found 'x.pdf'"),
        (("D", "-o", "no/x.html"), "no/x.html: can't be written: No such file or directory"),
        (("D", "--batch", "0"), "batch: expected a whole number from 1 to"),
        (("D", "--batch", "65537"), "batch: expected up to "),
        (("D", "--dtype", "int8"), "dtype: expected one of"),
        (("Q",), "Q"),
        (("D", "--set", "wdth=2"), "Did you mean 'width'?"),
        (("A",) * 9, "expected 1 to 8 networks in a report, found 9"),
    ],
    ids=str,
)
def test_what_is_wrong_ends_in_a_clear_line_and_no_file(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    """And in exit code 1 or 2."""
    result = run("report", *arguments)
    assert result.exit_code == (1 if "written" in message else 2)
    assert message in result.stderr
    assert os.listdir(folder) == []


def test_no_torch_is_imported(process: Run, tmp_path: Path) -> None:
    """A page is made without it."""
    code = "import sys; from vggkit import report; report('A', 'D').to_html(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
    assert process("report", "D", "-o", str(tmp_path / "D.html")).returncode == 0


def test_a_page_begins_at_the_smallest_batch_that_torch_runs() -> None:
    """The control takes no batch at which a network's step can't be run."""
    with pytest.raises(ArgumentError, match="torch can't run a training step at batch 1"):
        report("vgg11_slimming_bn1d")
    both = report("vgg11_slimming_bn1d", "A", batch=2)
    assert (both.smallest_batch, report("A").smallest_batch) == (2, 1)
    assert 'type="number" inputmode="numeric" min="2"' in both.to_html()
