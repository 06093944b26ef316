"""Steps: one class for each mode, with all its rules, walked through operation by operation.

`options` has what a step is like, `step` what all steps have in common, `refusals` what torch refuses to run. A new
mode is one class here, and its line in `TAKEN`, in `options`.
"""

from __future__ import annotations

import msgspec

from vggkit.footprint.ranks import STRATEGIES, Pipeline, PipelineReplicas
from vggkit.footprint.steps.cuts import best_cut
from vggkit.footprint.steps.inference import Inference
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.perceptual import Perceptual
from vggkit.footprint.steps.stage import StageTraining
from vggkit.footprint.steps.step import Step
from vggkit.footprint.steps.training import Training
from vggkit.network import Network

STEPS: dict[str, type[Step]] = {kind.mode: kind for kind in (Training, Inference, Perceptual)}
"""Every kind of step by its mode."""

OF_RANKS: dict[str, type[Step]] = {kind.name: StageTraining for kind in (Pipeline, PipelineReplicas)}
"""Those of ranks that run a part of the network, by strategy."""


def step_of(network: Network, options: StepOptions) -> Step:
    """Walk through a step, whether or not torch would run it.

    Args:
        network: the network.
        options: what the step is like, checked.

    >>> step_of(Network.of("D"), StepOptions()).peak.event
    'backward of block3_relu3'
    """
    return OF_RANKS.get(options.group.parallel, STEPS[options.mode])(network, settled(network, options))


def settled(network: Network, options: StepOptions) -> StepOptions:
    """Return options in which all has been decided that depends on the network and the batch: a pipeline's cuts.

    Args:
        network: the network.
        options: what a step is like, checked.

    Raises:
        ArgumentError: if the network can't be cut into so many stages.
    """
    group = STRATEGIES[options.group.parallel].settled(options.group, options.batch)
    if options.has_cuts_to_find:
        whole = options.replace(group=msgspec.structs.replace(group, rank=None))
        group = msgspec.structs.replace(group, cut=best_cut(network, whole))
    return options if group == options.group else options.replace(group=group)
