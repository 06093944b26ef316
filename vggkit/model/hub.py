"""A model's form for the Hugging Face Hub: a folder with its configuration, its weights and a card.

It needs the package huggingface_hub, which vggkit does not install: `pip install "vggkit[hub]"`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from vggkit.base.errors import ArgumentError, CheckpointError, VggkitError, escaped, file_name
from vggkit.base.files import write_text
from vggkit.base.tables import json, markdown, markdown_cell
from vggkit.figures.summary import summarize
from vggkit.footprint.plan import memory
from vggkit.model.build import build
from vggkit.model.module import VGG, vgg_in
from vggkit.model.weights.container import SafeTensors, open_container
from vggkit.model.weights.loading import save_weights
from vggkit.network import Network
from vggkit.notation.config import Config
from vggkit.notation.document import MAX_BYTES, read
from vggkit.notation.layers import times
from vggkit.notation.zoo import loads

try:
    from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
except ImportError:
    raise ImportError(
        'vggkit.model.hub needs huggingface_hub, which is not installed; `pip install "vggkit[hub]"`'
    ) from None

CONFIGURATION, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
"""The files of a model, as the Hub names them."""

TAGS = ("vgg", "vggkit")
"""What the Hub finds the models by, beside the library's name."""


class HubVGG(VGG, PyTorchModelHubMixin, library_name="vggkit", tags=list(TAGS)):
    """A VGG that can be saved in a folder as the Hugging Face Hub has it, sent there, and built again from it.

    `config.json` is the configuration, in the notation's own words, and `model.safetensors` has the weights under their
    names here, so that `vggkit.load_model` and `vggkit inspect` read it as well.

    >>> import tempfile
    >>> from vggkit import build
    >>> folder = tempfile.mkdtemp()
    >>> HubVGG.of(build("A", input="3x32x32", width=0.1)).save_pretrained(folder)
    >>> HubVGG.from_pretrained(folder).config.name
    'A'
    """

    def __init__(self, network: Network, *, softmax: bool = False, checkpoint: str | Iterable[str] = ()) -> None:
        for placed in network:
            name = placed.module.partition(".")[0]
            if hasattr(type(self), name):
                raise ArgumentError(
                    f"{network.name}: no layer can be named {name} in a model for the Hub, which has a method of that"
                    " name"
                )
        super().__init__(network, softmax=softmax, checkpoint=checkpoint)

    @classmethod
    def of(cls, model: torch.nn.Module) -> HubVGG:
        """Return a model's form for the Hub. The two have the same modules, and so the same weights.

        Args:
            model: a model of `vggkit.build`; also as torch.compile or DataParallel wraps it.

        Raises:
            ArgumentError: if it is no such model, or no configuration says what it is.
        """
        model = vgg_in(model)
        with torch.device("meta"):
            form = cls(model.network, softmax=model.ends_in_softmax, checkpoint=model.checkpoint)
        for name, child in model.named_children():
            form.add_module(name, child)
        form._frozen = model._frozen
        form.report = model.report
        form.training = model.training
        return form

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Save the model in a folder: its weights, its configuration, and a card if there is none yet.

        Args:
            save_directory: the folder; it is made if it is not there.
            config: the mixin's; nothing can be given here, as the configuration is the model's own.
            repo_id: the repository's name on the Hub, if the model is sent there; the folder's name if absent.
            push_to_hub: whether the model is sent to the Hub.
            model_card_kwargs: as for `generate_model_card`.
            push_to_hub_kwargs: as for `push_to_hub`.

        Returns:
            The address of the commit on the Hub, if the model was sent there.

        Raises:
            ArgumentError: if no configuration says what the model is, or an argument is outside its allowed values.
            VggkitError: if a file can't be written.
        """
        if config is not None:
            raise ArgumentError(f"config: expected none, since {CONFIGURATION} is the model's own configuration")
        said = config_json(self.config)
        card = self.generate_model_card(**(model_card_kwargs or {}))
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VggkitError(f"{file_name(folder)}: can't be written: {error.strerror}") from None
        save_weights(self, folder / WEIGHTS)
        write_text(folder / CONFIGURATION, said)
        if not (folder / CARD).exists():  # somebody may have written more into it
            write_text(folder / CARD, str(card))
        if not push_to_hub:
            return None
        name = repo_id or folder.name
        return self.push_to_hub(name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> HubVGG:
        """Build the model of a folder or of a repository of the Hub.

        The configuration goes through the checks of every configuration file, and nothing but safetensors is read.

        Args:
            pretrained_model_name_or_path: a folder of `save_pretrained`, or a repository's name on the Hub.
            force_download: whether the files are fetched again if they are there.
            token: who asks the Hub; who is logged in if absent.
            cache_dir: where files of the Hub are kept.
            local_files_only: whether only files that are there are taken.
            revision: the repository's branch, tag or commit.
            options: the keywords of `vggkit.build`, such as device, dtype, softmax, freeze, and head="new" with
                num_classes.

        Returns:
            The model, in evaluation mode as the Hub's models are.

        Raises:
            VggkitError: if a file can't be had.
            ConfigError: if the configuration is wrong.
            CheckpointError: if the weights can't be read, or don't fit.
            ArgumentError: if an argument is outside its allowed values.
        """
        if "weights" in options:
            raise ArgumentError(f"weights: expected none, since they are in {WEIGHTS}")
        source = os.fspath(pretrained_model_name_or_path)
        fetching: dict[str, Any] = {
            "force_download": force_download,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        config = _configuration(_file(source, CONFIGURATION, fetching))
        weights = _file(source, WEIGHTS, fetching)
        container = open_container(weights)
        if not isinstance(container, SafeTensors):
            raise CheckpointError(f"{container.path}: expected safetensors, found {container.format}")
        return cls.of(build(config, weights=weights, **options)).eval()

    def generate_model_card(self, **metadata: Any) -> ModelCard:
        """Return the model's card: what it is and costs, how it is used, and its configuration.

        Args:
            metadata: what else the card's head says, such as license="mit", language="en", datasets=["imagenet-1k"].
                Nothing is said of the weights' licence without it.
        """
        return ModelCard(card(self.network, metadata))


def config_json(config: Config) -> str:
    """Return a configuration as JSON, which `vggkit.loads` reads back as an equal one: JSON is YAML, too.

    >>> from vggkit import load
    >>> config_json(load("A")).splitlines()[1]
    '  "name": "A",'
    """
    return json(read(str(config), config.name, []).plain())


def _file(source: str, name: str, fetching: dict[str, Any]) -> str:
    """Return the path of a file of a folder, or of a repository of the Hub.

    Raises:
        VggkitError: if it can't be had.
    """
    if os.path.isdir(source):
        path = os.path.join(source, name)
        if not os.path.isfile(path):
            raise VggkitError(f"{file_name(path)}: no such file; expected {CONFIGURATION} and {WEIGHTS} in the folder")
        return path
    try:
        return str(hf_hub_download(source, name, **fetching))
    except (OSError, ValueError) as error:  # all of the Hub's errors are one or the other
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise VggkitError(
            f"{escaped(source)}: no folder, and as a repository of the Hub it has no {name} that can be had:"
            f" {escaped(reason)}"
        ) from None


def _configuration(path: str) -> Config:
    """Read a configuration that may be a stranger's.

    Raises:
        ConfigError: if it is wrong.
        VggkitError: if it can't be read.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise VggkitError(f"{file_name(path)}: can't be read: {error.strerror}") from None
    return loads(text, file_name(path))


def card(network: Network, metadata: dict[str, Any]) -> str:
    """Return the text of a model's card.

    Args:
        network: what the model is.
        metadata: what else the card's head says.
    """
    config = network.config
    given = metadata.get("tags") or ()
    head = ModelCardData(
        **{
            "library_name": "vggkit",
            "pipeline_tag": "image-classification" if network.head else "image-feature-extraction",
            **metadata,
            "tags": list(dict.fromkeys([*TAGS, "pytorch_model_hub_mixin", "model_hub_mixin", *given])),
        }
    )
    said = [text for text in (config.source, config.note) if text]
    summary = summarize(network).table()
    parts = [
        f"---\n{head.to_yaml()}\n---",
        f"# {_text(network.name)}",
        f"A VGG network in PyTorch for images of {times(network.input_shape)}, made with vggkit.",
        *map(_text, said),
        "## Use",
        _fence("python", USE),
        "## Layers",
        summary.to_markdown(),
        "\n".join(map(markdown, summary.below)),
        "## Memory",
        *_memory(network),
        "## Configuration",
        _fence("yaml", escaped(str(config), keep="\n")),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


USE = """from vggkit.model.hub import HubVGG

model = HubVGG.from_pretrained("…")  # this repository's name, or a folder with its files
"""


def _memory(network: Network) -> list[str]:
    """Return what a step holds at its peak, for one image: a line and a table for each mode that torch can run."""
    told = []
    for mode in ("inference", "training"):
        with suppress(ArgumentError):
            table = memory(network, mode=mode).table()
            told += [f"{_text(table.title)}:", table.to_markdown()]
    return told


def _text(text: str) -> str:
    """Return a text that is no Markdown and no HTML, on one line."""
    return markdown_cell(escaped(text).replace("&", "&amp;")).replace("#", "\\#")


def _fence(language: str, text: str) -> str:
    """Return a block of code, in a fence that is longer than any in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"
