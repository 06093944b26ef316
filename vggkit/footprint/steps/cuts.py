"""Where a pipeline is cut if nobody says it: so that the largest stage has the least, found exactly.

A stage is an edge from the layer with which it begins to that with which the next one begins, and a cut is a path of as
many edges as there are stages. Of all paths one is taken whose largest edge is the smallest: a dynamic programme over
the stages. A stage's memory is known when its step has been walked through, which takes a while. So each edge has a
lower bound at first. The stages on the best path are walked through, until it has none left that has not been.

Of several such cuts it is one that sends the fewest bytes, found in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import NamedTuple

from vggkit.base.eager import INPUTS, PARAMETERS, Parameter, Storage
from vggkit.base.errors import ArgumentError
from vggkit.footprint.ranks import NO_GROUP, STRATEGIES
from vggkit.footprint.ranks.pipelines import MACS, MEMORY, Stage, received
from vggkit.footprint.ranks.schedules import SCHEDULES
from vggkit.footprint.steps.options import StepOptions
from vggkit.footprint.steps.stage import StageTraining
from vggkit.footprint.steps.training import Training
from vggkit.network import ELEMENT_BYTES, Network, PlacedLayer
from vggkit.notation.layers import elements
from vggkit.notation.spelling import FOLLOWERS

Figure = Callable[["Edge"], int | None]
"""Returns a figure of a stage; None where there can't be such a stage."""


class Edge(NamedTuple):
    """A stage that there may be.

    Args:
        place: which one it is, counted from 0.
        first: the position of its first layer.
        end: the position of the next stage's first layer.
    """

    place: int
    first: int
    end: int


def best_cut(network: Network, options: StepOptions) -> tuple[str, ...]:
    """Return the names with which the stages behind the first begin, of the cut that balances best.

    Cuts are before layers, but not before a normalisation, an activation or a dropout.

    Args:
        network: the network.
        options: what a step is like, checked; the rank does not matter.

    Raises:
        ArgumentError: if there are not as many stages that have a parameter to train.

    >>> from vggkit.footprint.steps.options import checked_options
    >>> network = Network.of("D")
    >>> options = checked_options(network, batch=64, ranks=4, parallel="pipeline", balance="macs")
    >>> best_cut(network, options)
    ('block2_conv2', 'block3_conv3', 'block4_conv3')
    """
    stages = STRATEGIES[options.group.parallel].stages(options.group)
    layers = network.modules()
    begins = [0, *(place for place, placed in enumerate(layers) if place and placed.layer.role not in FOLLOWERS)]
    measure = MEASURES[options.group.balance](network, options, stages)
    figures = Figures(measure)
    path = shortest(begins, len(layers), stages, figures.known, max)
    while path and figures.look_at(path):
        path = shortest(begins, len(layers), stages, figures.known, max)
    if not path:
        most = most_stages(measure, begins)
        raise ArgumentError(
            f"ranks: parallel {options.group.parallel} expected at most {most} stage{'s' * (most > 1)}, as"
            f" {network.name} has no more with a parameter that is trained, found {stages}"
        )
    least = max(figures.exact[edge] for edge in path)

    def sent(edge: Edge) -> int | None:
        figure = figures.known(edge)
        return None if figure is None or figure > least else elements(layers[edge.first].input_shape)

    path = shortest(begins, len(layers), stages, sent, add)
    while figures.look_at(path):
        path = shortest(begins, len(layers), stages, sent, add)
    return tuple(_name(layers, edge.first) for edge in path[1:])


def most_stages(measure: Measure, begins: list[int]) -> int:
    """Return into how many stages with a parameter to train the layers can be cut."""
    count = first = 0
    for end in [*begins[1:], len(measure.layers)]:
        if measure.is_possible(Edge(count, first, end)):
            count, first = count + 1, end
    return count


def _name(layers: tuple[PlacedLayer, ...], position: int) -> str:
    """Return a layer's name; if it is the first one of a block, the block's."""
    block = layers[position].block
    return block if block is not None and block != layers[position - 1].block else layers[position].name


def shortest(begins: list[int], end: int, stages: int, figure: Figure, joined: Callable[[int, int], int]) -> list[Edge]:
    """Return the path of so many stages whose figure is the smallest; the first of several.

    Args:
        begins: where a stage may begin, in order, from 0 on.
        end: the position behind the last layer.
        stages: how many there are.
        figure: of a stage.
        joined: returns that of two parts of a path: the larger one, or the sum.

    Returns:
        The stages; nothing if there is no such path.
    """
    reached: dict[int, tuple[int, list[Edge]]] = {0: (0, [])}
    for place in range(stages):
        behind: dict[int, tuple[int, list[Edge]]] = {}
        for first, (so_far, path) in reached.items():
            for last in [*begins, end]:
                is_possible = last > first and (last == end) == (place == stages - 1)
                own = figure(Edge(place, first, last)) if is_possible else None
                if own is None:
                    continue
                total = joined(so_far, own)
                if last not in behind or total < behind[last][0]:
                    behind[last] = total, [*path, Edge(place, first, last)]
        reached = behind
    return reached[end][1] if reached else []


class Measure(ABC):
    """What the largest stage has the least of."""

    def __init__(self, network: Network, options: StepOptions, stages: int) -> None:
        self.layers = network.modules()
        self.network = network
        self.options = options
        self.stages = stages
        self._frozen = network.parts(options.freeze, "freeze")

    def is_possible(self, edge: Edge) -> bool:
        """Tell whether a stage has a parameter that is trained."""
        layers = self.layers[edge.first : edge.end]
        return any(one.layer.parameters(one.input_shape) and one.name not in self._frozen for one in layers)

    @abstractmethod
    def bound(self, edge: Edge) -> int:
        """Return a figure that a stage's is not below."""

    @abstractmethod
    def exact(self, edge: Edge) -> int:
        """Return a stage's figure."""


class Macs(Measure):
    """Multiply-accumulates of a forward pass."""

    def bound(self, edge: Edge) -> int:
        return sum(one.layer.multiply_accumulates(one.input_shape) for one in self.layers[edge.first : edge.end])

    def exact(self, edge: Edge) -> int:
        return self.bound(edge)


class Memory(Measure):
    """What the rank must have: the peak, and on CUDA what the allocator reserves."""

    def __init__(self, network: Network, options: StepOptions, stages: int) -> None:
        super().__init__(network, options, stages)
        alone = Training(network, options.replace(batch=options.at_once, group=NO_GROUP, device="cpu", allocator=""))
        kept: dict[str, int] = {}
        for storage, name in alone.saved.items():
            kept[name] = kept.get(name, 0) + (0 if storage.kind == INPUTS else storage.size)
        self._kept = _sums(0 if one.block in options.checkpoint else kept.get(one.name, 0) for one in self.layers)
        self._trained = _sums(map(self._trained_bytes, self.layers))
        self._steady = _sums(map(self._steady_bytes, self.layers))
        self._element = ELEMENT_BYTES["bfloat16" if options.autocast else options.dtype]  # of what is sent, at least

    def _parameters(self, placed: PlacedLayer) -> list[Parameter]:
        size = ELEMENT_BYTES[self.options.dtype]
        shapes = placed.layer.parameters(placed.input_shape).values()
        storages = ((shape, elements(shape) * size) for shape in shapes)
        is_trained = placed.name not in self._frozen
        return [Parameter(Storage(0, bytes, bytes, PARAMETERS), shape, size, is_trained) for shape, bytes in storages]

    def _trained_bytes(self, placed: PlacedLayer) -> int:
        return sum(parameter.storage.size for parameter in self._parameters(placed) if parameter.requires_grad)

    def _steady_bytes(self, placed: PlacedLayer) -> int:
        options, parameters = self.options, self._parameters(placed)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        states = sum(sum(options.rules.state(one, options.update, options.device)) for one in trained)
        return states + sum(parameter.storage.size for parameter in parameters)

    def bound(self, edge: Edge) -> int:
        """Return what is there for certain at once: what stays, what microbatches keep, and gradients."""
        place, first, end = edge
        count, images = self.options.microbatches, self.options.at_once
        ahead = SCHEDULES[self.options.group.schedule].ahead(place, self.stages, count)
        kept, trained, steady = (sums[end] - sums[first] for sums in (self._kept, self._trained, self._steady))
        borders = [self.layers[border].input_shape for border in (first, end) if 0 < border < len(self.layers)]
        received = count * images * self._element * sum(map(elements, borders))
        running = ahead if count > ahead else ahead - 1  # when the first gradients are there
        return steady + received + max(ahead * kept, trained + running * kept)

    def exact(self, edge: Edge) -> int:
        """Return what a walk says."""
        layers = self.layers[edge.first : edge.end]
        stage = Stage(edge.place, self.stages, received(layers) if edge.first else layers)
        blocks = {one.block for one in layers}
        inside = tuple(block for block in self.options.checkpoint if block in blocks)
        return _taken(self.network, self.options.replace(checkpoint=inside), stage)


@lru_cache(maxsize=4096)
def _taken(network: Network, options: StepOptions, stage: Stage) -> int:
    """Return what a stage takes; of the steps that a search tries, many have the same stages."""
    step = StageTraining(network, options, stage)
    return step.peak.size if options.device == "cpu" else step.card_use().reserved_bytes


MEASURES: dict[str, type[Measure]] = {MEMORY: Memory, MACS: Macs}
"""What can be balanced, by the word that asks for it."""


class Figures:
    """The figures of stages, as far as they are known.

    Args:
        measure: what works them out.

    Attributes:
        exact: those that have been worked out; of the others there are lower bounds.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._bounds: dict[Edge, int | None] = {}
        self.exact: dict[Edge, int] = {}

    def known(self, edge: Edge) -> int | None:
        """Return a stage's figure or a lower bound; None where there can't be such a stage."""
        if edge not in self._bounds:
            self._bounds[edge] = self._measure.bound(edge) if self._measure.is_possible(edge) else None
        return self.exact.get(edge, self._bounds[edge])

    def look_at(self, path: Iterable[Edge]) -> bool:
        """Work out the figures of a path's stages; tell whether there was anything to work out."""
        unknown = [edge for edge in path if edge not in self.exact]
        self.exact.update({edge: self._measure.exact(edge) for edge in unknown})
        return bool(unknown)


def _sums(numbers: Iterable[int]) -> list[int]:
    """Return the sums of the first numbers, from none to all."""
    return list(accumulate(numbers, initial=0))
