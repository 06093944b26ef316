"""Pictures → classes, prepared as the weights were trained."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from msgspec.structs import replace
from torch import Tensor

from vggkit.base.errors import ArgumentError, PictureError, file_name, shorten
from vggkit.base.numbers import whole
from vggkit.classify.labels import Label, imagenet_labels, read_labels
from vggkit.classify.pictures import decode, to_array
from vggkit.classify.predictions import Classified, Prediction
from vggkit.model.build import build, load_model
from vggkit.model.module import VGG, LoadReport, to_fully_convolutional
from vggkit.model.weights.layouts import LAYOUTS
from vggkit.model.weights.published import Passport, of_file
from vggkit.network import Network
from vggkit.notation.config import Config
from vggkit.notation.layers import times
from vggkit.notation.preprocess import CHANNELS, PRESETS, Preprocess, parse_preprocess

if TYPE_CHECKING:
    from PIL import Image

IMAGENET_CLASSES = 1000


class Classifier:
    """Names what is in pictures: a network with its weights, the names of its classes, and how pictures are prepared.

    Args:
        config: a name, a path, a Config or a Network; None recognises it from the weights.
        weights: a checkpoint, or "imagenet".
        labels: names of the classes: a file, or a list. If absent, ImageNet's for 1000 classes.
        preprocess: "torch", "timm", "keras", or options as in a configuration's `preprocess:`. If absent, what the
            configuration or the publisher of the weights says.
        dense: whether to classify whole pictures, averaging the scores over all positions (paper, Sect. 3.2).
        device: where it runs, as torch names it; None is torch's default.
        dtype: of the parameters.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        CheckpointError: if the weights can't be read, or don't fit.
        ArgumentError: if the number of labels is not that of the classes, nothing says how pictures are prepared, the
            weights have no classifier, or the device can't be used.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Config | Network | None = None,
        *,
        weights: str | os.PathLike[str],
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        preprocess: Any = None,
        dense: bool = False,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        model = _model(config, weights, _usable(device), dtype)
        network = model.network
        assert model.report is not None
        self.report = model.report
        passport = of_file(self.report.source)
        _check_classifier(network, passport)
        self.labels = _labels(labels, network)
        self.preprocess, self.preprocess_origin = _preprocess(preprocess, network, self.report, passport)
        if dense:
            self.preprocess = replace(self.preprocess, crop=None)
            model = to_fully_convolutional(model)
        elif not _takes_any_size(network):
            _check_size(self.preprocess, network)
        self.dense = dense
        self.model = model.eval()
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype

    @property
    def network(self) -> Network:
        """The network."""
        return self.model.network

    def predict(self, images: Any, top: SupportsIndex = 5) -> list[list[Prediction]]:
        """Classify pictures.

        Args:
            images: a path, a Pillow image, or a list of them.
            top: how many classes for each.

        Returns:
            For each picture its likeliest classes, the likeliest first.

        Raises:
            PictureError: if a picture can't be read, or is too small for the network.
            ArgumentError: if `images` are something else, or `top` is not a whole number from 1.
        """
        top = whole(top, "top")
        single = isinstance(images, (str, os.PathLike)) or not isinstance(images, Iterable)
        inputs = [self._input(image) for image in ([images] if single else images)]
        return [predictions for batch in _batches(inputs, 16) for predictions in self._classes(batch, top)]

    def stream(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        top: SupportsIndex = 5,
        batch: SupportsIndex = 16,
        workers: SupportsIndex | None = None,
    ) -> Iterator[Classified | PictureError]:
        """Classify many pictures, decoding the next ones while a batch is in the network.

        Args:
            paths: the pictures.
            top: how many classes for each.
            batch: how many pictures at once.
            workers: threads that decode; None is one for each processor, at most 8.

        Returns:
            For each picture, in order, its classes, or the error that says why it has none.

        Raises:
            ArgumentError: if a number is out of its range.
        """
        threads = min(8, os.cpu_count() or 1) if workers is None else workers
        numbers = (whole(top, "top"), whole(batch, "batch"), whole(threads, "workers"))
        return self._stream([os.fspath(path) for path in paths], *numbers)

    def _stream(self, paths: list[str], top: int, batch: int, workers: int) -> Iterator[Classified | PictureError]:
        pool = ThreadPoolExecutor(workers)
        try:
            waiting: list[Future[Any]] = [pool.submit(self._decoded, path) for path in paths[: 2 * batch]]
            following = iter(paths[2 * batch :])
            for start in range(0, len(paths), batch):
                names = paths[start : start + batch]
                decoded = [future.result() for future in waiting[: len(names)]]
                del waiting[: len(names)]
                waiting += [pool.submit(self._decoded, path) for path in islice(following, len(names))]
                yield from self._classified(names, decoded, top)
        finally:
            pool.shutdown(cancel_futures=True)  # a caller who stops early does not wait for the next batches

    def _classified(self, names: list[str], decoded: list[Any], top: int) -> list[Classified | PictureError]:
        """Classify what could be decoded, pictures of one size together, and return everything in order."""
        results: dict[int, Classified | PictureError] = {}
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, found in enumerate(decoded):
            if isinstance(found, PictureError):
                results[index] = found
            else:
                sizes.setdefault(tuple(found.shape), []).append(index)
        for indexes in sizes.values():
            try:
                for index, classes in zip(indexes, self._classes([decoded[index] for index in indexes], top)):
                    results[index] = Classified(names[index], classes)
            except PictureError as error:
                for index in indexes:
                    results[index] = PictureError(f"{file_name(names[index])}: {error}")
        return [results[index] for index in range(len(names))]

    def _decoded(self, path: str) -> Tensor | PictureError:
        try:
            return torch.from_numpy(decode(path, self.preprocess))
        except PictureError as error:
            return error

    def _input(self, image: str | os.PathLike[str] | Image.Image) -> Tensor:
        if isinstance(image, (str, os.PathLike)):
            return torch.from_numpy(decode(image, self.preprocess))
        if not hasattr(image, "convert"):
            raise ArgumentError(f"images: expected paths or Pillow images, found {shorten(type(image).__name__)}")
        return torch.from_numpy(to_array(image, self.preprocess))

    def _classes(self, inputs: Sequence[Tensor], top: int) -> list[list[Prediction]]:
        with torch.inference_mode():
            x = torch.stack(list(inputs)).to(self._device, self._dtype)
            try:
                scores = self.model(x).float()
            except (ValueError, RuntimeError) as error:
                raise _unfit(self.network, x, error) from None
            best = scores.softmax(1).topk(min(top, scores.shape[1]))
        return [
            [
                Prediction(self.labels[index].name, self.labels[index].wordnet_id, index, probability)
                for probability, index in zip(values, indexes)
            ]
            for values, indexes in zip(best.values.tolist(), best.indices.tolist())
        ]


def _model(config: Any, weights: str | os.PathLike[str], device: Any, dtype: Any) -> VGG:
    if config is None and os.fspath(weights) == "imagenet":
        raise ArgumentError("config: expected a configuration with weights='imagenet', such as D")
    if config is None:
        return load_model(weights, device=device, dtype=dtype)
    return build(config, weights=weights, device=device, dtype=dtype)


def _usable(device: str | torch.device | None) -> str | torch.device | None:
    """Return the device if this machine has it; a name that torch does not know is left to `build`."""
    try:
        found = torch.get_default_device() if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        return device
    if found.type == "meta":
        raise ArgumentError("device: 'meta' holds no values; expected another")
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"device: '{found}' can't be used here: {_reason(error)}") from None
    return device


def _check_classifier(network: Network, passport: Passport | None) -> None:
    if len(network.output_shape) != 1 or not network.head:
        raise ArgumentError(f"weights: {network.name} has no classifier; its output is {times(network.output_shape)}")
    if passport is not None and not passport.classifier:
        raise ArgumentError(
            f"weights: {passport.file} of {passport.origin} is published for its features; its classifier can't be used"
        )


def _labels(labels: Any, network: Network) -> tuple[Label, ...]:
    classes = network.output_shape[0]
    if labels is None:
        if classes == IMAGENET_CLASSES:
            return imagenet_labels()
        return tuple(Label(f"class {index}") for index in range(classes))
    found = (
        read_labels(labels) if isinstance(labels, (str, os.PathLike)) else tuple(Label(str(name)) for name in labels)
    )
    if len(found) != classes:
        where = file_name(labels) if isinstance(labels, (str, os.PathLike)) else "labels"
        raise ArgumentError(
            f"{where}: expected {classes} labels, one for each class of {network.name}, found {len(found)}"
        )
    return found


def _preprocess(given: Any, network: Network, report: LoadReport, passport: Passport | None) -> tuple[Preprocess, str]:
    """Return how pictures are prepared, and who says so. A preparation for another size is scaled to the network's."""
    if given is not None:
        try:
            chosen = given if isinstance(given, Preprocess) else parse_preprocess(given)
        except ValueError as error:
            raise ArgumentError(f"preprocess: {error}") from None
        _check_channels(chosen, network, "preprocess")
        return (_scaled(chosen, network) if isinstance(given, str) else chosen), "as asked for"
    if network.config.preprocess is not None:
        _check_channels(network.config.preprocess, network, "preprocess")
        return network.config.preprocess, f"the configuration {network.name}"
    if passport is not None:
        published = parse_preprocess(passport.preprocess)
        _check_channels(published, network, "weights")
        return _scaled(published, network), f"{passport.origin}, {passport.file}"
    preset = LAYOUTS[report.layout].preset if report.layout in LAYOUTS else None
    if preset is None or network.input_shape[0] != 3:
        raise ArgumentError(
            f"{file_name(report.source)}: nothing says how pictures are prepared for it; give preprocess="
            f" (--preprocess), one of {', '.join(PRESETS)} or options such as {{resize: 32, scale: 255}}, or add"
            f" preprocess: to the configuration"
        )
    return _scaled(PRESETS[preset], network), f"usual for {report.layout}'s layout"


def _check_channels(preprocess: Preprocess, network: Network, argument: str) -> None:
    channels = CHANNELS[preprocess.colour]
    if channels != network.input_shape[0]:
        raise ArgumentError(
            f"{argument}: {network.name} takes images of {network.input_shape[0]} channels, and colour"
            f" {preprocess.colour} has {channels}"
        )


def _takes_any_size(network: Network) -> bool:
    return any(placed.layer.fixes_size for placed in network if placed.block is None)


def _ends_in(preprocess: Preprocess, size: tuple[int, int]) -> bool:
    if preprocess.crop is None:
        return preprocess.resize == size
    return preprocess.crop in (size, size[0] if size[0] == size[1] else None)


def _scaled(preprocess: Preprocess, network: Network) -> Preprocess:
    """Return a preparation that ends in the network's input size and cuts away the same share as before."""
    size = network.input_shape[1], network.input_shape[2]
    if _ends_in(preprocess, size):
        return preprocess
    if preprocess.crop is None:
        return replace(preprocess, resize=size)
    old = preprocess.crop if isinstance(preprocess.crop, int) else min(preprocess.crop)
    resize = preprocess.resize if isinstance(preprocess.resize, int) else old
    return replace(preprocess, resize=round(resize * max(size) / old), crop=size)


def _check_size(preprocess: Preprocess, network: Network) -> None:
    height, width = network.input_shape[1:]
    if not _ends_in(preprocess, (height, width)):
        raise ArgumentError(
            f"preprocess: {network.name} takes pictures of {height}×{width}; expected crop: {height}x{width}, or"
            f" resize: {height}x{width} without a crop"
        )


def _unfit(network: Network, x: Tensor, error: Exception) -> PictureError:
    reason = _reason(error).removeprefix(f"{network.name}: ")
    return PictureError(f"{network.name} can't take pictures of {times(tuple(x.shape[2:]))}: {reason}")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _batches(inputs: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Return inputs in batches of one size each, in order."""
    batch: list[Tensor] = []
    for tensor in inputs:
        if batch and (len(batch) == size or batch[0].shape != tensor.shape):
            yield batch
            batch = []
        batch.append(tensor)
    if batch:
        yield batch
