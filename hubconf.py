"""Entry points for `torch.hub`: the paper's configurations, and any other by name or file.

    import torch
    model = torch.hub.load("path/to/a/checkout", "vgg16", source="local", pretrained=True)

Each takes the keywords of `vggkit.build`. For a repository on GitHub
`torch.hub.list` names the entry points, and `torch.hub.help` describes one.
"""

from __future__ import annotations

from collections.abc import Callable as _Callable
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from vggkit import VGG

dependencies = ["torch", "click", "h5py", "msgspec", "numpy", "safetensors", "yaml"]
"""What torch.hub looks for before it calls an entry point."""


def vgg(config: _Any, pretrained: bool = False, **options: _Any) -> VGG:
    """Build a VGG network as a PyTorch model.

    Args:
        config: a name such as "D" or "vgg16_bn", the path of a YAML file, or a Config.
        pretrained: whether the model has the weights that were published for ImageNet; the same as weights="imagenet".
        options: the keywords of `vggkit.build`, such as num_classes=10, weights="model.safetensors", init="xavier",
            seed=0, dtype="bfloat16" and device="cuda".

    Returns:
        The model, in training mode.

    Raises:
        ConfigError: if the configuration can't be found or is wrong.
        ArgumentError: if an argument is outside its allowed values.
        CheckpointError: if the weights can't be read, or don't fit.
    """
    from vggkit import ArgumentError, build

    if not isinstance(pretrained, bool):
        raise ArgumentError(f"pretrained: expected True or False, found {pretrained!r}")
    if pretrained and options.get("weights") is not None:
        raise ArgumentError("pretrained: expected no weights= with it: one of them says which weights")
    if pretrained:
        options["weights"] = "imagenet"
    return build(config, **options)


def _entry_point(name: str, config: str, what: str) -> _Callable[..., VGG]:
    """Return the entry point of one configuration."""

    def build(pretrained: bool = False, **options: _Any) -> VGG:
        return vgg(config, pretrained, **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""{what}, as a PyTorch model.

    Args:
        pretrained: whether the model has the weights that were published for ImageNet; the same as weights="imagenet".
        options: the keywords of `vggkit.build`, such as num_classes=10, weights="model.safetensors", init="xavier",
            seed=0, dtype="bfloat16" and device="cuda".

    Returns:
        The model, in training mode.
    """
    return build


A = _entry_point("A", "A", "Configuration A of the paper, with 11 weight layers")
A_LRN = _entry_point("A_LRN", "A-LRN", "Configuration A-LRN of the paper: A with local response normalization")
B = _entry_point("B", "B", "Configuration B of the paper, with 13 weight layers")
C = _entry_point("C", "C", "Configuration C of the paper, with 16 weight layers, three of them 1×1 convolutions")
D = _entry_point("D", "D", "Configuration D of the paper, with 16 weight layers")
E = _entry_point("E", "E", "Configuration E of the paper, with 19 weight layers")

vgg11 = _entry_point("vgg11", "vgg11", "VGG-11, configuration A of the paper")
vgg13 = _entry_point("vgg13", "vgg13", "VGG-13, configuration B of the paper")
vgg16 = _entry_point("vgg16", "vgg16", "VGG-16, configuration D of the paper")
vgg19 = _entry_point("vgg19", "vgg19", "VGG-19, configuration E of the paper")
vgg11_bn = _entry_point("vgg11_bn", "vgg11_bn", "VGG-11 with batch norm, which the paper does not have")
vgg13_bn = _entry_point("vgg13_bn", "vgg13_bn", "VGG-13 with batch norm, which the paper does not have")
vgg16_bn = _entry_point("vgg16_bn", "vgg16_bn", "VGG-16 with batch norm, which the paper does not have")
vgg19_bn = _entry_point("vgg19_bn", "vgg19_bn", "VGG-19 with batch norm, which the paper does not have")
