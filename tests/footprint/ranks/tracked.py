"""What MemTracker sees of a rank's step, on real tensors."""

from __future__ import annotations

import gc
from typing import Any

from torch.distributed._tools.mem_tracker import MemTracker

import vggkit
from tests.footprint.ranks.loop import Training, group_of
from vggkit.footprint.steps.options import StepOptions

EARLY = 3
"""So many steps come before the one that is measured: with a static graph buckets are made in the third."""


class Tracker(MemTracker):  # type: ignore[no-untyped-call]  # torch does not type its __init_subclass__
    """MemTracker, but modules may run twice in a step, and run in wrappers that were made before it looked."""

    def _pre_fw_hook(self, *_: Any) -> None:
        return

    def _post_fw_hook(self, *_: Any) -> None:
        return

    def _pre_bw_hook(self, *_: Any) -> None:
        return

    def _post_bw_hook(self, *_: Any) -> None:
        return

    def begin(self) -> None:
        """Forget the peak that was."""
        self._peak_mem, self._peak_mem_snap = {}, {}


def peak_and_buckets(network: vggkit.Network, options: StepOptions) -> tuple[int, list[int]]:
    """Measure the peak of a step that is like all later ones, and the bytes of the buckets that it sends."""
    gc.collect()
    gc.disable()  # tensors die with their last reference only, not when the collector happens to come by
    try:
        with group_of(options), (tracker := Tracker()):
            training = Training(network, options)
            for _ in range(max(EARLY, options.early_steps)):
                training.sent.clear()
                training.step()
            training.sent.clear()
            training.loss = None  # a plan on the CPU does not count the loss of the step before
            tracker.begin()
            training.step()
            peaks: dict[Any, dict[Any, int]] = tracker.get_tracker_snapshot("peak")
            return next(peak["Total"] for device, peak in peaks.items() if device.type == "cpu"), training.sent
    finally:
        gc.enable()
