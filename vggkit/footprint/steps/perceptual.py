"""A step in which the network is a loss: it compares images with a target, and the images are what is changed."""

from __future__ import annotations

from vggkit.base.eager import GRADIENTS, INPUTS, START, TEMPORARIES, Eager, Parameter, Runs, Storage, Tensor
from vggkit.footprint.card import Loop
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.step import ZERO_GRAD, Blocks, Step, made_first
from vggkit.network import Network

RETURN = "return"
"""The event in which the variables of the step are freed."""

CLASSIFIER = "classifier"
"""The extractor runs a classifier's layers as it runs a block's."""


class Perceptual(Step):
    """The second call of `step`:

        extractor = vggkit.features("D", taps, frozen=True)  # with `trainable` frozen=False
        images = torch.zeros(batch, 3, 224, 224, requires_grad=True)
        target = torch.zeros(batch, 3, 224, 224)

        def step():
            images.grad = None
            with torch.no_grad():
                wanted = extractor(target)  # with `cached_target` once, before the first step
            found = extractor(images)
            loss = sum(mse_loss(found[tap], wanted[tap]) for tap in taps)
            loss.backward()

    What changes the images is not part of it. Their gradient stays until the next step. Those of trainable parameters
    stay for ever: whoever changes the images does not know them, and each step adds to them.
    """

    mode = "perceptual"
    words = "a perceptual loss"
    is_training = False

    @classmethod
    def part(cls, network: Network, options: StepOptions) -> Network:
        """Return the network without its classifier, if no tap is in it."""
        return network.trunk_of(options.taps)

    def _walk(self) -> None:
        eager, options = self._eager, self.options
        self._taps = [self.network.layer(name).name for name in options.taps]
        self._tapped: dict[str, _Tapped] = {}
        blocks = self._extractor()
        images, target = self._images(), self._images()
        self._image_gradients: list[Storage] = []
        images.node = eager.leaf(self._image_gradients)
        cached = self._cached(target, blocks) if options.cached_target else None
        self._record()  # the first step makes what follows
        previous = eager.new(*images.size, TEMPORARIES)
        for parameter in self._parameters:
            if parameter.requires_grad:
                parameter.gradient = eager.new(*parameter.size, GRADIENTS)
        eager.note()
        eager.release(previous)  # images.grad = None
        self._of_step = self._record()
        eager.autocast = options.autocast
        wanted = cached or self._activations(target, blocks, "target pass")
        eager.autograd = True
        found = self._activations(images, blocks, "forward")
        eager.start_loss()
        loss = eager.add_losses(eager.mse_loss(found[tap], wanted[tap]) for tap in self._taps)
        self.outputs["loss"] = loss.storage.size
        eager.end_autocast()
        eager.backward(loss)
        eager.event = RETURN
        eager.release(loss, *found.values(), *([] if cached else wanted.values()))

    def _extractor(self) -> Blocks:
        """Allocate what `vggkit.features` builds, and free what it does not keep: the layers after the last tap."""
        layers = self.network.up_to(self._taps)
        frozen = () if self.options.trainable else {placed.name for placed in layers}
        blocks = self._place(layers, frozen)
        built = self.part(self.network, self.options).layers
        others = [self._construct(placed, frozen=True) for placed in built[len(layers) :]]
        for parameters, buffers in others:
            self._eager.release(*parameters.values(), *buffers)
        for _, runs in blocks:
            for place, run in enumerate(runs):
                if run.name in self._taps:
                    self._tapped[run.name] = tapped = _Tapped(run.layer)
                    runs[place] = run._replace(layer=tapped)
        return [(block or CLASSIFIER, runs) for block, runs in blocks]

    def _cached(self, target: Tensor, blocks: Blocks) -> dict[str, Tensor]:
        """Return the target's activations, which are there before the first step."""
        eager = self._eager
        eager.autocast = self.options.autocast
        cached = self._activations(target, blocks, "target pass")
        eager.end_autocast()
        for tensor in cached.values():
            eager.move(tensor.storage, INPUTS)
        eager.event = START
        self.moments.clear()  # they are no moments of a step
        return cached

    def _activations(self, images: Tensor, blocks: Blocks, word: str) -> dict[str, Tensor]:
        """Run the extractor; return what it hands out, by the layers' names, each with a reference."""
        self._eager.release(self._forward(images, blocks, word))
        return {name: tapped.outputs.pop() for name, tapped in self._tapped.items()}

    @property
    def loop(self) -> Loop:
        freed = [(ZERO_GRAD, gradient, False) for gradient in self._image_gradients]
        first = list(made_first(self._of_step, self._eager.added))
        return Loop(before=self._before, first=first, later=[*freed, *self._of_step])

    @property
    def steady_bytes(self) -> int:
        parameters = [parameter.storage for parameter in self._parameters]
        gradients = [parameter.gradient for parameter in self._parameters if parameter.gradient]
        return sum(storage.size for storage in (*parameters, *gradients))


class _Tapped:
    """A layer whose outputs are handed out.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: Runs) -> None:
        self.layer = layer
        self.outputs: list[Tensor] = []

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        """Run the layer, and take one more reference to its output."""
        y = self.layer.run(x, parameters, eager)
        self.outputs.append(eager.alias(y))
        return y
