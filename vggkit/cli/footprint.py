"""The commands of memory: memory, remedies and verify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggkit.base.errors import ArgumentError
from vggkit.cli import completion
from vggkit.cli.app import main
from vggkit.cli.options import (
    FILE,
    TABLE_FORMATS,
    allocator_option,
    batch_option,
    device_options,
    format_of,
    format_option,
    group_options,
    names_option,
    output_option,
    overrides,
    put,
    rank_option,
    source_argument,
    stacked,
    step_arguments,
    step_options,
    taken_options,
    with_bar,
    write_table,
    wrong_ending,
)

if TYPE_CHECKING:
    from vggkit.footprint.card_fit import Room
    from vggkit.footprint.plan import MemoryPlan
    from vggkit.footprint.steps.options import StepOptions
    from vggkit.model.claims import Claim
    from vggkit.network import Network


mode_options = stacked(
    click.option(
        "--mode",
        default="training",
        show_default=True,
        help="training, inference, or perceptual: the network as a loss.",
        shell_complete=completion.modes,
    ),
    names_option(
        "--taps", "Of a perceptual loss: layers that it compares, such as relu1_2,relu2_2.", completion.layers
    ),
    click.option(
        "--cached-target", is_flag=True, help="Of a perceptual loss: the target is run once, before the loop."
    ),
    click.option("--trainable", is_flag=True, help="Of a perceptual loss: the network's parameters get gradients."),
)
"""What a step is for: the other options of `vggkit.memory`."""


@main.command(epilog="Example: vggkit memory D --batch 64 --optimizer adamw")
@source_argument
@click.option("--batch", type=int, default=None, metavar="N", help="Number of images.  [default: 1]")
@mode_options
@step_options
@click.option("--device", help="cpu or cuda.  [default: cpu; with --fit: cuda]", shell_complete=completion.devices)
@allocator_option
@click.option(
    "--fit",
    "limits",
    multiple=True,
    metavar="CARD",
    help="Find the largest batch that runs on a card: RTX 4090, T4, 24GiB, …; repeatable.",
    shell_complete=completion.cards,
)
@group_options
@rank_option("Show the memory of this rank, counted from 0.  [default: the fullest one's]")
@taken_options("--fit")
@click.option(
    "--solve", type=click.Choice(("batch", "image")), help="With --fit: the largest batch, or the largest square image."
)
@click.option(
    "--timeline",
    type=FILE,
    help="Draw the step to a .svg, .png or .html file, or write it to a .pickle file for pytorch.org/memory_viz.",
)
@format_option()
@output_option
def memory(
    source: str,
    batch: int | None,
    mode: str,
    input: str | None,
    settings: tuple[str, ...],
    device: str | None,
    limits: tuple[str, ...],
    context: str | None,
    workspace: str | None,
    solve: str | None,
    timeline: Path | None,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Show what a step holds in memory, to the byte, and what runs on a card."""
    from vggkit.footprint.fit import fits, fits_table
    from vggkit.footprint.plan import plan_step
    from vggkit.footprint.remedies.advice import advice, fit_advice

    _check_memory_options(batch, limits, context, workspace, solve, timeline)
    format = format_of(format, output, TABLE_FORMATS)
    options |= {"batch": 1 if batch is None else batch, "device": device or ("cuda" if limits else "cpu")}
    network, step = _step(source, settings, input, mode=mode, **options)
    if limits:
        from vggkit.footprint.sought import SOUGHT

        sought = SOUGHT[solve or "batch"](network, step)
        rooms = [_room(step, "--fit", card, context, workspace) for card in limits]
        found = fits(sought, rooms)
        write_table(fits_table(sought, found, list(fit_advice(sought, found, rooms))), format, output)
        click.get_current_context().exit(0 if all(fit.largest for fit in found) else 1)
    plan = plan_step(network, step)
    if timeline is not None:
        _put_timeline(plan, timeline)
    write_table(plan.table(list(advice(network, step))), format, output)


PLOT_ENDINGS = (".svg", ".png", ".pdf")


def _check_plot(plot: Path | None) -> None:
    if plot is not None and plot.suffix.lower() not in PLOT_ENDINGS:
        raise wrong_ending("--plot", plot, PLOT_ENDINGS)


def _step(
    source: str,
    settings: tuple[str, ...],
    input: str | None,
    **options: Any,
) -> tuple[Network, StepOptions]:
    """Return the network and what its step is like, checked."""
    from vggkit.footprint.steps.options import checked_options
    from vggkit.network import Network

    network = Network.of(source, **overrides(settings, input=input))
    return network, checked_options(network, **step_arguments(options))


def _room(step: StepOptions, argument: str, card: str, context: str | None, workspace: str | None) -> Room:
    """Read a card, --context and --workspace.

    Args:
        step: on which device it runs.
        argument: where the card is given, for messages.
        card: what is given.
        context: what --context says.
        workspace: what --workspace says.
    """
    from vggkit.footprint.fit import checked_room

    with _speaking_of(argument):
        return checked_room(step, card, context, workspace or 0)


@contextmanager
def _speaking_of(argument: str) -> Iterator[None]:
    """Name the argument of the command in what is said of a card, --context or --workspace."""
    try:
        yield
    except ArgumentError as error:
        text = str(error)
        is_named = text.startswith(("context:", "workspace:"))
        raise ArgumentError(f"--{text}" if is_named else f"{argument}: {text}") from None


VIEWER_ENDING = ".pickle"
"""Of a file for PyTorch's memory viewer."""

TIMELINE_ENDINGS = (".svg", ".png", ".html", VIEWER_ENDING)


def _put_timeline(plan: MemoryPlan, path: Path) -> None:
    ending = path.suffix.lower()
    if ending == VIEWER_ENDING:
        put(plan.to_pickle(), path, "written")
        return
    from vggkit.pictures.timeline import picture

    put(picture(plan, ending.lstrip(".")), path, "drawn")


def _check_memory_options(
    batch: int | None,
    limits: tuple[str, ...],
    context: str | None,
    workspace: str | None,
    solve: str | None,
    timeline: Path | None,
) -> None:
    for option, given in (("--solve", solve), ("--context", context), ("--workspace", workspace)):
        if given and not limits:
            raise ArgumentError(f"{option}: needs --fit, such as --fit 24GiB")
    if limits and batch is not None and solve != "image":
        raise ArgumentError("--batch can't be combined with --fit, which looks for it, unless with --solve image")
    if limits and timeline is not None:
        raise ArgumentError("--timeline can't be combined with --fit")
    if timeline is not None and timeline.suffix.lower() not in TIMELINE_ENDINGS:
        raise wrong_ending("--timeline", timeline, TIMELINE_ENDINGS)


@main.command(epilog="Example: vggkit remedies D 8GB --batch 64")
@source_argument
@click.argument("limit", metavar="CARD", shell_complete=completion.cards)
@batch_option
@mode_options
@step_options
@device_options
@group_options
@rank_option("Make room on this rank alone, counted from 0.  [default: on all of them]")
@taken_options()
@click.option(
    "--plot",
    type=FILE,
    help="Draw what each way takes, against what is run again for it, to a .svg, .png or .pdf file.",
)
@format_option()
@output_option
def remedies(
    source: str,
    limit: str,
    input: str | None,
    settings: tuple[str, ...],
    device: str | None,
    context: str | None,
    workspace: str | None,
    plot: Path | None,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Find what makes a step fit a card, the cheapest first.

    The CARD is a name (RTX 4090, T4) or a size (8GiB). Exit 1 if nothing makes the step fit.
    """
    from vggkit.footprint.remedies.remedies import device_for, find_remedies

    format = format_of(format, output, TABLE_FORMATS)
    with _speaking_of("CARD"):
        device = device or device_for(limit, context, workspace)
    network, step = _step(source, settings, input, device=device, **options)
    _check_plot(plot)
    found = find_remedies(network, step, _room(step, "CARD", limit, context, workspace))
    if plot is not None:
        from vggkit.pictures.remedies import picture

        put(picture(found).to_bytes(plot.suffix.lower().lstrip(".")), plot, "drawn")
    write_table(found.table(), format, output)
    click.get_current_context().exit(0 if found.fits or found.remedies else 1)


@main.command(epilog="Example: vggkit plan D --ranks 8 --card 24GiB --batch 256")
@source_argument
@click.option("--ranks", type=int, required=True, metavar="N", help="How many processes train together, 2 or more.")
@click.option(
    "--batch", type=int, metavar="N", help="Images of a step, of all ranks together.  [default: one for each rank]"
)
@click.option(
    "--card", metavar="CARD", help="What each rank has: RTX 4090, T4, 24GiB, ….", shell_complete=completion.cards
)
@step_options
@device_options
@taken_options("--card")
@click.option(
    "--sort",
    metavar="FIGURE",
    help="Sort by held, sent, received or images; -images sorts from the most.",
    shell_complete=completion.group_figures,
)
@click.option("--plot", type=FILE, help="Draw what is held against what is sent, to a .svg, .png or .pdf file.")
@format_option()
@output_option
def plan(
    source: str,
    ranks: int,
    batch: int | None,
    card: str | None,
    input: str | None,
    settings: tuple[str, ...],
    device: str | None,
    context: str | None,
    workspace: str | None,
    sort: str | None,
    plot: Path | None,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Set side by side what several ranks hold and send, by each strategy.

    A step has the same images whatever the ranks do. Exit 1 if no strategy has room, or none can be.
    """
    from vggkit.footprint.group_plan import checked_ranks, group_plan
    from vggkit.footprint.remedies.remedies import device_for
    from vggkit.footprint.sharing import sharings

    format = format_of(format, output, TABLE_FORMATS)
    _check_plot(plot)
    for option, given in (("--context", context), ("--workspace", workspace)):
        if given and card is None:
            raise ArgumentError(f"{option}: needs --card, such as --card 24GiB")
    count = checked_ranks(ranks)
    if card is not None:
        with _speaking_of("--card"):
            device = device or device_for(card, context, workspace)
    options |= {"batch": count if batch is None else batch, "device": device or "cpu"}
    network, step = _step(source, settings, input, **options)
    room = None if card is None else _room(step, "--card", card, context, workspace)
    ways = list(sharings(count))
    found = group_plan(network, step, count, room, with_bar(ways, len(ways), "planning"), sort)
    if plot is not None:
        from vggkit.pictures.ranks import picture

        put(picture(found).to_bytes(plot.suffix.lower().lstrip(".")), plot, "drawn")
    write_table(found.table(), format, output)
    able = found.runnable
    click.get_current_context().exit(0 if any(way.fits is not False for way in able) else 1)


@main.command(epilog="Example: vggkit verify D --batch 2 --optimizer adamw")
@source_argument
@batch_option
@mode_options
@step_options
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.", shell_complete=completion.devices)
@allocator_option
@group_options
@rank_option("Measure this rank alone, counted from 0.  [default: each that differs from others]")
@click.option("--gloo", is_flag=True, help="Let each rank be a process, which sends to the others by gloo; on cpu.")
@format_option()
@output_option
def verify(
    source: str,
    batch: int,
    input: str | None,
    settings: tuple[str, ...],
    gloo: bool,
    format: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Measure on the real model what vggkit claims.

    With --device cuda loops of steps run on the card, and what torch's allocator takes there is measured. With --ranks
    torch's engine runs on one rank after the other, without the others; with --gloo on all of them. Exit 1 if a claim
    does not hold.
    """
    format = format_of(format, output, TABLE_FORMATS)
    network, step = _step(source, settings, input, batch=batch, **options)
    from vggkit.model.claims import claims_table, version_notes

    claims = _claims(network, step, gloo)
    title = step.title(network.name, network.input_shape)
    write_table(claims_table(title, claims, version_notes(step.group)), format, output)
    click.get_current_context().exit(0 if all(claim.holds for claim in claims) else 1)


def _claims(network: Network, step: StepOptions, gloo: bool) -> list[Claim]:
    """Measure the claims on the device. What measures on the other one is not imported."""
    if gloo and step.group.ranks == 1:
        raise ArgumentError("--gloo: needs several ranks, such as --ranks 2 --parallel ddp")
    if gloo and step.device != "cpu":
        raise ArgumentError(f"--gloo: needs --device cpu, found {step.device}")
    if step.device == "cuda":
        from vggkit.model.verify_card import verify_card

        return list(verify_card(network, step))
    from vggkit.model.verify import verify
    from vggkit.model.verify_ranks import verify_ranks, verify_together

    return list(verify(network, step, verify_together if gloo else verify_ranks))
