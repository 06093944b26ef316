"""A step that trains the network."""

from __future__ import annotations

from vggkit.base.eager import GRADIENTS, INDEX_BYTES, INPUTS, OPTIMIZER
from vggkit.footprint.card import Loop
from vggkit.footprint.optimizers import OPTIMIZERS
from vggkit.footprint.steps.step import OPTIMIZER_STEP, ZERO_GRAD, Step
from vggkit.notation.layers import elements


class Training(Step):
    """The second step of a training loop, when the optimizer has its state.

    `zero_grad(set_to_none=True)`, forward pass, cross-entropy, backward pass, optimizer step. The loss of the step
    before lives until the new one is there.
    """

    mode = "training"
    words = "a training step"
    is_training = True

    def _walk(self) -> None:
        eager, options = self._eager, self.options
        blocks = self._place_layers()
        images = self._images()
        places = elements(self.network.output_shape[1:])  # a trunk ends in maps, with a label for each position
        labels = eager.new(places * INDEX_BYTES, kind=INPUTS)
        optimizer = OPTIMIZERS[options.optimizer]
        sizes = [parameter.storage.constant for parameter in self._parameters if parameter.requires_grad]
        self._record()  # the first step makes these
        states = [state for size in sizes for state in optimizer.state(size, options.device)]
        self._states = [eager.new(0, size, OPTIMIZER) for size in states]
        self._gradients = [eager.new(0, size, GRADIENTS) for size in sizes]
        eager.note()
        eager.release(*self._gradients)  # zero_grad(set_to_none=True)
        self._of_forward = self._record()
        eager.autocast = options.autocast
        logits = self._forward(images, blocks)
        loss = eager.cross_entropy(logits, labels)
        self._loss, self.outputs["loss"] = loss.storage, loss.storage.size
        eager.release(logits)
        eager.end_autocast()
        self._of_backward = self._record()
        if loss.node is not None:
            eager.backward(loss)
        self._of_update = self._record()
        eager.event, eager.kind = OPTIMIZER_STEP, OPTIMIZER
        optimizer.step(sizes, eager)
        self._record()
        eager.release(loss)

    @property
    def loop(self) -> Loop:
        gradients = [parameter.gradient for parameter in self._parameters]
        forward = self._of_forward
        made = [(OPTIMIZER_STEP, state, True) for state in self._states]
        freed = [(ZERO_GRAD, gradient, False) for gradient in gradients if gradient is not None]
        replaced = [(forward[-1][0], self._loss, False)]
        return Loop(
            before=self._before,
            first=[*forward, *self._of_backward, *made, *self._of_update],
            later=[*freed, *forward, *replaced, *self._of_backward, *self._of_update],
        )

    @property
    def steady_bytes(self) -> int:
        parameters = [parameter.storage for parameter in self._parameters]
        return sum(storage.size for storage in (*parameters, *self._gradients, *self._states))
