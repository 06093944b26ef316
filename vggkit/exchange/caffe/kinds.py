"""The types of Caffe's layers: one class for each, with how it is read and how it is written."""

from __future__ import annotations

from vggkit.exchange.caffe.activations import ELU, Clip, ReLU, Sigmoid, Swish, TanH
from vggkit.exchange.caffe.head import Dropout, Flatten, InnerProduct, Log, Softmax, SoftmaxWithLoss
from vggkit.exchange.caffe.norms import BatchNorm, LocalResponseNorm, Scale
from vggkit.exchange.caffe.rules import CaffeKind
from vggkit.exchange.caffe.windows import Convolution, Pooling
from vggkit.notation.layers import Layer

_ALL: tuple[CaffeKind, ...] = (
    Convolution(), InnerProduct(), Pooling(), LocalResponseNorm(), BatchNorm(), Scale(), Dropout(), ReLU(), ELU(),
    Swish(), Clip(), Sigmoid(), TanH(), Softmax(), SoftmaxWithLoss(), Log(), Flatten(),
)  # fmt: skip

CAFFE_KINDS: dict[str, CaffeKind] = {kind.word: kind for kind in _ALL}
"""Every type that is read, by its word."""

WRITING: dict[type[Layer], CaffeKind] = {layer: kind for kind in _ALL for layer in kind.takes}
"""What each layer is written as."""
