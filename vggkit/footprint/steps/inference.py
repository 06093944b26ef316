"""A forward pass without gradients."""

from __future__ import annotations

from vggkit.footprint.card import Loop
from vggkit.footprint.steps.step import Step


class Inference(Step):
    """One forward pass in `eval()` mode without gradients: `scores = model(images)`.

    The scores of the step before live until the new ones are there.
    """

    mode = "inference"
    words = "inference"
    is_training = False

    def _walk(self) -> None:
        eager = self._eager
        blocks = self._place(self.network.modules())
        images = self._images()
        eager.note()
        eager.autocast = self.options.autocast
        self._of_forward = self._record()
        scores = self._forward(images, blocks)
        eager.end_autocast()
        self._scores = None if scores.storage is images.storage else scores.storage

    @property
    def loop(self) -> Loop:
        forward = self._of_forward
        replaced = [] if self._scores is None else [(forward[-1][0], self._scores, False)]
        return Loop(before=self._before, first=forward, later=[*forward, *replaced])

    @property
    def steady_bytes(self) -> int:
        return sum(parameter.storage.size for parameter in self._parameters)
