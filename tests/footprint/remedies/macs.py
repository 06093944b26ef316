"""torch's own count of what a training step multiplies."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

import vggkit
from vggkit.network import Network


def step_macs(
    network: Network, checkpoint: tuple[str, ...], freeze: tuple[str, ...] = (), *, autocast: bool = False
) -> int:
    """Return the multiply-accumulates of a training step of one image, by torch's own counter."""
    model = vggkit.build(network, device="meta", checkpoint=checkpoint, freeze=freeze)
    with FlopCounterMode(display=False) as counter:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            scores = model(torch.empty(1, *network.input_shape, device="meta"))
        scores.sum().backward()
    return int(counter.get_total_flops()) // 2


def recomputed_macs(
    network: Network, checkpoint: tuple[str, ...], freeze: tuple[str, ...] = (), *, autocast: bool = False
) -> int:
    """Return how many more a step has with checkpoints than without."""
    plain = step_macs(network, (), freeze, autocast=autocast)
    return step_macs(network, checkpoint, freeze, autocast=autocast) - plain
