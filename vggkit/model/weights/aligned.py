"""Safetensors files whose values are aligned in memory when the file is mapped.

The safetensors library puts the smallest dtypes last and pads the header to 8 bytes, so that mapped weights lie at odd
addresses, where matrix kernels round otherwise than on torch's own memory. The format leaves the order of the tensors
and the header's padding to the writer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO

import torch
from torch import Tensor

from vggkit.base.errors import ArgumentError
from vggkit.model.weights.container import ALIGNMENT, SafeTensors

DTYPES = {torch_name: name for name, torch_name in SafeTensors.DTYPES.items()}


def write_safetensors(file: IO[bytes], state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, one after the other, without a second copy of them all.

    Args:
        file: where to.
        state: the tensors by name.
        metadata: further text for the header.

    Raises:
        OSError: if it can't be written.
        ArgumentError: if a tensor's dtype has no place in the format.
    """
    # sizes that keep what follows aligned first: counters of a few bytes last
    names = sorted(state, key=lambda name: (_size(state[name]) % ALIGNMENT != 0, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor, begin = state[name], end
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ArgumentError(f"{name}: expected one of {', '.join(DTYPES)}, found {dtype}")
        end = begin + _size(tensor)
        header[name] = {"dtype": DTYPES[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in names:
        file.write(_bytes(state[name]).numpy().data)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
