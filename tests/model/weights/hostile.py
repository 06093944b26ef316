"""Files that mean harm, made in code, and what they cost: `python -m tests.model.weights.hostile FILE...`.

Each is small and asks for much: memory, time, another file, code, a terminal's obedience. Each ends in one line.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

MOST_MEMORY = 500 * 10**6
"""Bytes that a hostile file may take beyond what is imported."""
MOST_SECONDS = 10
"""Of processor time."""

Maker = Callable[[Path], None]
"""Writes a file."""

FILES: dict[str, tuple[Maker, str]] = {}
"""The hostile files by their names, with what their refusal says."""


def hostile(name: str, says: str) -> Callable[[Maker], Maker]:
    """Add a file to the list."""

    def add(maker: Maker) -> Maker:
        FILES[name] = maker, says
        return maker

    return add


# PyTorch


def zipped(target: Any, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    """Write a zip archive, the same at any time of day."""
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    """Write a zip archive as torch.save does."""
    zipped(path, {f"archive/{name}": content for name, content in members.items()}, method)


def pickled(*steps: bytes) -> dict[str, bytes]:
    """Return an archive's member with a pickle of these steps."""
    return {"data.pkl": b"\x80\x02" + b"".join(steps) + b".", "version": b"3\n", "byteorder": b"little"}


def text(word: str) -> bytes:
    """Return the step that makes a text."""
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def number(value: int) -> bytes:
    """Return the step that makes an integer."""
    return b"J" + struct.pack("<i", value)


def tensor(storage: str = "FloatStorage", elements: int = 4, shape: bytes = number(4) + b"\x85") -> bytes:
    """Return the steps that make a tensor of values "0"."""
    persistent = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text("0") + text("cpu") + number(elements)
    ordered = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + (persistent + b"tQ" + number(0) + shape + number(1) + b"\x85\x89" + ordered)
        + b"tR"
    )


def saved(path: Path, state: Any, **options: Any) -> None:
    """Save with torch."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, path, **options)


@hostile("meta.pth", "a tensor on the meta device, which has no values")
def _(path: Path) -> None:
    import torch

    saved(path, {"features.0.weight": torch.empty(8, 3, 3, 3, device="meta")})


@hostile("quantised.pth", "a quantised tensor")
def _(path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved(path, {"features.0.weight": torch.quantize_per_tensor(torch.rand(8, 3, 3, 3), 0.1, 0, torch.qint8)})


@hostile("sparse.pth", "a sparse tensor")
def _(path: Path) -> None:
    import torch

    saved(path, {"features.0.weight": torch.eye(3).to_sparse()})


@hostile("nested.pth", "a nested tensor")
def _(path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved(path, {"features.0.weight": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])})


@hostile("conjugate.pth", "a conjugate or negative view")
def _(path: Path) -> None:
    import torch

    saved(path, {"features.0.weight": torch.zeros(8, 3, 3, 3, dtype=torch.complex64).conj()})


@hostile("bytearray.pth", "it asks for __builtin__.bytearray")
def _(path: Path) -> None:
    huge = b"\x8a\x05" + (5 * 2**30).to_bytes(5, "little")
    archive(path, pickled(b"c__builtin__\nbytearray\n", huge, b"\x85R"))


@hostile("deflated.pth", "'archive/data.pkl' is compressed")
def _(path: Path) -> None:
    archive(path, pickled(b"}", b"0}" * 2**24), zipfile.ZIP_DEFLATED)


@hostile("tuple_key.pth", "a key that is no name")
def _(path: Path) -> None:
    archive(path, pickled(b"}", b")", b"q\x00h\x00\x86" * 60, b"Ns"))


@hostile("itself.pth", "expected a state dict, names with tensors, found keys such as ['model']")
def _(path: Path) -> None:
    archive(path, pickled(b"}q\x00", text("model"), b"h\x00s"))


@hostile("items.pth", "expected a state dict, names with tensors, found keys such as []")
def _(path: Path) -> None:
    archive(path, pickled(b"ccollections\nOrderedDict\n)R", b"}", text("items"), b"Nsb"))


@hostile("twice.pth", "'w' is there twice")
def _(path: Path) -> None:
    archive(path, pickled(b"}(", text("w"), tensor(), text("w"), tensor(), b"u") | {"data/0": bytes(16)})


@hostile("steps.pth", "its pickle has more than 1,048,576 steps")
def _(path: Path) -> None:
    archive(path, pickled(b"]" * 2**22))


@hostile("long.pth", "'archive/data.pkl' has 67,108,872 bytes")
def _(path: Path) -> None:
    archive(path, pickled(b"X" + struct.pack("<I", 2**26) + b"x" * 2**26))


@hostile("collisions.pth", "a key that is no name")
def _(path: Path) -> None:
    keys = (b"\x8a\x10" + (at * (2**61 - 1)).to_bytes(16, "little") + b"N" for at in range(2**10, 2**17))
    archive(path, pickled(b"}(", b"".join(keys), b"u"))


@hostile("views.pth", "claim 9,437,184 bytes")
def _(path: Path) -> None:
    import torch

    one = torch.zeros(1).expand(512, 512, 3, 3)
    saved(path, {f"features.{number}.weight": one for number in range(100)})


@hostile("dimensions.pth", "a tensor without a shape")
def _(path: Path) -> None:
    shape = b"(" + number(1) * 10**5 + b"t"
    archive(path, pickled(b"}", text("w"), tensor(shape=shape), b"s") | {"data/0": bytes(16)})


@hostile("outside.pth", "'w' is larger than its values in the file")
def _(path: Path) -> None:
    archive(path, pickled(b"}", text("w"), tensor(elements=2**30), b"s") | {"data/0": bytes(16)})


@hostile("values.pth", "'w' has no values in the file")
def _(path: Path) -> None:
    archive(path, pickled(b"}", text("w"), tensor(), b"s"))


@hostile("dtype.pth", "it asks for torch.QInt8Storage")
def _(path: Path) -> None:
    archive(path, pickled(b"}", text("w"), tensor("QInt8Storage"), b"s") | {"data/0": bytes(16)})


@hostile("opcode.pth", "with the step STACK_GLOBAL")
def _(path: Path) -> None:
    archive(path, pickled(text("os"), text("system"), b"\x93"))


@hostile("members.pth", "there are two members named 'archive/data.pkl'")
def _(path: Path) -> None:
    archive(path, pickled(b"}"))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as target:
        warnings.simplefilter("ignore")
        target.writestr("archive/data.pkl", b"")


@hostile("directory.pth", "found a directory of 10,600,000 bytes")
def _(path: Path) -> None:
    content = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0) + b"%07d" % at
        for at in range(200_000)
    )
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(content), 4, 0)
    path.write_bytes(b"PK\x03\x04" + content + end)


@hostile("big_endian.pth", "expected little-endian values")
def _(path: Path) -> None:
    archive(path, pickled(b"}") | {"byteorder": b"big"})


@hostile("script.pth", "expected a module of TorchScript, found something else in its data.pkl")
def _(path: Path) -> None:
    archive(path, pickled(b"}") | {"constants.pkl": b"\x80\x02)."})


@hostile("member.pth", "'archive/data.pkl' claims 4,000,000,000 bytes, in a file of")
def _(path: Path) -> None:
    archive(path, pickled(b"}"))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 20 : at + 28] = (4 * 10**9).to_bytes(4, "little") * 2
    path.write_bytes(content)


LEGACY = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


@hostile("legacy.pth", "it ends before its values do")
def _(path: Path) -> None:
    state = b"\x80\x02}" + text("w") + tensor().replace(b"tQ", b"NtQ", 1) + b"s."
    path.write_bytes(LEGACY + state + pickle.dumps(["0"], 2) + struct.pack("<q", 2**40) + bytes(16))


@hostile("plain.pth", "a pickle, but none of torch.save")
def _(path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": 1}, 2) * 3)


# safetensors


def header(path: Path, text: str, values: int = 0) -> None:
    """Write a safetensors file with a header as it stands here."""
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode() + bytes(values))


def tensors(path: Path, shapes: dict[str, list[int]], dtype: str = "U8") -> None:
    """Write a safetensors file of tensors of a byte each."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 1
        for side in shape:
            size *= side
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header(path, json.dumps(entries), end)


KERNEL = [8, 3, 3, 3]


@hostile("bias.safetensors", "expected weights of convolutions or FC layers")
def _(path: Path) -> None:
    tensors(path, {"pre_logits.fc1.bias": [4]})


@hostile("scalar.safetensors", "expected weights of convolutions or FC layers")
def _(path: Path) -> None:
    tensors(path, {"pre_logits.fc1.weight": []})


@hostile("digits.safetensors", "a tensor's name has 5,016 characters")
def _(path: Path) -> None:
    tensors(path, {f"features.{'9' * 5000}.weight": KERNEL})


@hostile("module.safetensors", "a tensor's name has 700,017 characters")
def _(path: Path) -> None:
    tensors(path, {"module." * 100_000 + "features.0.weight": KERNEL})


@hostile("modules.safetensors", "are no chain of convolutions")
def _(path: Path) -> None:
    tensors(path, {"module." * 140 + f"{number}.weight": [1, 1, 1, 1] for number in range(5_000)})


@hostile("escape.safetensors", r"a tensor's name has control characters: '\x1b[2J")
def _(path: Path) -> None:
    tensors(path, {"\x1b[2J\x1b]0;x\x07.weight": KERNEL})


@hostile("newline.safetensors", r"a tensor's name has control characters: 'a\nError")
def _(path: Path) -> None:
    tensors(path, {"a\nError: b.weight": KERNEL})


@hostile("names.safetensors", "are no chain of convolutions")
def _(path: Path) -> None:
    tensors(path, {"=cmd|' /C calc'!A0.weight": [1, 3, 3, 3], "x|y.weight": [1, 3, 3, 3], "@x.weight": [2, 2]})


@hostile("twice.safetensors", "its header has 'w.weight' twice")
def _(path: Path) -> None:
    entry = '"w.weight": {"dtype": "U8", "shape": [1, 1, 1, 1], "data_offsets": [0, 1]}'
    header(path, f"{{{entry}, {entry}}}", 1)


@hostile("header.safetensors", "found one of 10,000,002 bytes")
def _(path: Path) -> None:
    header(path, "{" + " " * 10**7 + "}")


@hostile("many.safetensors", "found one of")
def _(path: Path) -> None:
    tensors(path, {f"{number}.weight": [1, 1, 1, 1] for number in range(120_000)})


# HDF5 and Keras


@hostile("empty.h5", "'conv/kernel' claims 8,000,000,000 bytes and has not all of its values")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("conv/kernel", (2 * 10**9,), "f4", chunks=(2**16,))


@hostile("late.h5", "'conv/kernel' claims 8,000,000,000 bytes and has no values")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("conv/kernel", (2 * 10**9,), "f4")


@hostile("gzip.h5", "in a file of")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("conv/kernel", (2**26,), "f4", chunks=(2**22,), compression="gzip")
        packed = zlib.compress(bytes(2**24))
        for at in range(0, 2**26, 2**22):
            data.id.write_direct_chunk((at,), packed)


def zeros(times: int) -> bytes:
    """Return many times 16 MiB of zeros, compressed: behind a full flush the same bytes are packed as before it."""
    block, header, checksum = bytes(2**24), 2, 1
    packer = zlib.compressobj(9)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(times):
        checksum = zlib.adler32(block, checksum)
    end = zlib.compressobj(9, wbits=-zlib.MAX_WBITS).flush() + checksum.to_bytes(4, "big")
    return first + (times - 1) * first[header:] + end


@hostile("wide.h5", "can't be read as HDF5")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("conv/kernel", (16,), "f4", chunks=(16,), compression="gzip")
        data.id.write_direct_chunk((0,), zeros(64))


@hostile("fifo.h5", "'model_weights' lies in another file or place")
def _(path: Path) -> None:
    import h5py

    fifo = path.with_suffix(".fifo")
    os.mkfifo(fifo)
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink(str(fifo), "/")


@hostile("soft.h5", "'model_weights' lies in another file or place")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.SoftLink("/model_weights")


@hostile("external.h5", "'kernel' lies in another file")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", (100,), "u1", external=[("/etc/hostname", 0, 100)])


@hostile("virtual.h5", "'kernel' lies in another file")
def _(path: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((100,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (100,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("kernel", layout)


@hostile("loop.h5", "has several names")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["a"] = file
        file["b/c"] = file["/"]


@hostile("words.h5", "layer_names: expected up to 10,000 names, each once, found 60,000")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("dense")
        for at in range(2_000):
            group[f"t{at}"] = [1.0]
        file.attrs["layer_names"] = [b"dense"] * 60_000


@hostile("prefixes.h5", "expected weights of convolutions or FC layers")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        for at in range(2_000):
            file[f"{'d/' * 30}t{at}"] = [1.0]
        file.attrs["layer_names"] = [b"/".join([b"d"] * depth) for depth in range(1, 31)] + [
            b"%d" % at for at in range(9_000)
        ]


@hostile("texts.h5", "the attribute 'layer_names' has more than 4,194,304 bytes")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("layer_names", ["x" * 2**20] * 20, dtype=h5py.string_dtype())


@hostile("attribute.h5", "the attribute 'model_config' claims 8,388,608 bytes")
def _(path: Path) -> None:
    import h5py
    import numpy

    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["model_config"] = numpy.bytes_(b"x" * 2**23)


@hostile("groups.h5", "expected up to 20,000 groups and tensors, found more")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w", libver="latest") as file:
        for at in range(25_000):
            file.create_group(str(at))


@hostile("deep.h5", "expected up to 64 groups in one another, found more")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        group = file
        for _ in range(3_000):
            group = group.create_group("g")


@hostile("escape.h5", r"expected a layer's name, found '\x1b[31m'")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"\x1b[31m"]


@hostile("text.h5", "expected weights of convolutions or FC layers")
def _(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["conv/kernel"] = ["a", "b"]


def keras(path: Path, config: str, method: int = zipfile.ZIP_STORED) -> None:
    """Write a `.keras` archive of a small network with this description."""
    import io

    import h5py
    import numpy

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/conv2d/vars/0"] = numpy.zeros((3, 3, 3, 8), "f4")
        file["layers/conv2d/vars/1"] = numpy.zeros(8, "f4")
    zipped(path, {"model.weights.h5": content.getvalue(), "config.json": config.encode()}, method)


def models(count: int, layers: int) -> str:
    """Return the description of a model of models."""
    part = {"class_name": "Dense", "config": {"name": "d"}}
    inner = [{"config": {"name": "m", "layers": [part] * layers}}] * count
    return json.dumps({"config": {"layers": inner}}, separators=(",", ":"))


@hostile("nested.keras", "config.json claims 10,125,898 bytes")
def _(path: Path) -> None:
    keras(path, models(25, 9_000))


@hostile("models.keras", "which no configuration can express")
def _(path: Path) -> None:
    keras(path, models(25, 3_000))


@hostile("deep.keras", "config.json is nested too deeply")
def _(path: Path) -> None:
    keras(path, '{"config":{"layers":[' * 100_000 + "]}}" * 100_000)


@hostile("deflated.keras", "its model.weights.h5 is compressed")
def _(path: Path) -> None:
    keras(path, "{}", zipfile.ZIP_DEFLATED)


def keras_chain(*layers: dict[str, Any]) -> str:
    """Return the description of a model of these layers, for images of 3×8×8."""
    image = {"class_name": "InputLayer", "config": {"name": "image", "batch_shape": [None, 8, 8, 3]}}
    return json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": [image, *layers]}})


def keras_layer(word: str, name: str = "x", module: str = "keras.layers", **options: Any) -> dict[str, Any]:
    """Return the description of a layer."""
    return {"module": module, "class_name": word, "config": {"name": name, **options}}


CONV = keras_layer("Conv2D", "c", filters=8, kernel_size=3)

DESCRIPTIONS = {
    "lambda": (
        keras_chain(CONV, keras_layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wAA"}})),
        "no configuration can express Lambda of x",
    ),
    "class": (keras_chain(CONV, keras_layer("system", module="os")), "no configuration can express os.system of x"),
    "registered": (
        keras_chain({**CONV, "registered_name": "mine>Conv2D"}),
        "no configuration can express mine>Conv2D of c",
    ),
    "function": (
        keras_chain({**CONV, "config": {**CONV["config"], "activation": "os.system"}}),
        "activation 'os.system'",
    ),
    "terminal": (
        keras_chain(keras_layer("\x1b[31m", "\x1b[31m")),
        "no configuration can express \\u001b[31m of \\u001b[31m",
    ),
    "layers": (keras_chain(*[keras_layer("ReLU", f"r{n}") for n in range(9_000)]), "expected at most 2,000 layers"),
    "wide": (keras_chain(keras_layer("Dense", units=10**15)), "which no configuration can express"),
    "infinite": (keras_chain(CONV, keras_layer("LeakyReLU", negative_slope=float("inf"))), "no configuration"),
    "list": ("[" * 10**6, "config.json is nested too deeply"),
    "digits": ('{"config": ' + "1" * 5_000 + "}", "config.json is no JSON"),
}
"""Harmful descriptions of Keras's, with what their refusal says."""


def described(name: str) -> Maker:
    """Return what writes an archive with one of them."""
    return lambda path: keras(path, DESCRIPTIONS[name][0])


for _name, (_, _says) in DESCRIPTIONS.items():
    FILES[f"{_name}.keras"] = described(_name), _says


def keras_weights(path: Path, fill: Callable[[Any], None]) -> None:
    """Write an archive of a convolution whose weights are filled by a function."""
    import io

    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file.create_group("layers/conv2d/vars"))
    zipped(path, {"model.weights.h5": content.getvalue(), "config.json": keras_chain(CONV).encode()})


@hostile("outside.keras", "lies in another file or place, which is not read")
def _(path: Path) -> None:
    import h5py

    keras_weights(path, lambda group: group.__setitem__("0", h5py.ExternalLink("/etc/passwd", "/x")))


@hostile("claims.keras", "claims 4,000,000,000,000 bytes and has no values")
def _(path: Path) -> None:
    keras_weights(path, lambda group: group.create_dataset("0", (10**6, 10**6), "f4"))


@hostile("inflated.keras", "claim")
def _(path: Path) -> None:
    import numpy

    zeros = numpy.zeros((2**12, 2**12), "f4")
    keras_weights(path, lambda group: group.create_dataset("0", data=zeros, chunks=(2**8, 2**8), compression="gzip"))


@hostile("spaces.keras", "config.json claims 1,073,741,824 bytes")
def _(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), b"")
        with archive.open(zipfile.ZipInfo("config.json"), "w", force_zip64=True) as member:
            member._compressobj = zlib.compressobj(9, zlib.DEFLATED, -15)  # type: ignore[attr-defined] # its level
            for _ in range(2**10):
                member.write(b" " * 2**20)


@hostile("empty.keras", "it has no model.weights.h5")
def _(path: Path) -> None:
    zipped(path, {"config.json": keras_chain(CONV).encode()})


@hostile("none.keras", "expected an archive that Keras's model.save writes, found other bytes")
def _(path: Path) -> None:
    path.write_bytes(b"\0" * 100)


# Other tools' files


def prototxt(*lines: str) -> str:
    """Return a text of Caffe's whose layers each take the one before; a line is a type and its options."""
    found, bottom = ['input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8'], "data"
    for number, line in enumerate(lines):
        kind, _, options = line.partition(" ")
        found.append(f'layer {{ name: "l{number}" type: "{kind}" bottom: "{bottom}" top: "l{number}" {options} }}')
        bottom = f"l{number}"
    return "\n".join(found)


TEXTS = {
    "brackets": ("layer { x { " * 100_000, "expected up to 32 brackets in one another"),
    "layers": (prototxt(*["ReLU"] * 2_001), "expected at most 2,000 layers, found more"),
    "words": ("name: 'x' " * 200_000, "expected at most 500,000 words, found more"),
    "long": ("#" * 2**23 + "\n", "expected a text of up to 8,388,608 bytes, found more"),
    "channels": (
        prototxt("Convolution convolution_param { num_output: 999999999999999999 kernel_size: 1 }"),
        "l0 (Convolution): its output is 999999999999999999×8×8",
    ),
    "digits": (
        prototxt("LRN lrn_param { local_size: " + "1" * 5_000 + " }"),
        "local_size: expected a whole number, found",
    ),
    "nan": (prototxt("LRN lrn_param { alpha: nan }"), "no configuration has its layers"),
    "terminal": (prototxt("\\x1b[31m"), "no layer of a configuration does what l0 (x1b[31m) does"),
    "control": (prototxt("\x1b[31m"), "no layer of a configuration does what l0 (\\x1b[31m) does"),
    "open": ("name: '" + "a" * 10**6, "expected a field, found"),
}
"""Harmful texts of Caffe's, with what their refusal says."""


def texts(name: str) -> Maker:
    """Return what writes one of them."""

    def make(path: Path) -> None:
        path.write_text(TEXTS[name][0], encoding="utf-8")

    return make


for _name, (_, _says) in TEXTS.items():
    FILES[f"{_name}.prototxt"] = texts(_name), _says


def varint(number: int) -> bytes:
    """Return a number from 0 as protocol buffers store it."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def sized(field: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that says its size."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def caffe_net(blob: bytes) -> bytes:
    """Return a network of Caffe's with one FC layer and a blob."""
    layer = sized(1, b"fc") + sized(2, b"InnerProduct") + sized(3, b"data") + sized(4, b"fc") + sized(7, blob)
    shape = sized(1, b"\x01\x03\x08\x08")
    return sized(3, b"data") + sized(8, shape) + sized(100, layer + sized(117, b"\x08\x05\x10\x00"))


@hostile("claims.caffemodel", "fc (InnerProduct): expected 4,000,000,000,000 bytes for 1000000000000 values, found 4")
def _(path: Path) -> None:
    path.write_bytes(caffe_net(sized(7, sized(1, varint(10**12))) + sized(5, b"\0\0\0\0")))


@hostile("apart.caffemodel", "fc (InnerProduct): expected 960 values, found 200,000")
def _(path: Path) -> None:
    path.write_bytes(caffe_net(sized(7, sized(1, varint(5) + varint(192))) + b"\x2d\0\0\0\0" * 200_000))


def onnx_model(nodes: list[tuple[str, list[str], str]], tensors: Sequence[bytes] = ()) -> bytes:
    """Return a model of ONNX's: operations with inputs and an output, and tensors."""
    graph = b"".join(
        sized(
            1, b"".join(sized(1, name.encode()) for name in inputs) + sized(2, output.encode()) + sized(4, op.encode())
        )
        for op, inputs, output in nodes
    )
    dims = b"".join(sized(1, b"\x08" + varint(size)) for size in (1, 3, 8, 8))
    value = sized(2, sized(1, b"\x08\x01" + sized(2, dims)))
    graph += b"".join(sized(5, tensor) for tensor in tensors) + sized(11, sized(1, b"x") + value)
    return b"\x08\x09" + sized(8, b"\x10\x14") + sized(7, graph + sized(12, sized(1, nodes[-1][2].encode()) + value))


def onnx_tensor(name: str, dims: list[int], kind: int, content: bytes) -> bytes:
    """Return a tensor of a model."""
    return sized(1, b"".join(map(varint, dims))) + b"\x10" + varint(kind) + sized(8, name.encode()) + sized(9, content)


@hostile("claims.onnx", "the tensor 'w': expected 4,000,000,000,000 bytes for 1000000000000 values, found 4")
def _(path: Path) -> None:
    path.write_bytes(onnx_model([("Conv", ["x", "w"], "y")], [onnx_tensor("w", [10**12], 1, b"\0" * 4)]))


@hostile("filled.onnx", "a (ConstantOfShape): it makes 1,000,000,000,000 values")
def _(path: Path) -> None:
    sizes = onnx_tensor("s", [2], 7, struct.pack("<2q", 10**6, 10**6))
    path.write_bytes(onnx_model([("ConstantOfShape", ["s"], "a"), ("Add", ["x", "a"], "y")], [sizes]))


@hostile("outer.onnx", "a (Add): it computes with 10,000,000,000 values of constants")
def _(path: Path) -> None:
    rows, columns = (
        onnx_tensor(name, dims, 1, b"\0" * 400_000) for name, dims in (("r", [10**5, 1]), ("c", [1, 10**5]))
    )
    path.write_bytes(onnx_model([("Add", ["r", "c"], "a"), ("Add", ["x", "a"], "y")], [rows, columns]))


@hostile("gathered.onnx", "a (Gather): it computes with 10,000,000,000 values of constants")
def _(path: Path) -> None:
    row, zeros = onnx_tensor("r", [1, 10**5], 1, b"\0" * 400_000), onnx_tensor("i", [10**5], 7, b"\0" * 800_000)
    path.write_bytes(onnx_model([("Gather", ["r", "i"], "a"), ("Add", ["x", "a"], "y")], [row, zeros]))


@hostile("squared.onnx", "do together")
def _(path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(300))]
    path.write_bytes(onnx_model([("Mul", [name, name], after) for name, after in pairwise(names)]))


@hostile("moved.onnx", "expected at most 50 moves of values before a layer, found more")
def _(path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(300))]
    path.write_bytes(onnx_model([("Flatten", [name], after) for name, after in pairwise(names)]))


@hostile("many.onnx", "expected at most 20,000 operations, found more")
def _(path: Path) -> None:
    path.write_bytes(onnx_model([("Relu", ["x"], "y")] * 20_001))


@hostile("nested.onnx", "expected up to 32 messages in one another, found more")
def _(path: Path) -> None:
    graph = b""
    for _ in range(1_000):
        graph = sized(1, sized(5, sized(6, graph)))
    path.write_bytes(sized(7, graph))


@hostile("control.onnx", "n\\x1b[31m (\\x1b[31mRelu): no layer")
def _(path: Path) -> None:
    path.write_bytes(onnx_model([("\x1b[31mRelu", ["x"], "n\x1b[31m")]))


@hostile("fields.caffemodel", "expected at most 500,000 fields, found more")
def _(path: Path) -> None:
    path.write_bytes(sized(100, b"") * 500_001)


@hostile("cut.caffemodel", "it ends in the middle of a field")
def _(path: Path) -> None:
    path.write_bytes(varint(100 << 3 | 2) + varint(2**60) + b"x")


# What they cost


def _memory() -> int:
    """Return the most bytes that this process has had in memory, without those of mapped files."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024


def _outcome(path: str) -> str:
    """Inspect a file, load it, and return what is said; a traceback is a failure. Keras's are imported too."""
    import vggkit
    from vggkit.model.weights.inspection import inspect

    try:
        inspection = inspect(path)
        vggkit.load_model(path)
        said = "\n".join(inspection.notes)
    except vggkit.VggkitError as error:
        said = str(error)
    if not path.endswith(".keras"):
        return said
    try:
        return f"{said} | {vggkit.import_config(path)}"
    except vggkit.VggkitError as error:
        return f"{said} | {error}"


def measured(path: str) -> dict[str, Any]:
    """Open a file in a process of its own, under limits; return what it said and took."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
            before = _memory()
            said = _outcome(path)
            own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
            memory = max(_memory() - before, others.ru_maxrss * 1024)
            os.write(sender, json.dumps({"said": said[:2000], "seconds": seconds, "memory": memory}).encode())
        except BaseException as error:
            os.write(sender, json.dumps({"said": repr(error)[:2000], "seconds": 0, "memory": 0}).encode())
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as file:
        result = file.read()
    os.waitpid(child, 0)
    return (
        dict(json.loads(result))
        if result
        else {"said": "Traceback: it crashed or took too long", "seconds": 0, "memory": 0}
    )


if __name__ == "__main__":
    import vggkit

    vggkit.build("A", input="3x32x32", width=0.05)  # what is imported is no file's fault
    for path in sys.argv[1:]:
        print(json.dumps(measured(path)), flush=True)
