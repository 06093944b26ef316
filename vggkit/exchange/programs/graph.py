"""An exported program that is written: operations one behind the other, tensors, and the archive around them."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from math import prod
from typing import IO, Any, NamedTuple

from vggkit.base.shapes import Shape
from vggkit.exchange.files import Written
from vggkit.exchange.programs.schema import (
    FLOAT,
    KEYWORD,
    POSITIONAL,
    SCHEMA_VERSION,
    STATEMENT,
    STRIDED,
    TORCH_VERSION,
)
from vggkit.network import PlacedLayer

IMAGE = "image"
"""The name of the input."""
BATCH = "batch"
"""The name of the images' number."""

SYMBOL = {"as_expr": {"expr_str": "Symbol('s0', positive=True, integer=True)", "hint": {"as_int": 2}}}
"""That number, which is any."""

KEYWORDS = ("approximate",)
"""Arguments that ATen takes by their names alone."""

ALIGNMENT = 64
"""Bytes. torch's archives have each member at a multiple of it, so that it can be mapped."""

TREE_IN = [
    1,
    {"type": "builtins.tuple", "context": "null", "children_spec": [
        {"type": "builtins.tuple", "context": "null", "children_spec": [
            {"type": None, "context": None, "children_spec": []}]},
        {"type": "builtins.dict", "context": "[]", "children_spec": []}]},
]  # fmt: skip
"""One positional argument, as torch.utils._pytree writes it."""
TREE_OUT = [1, {"type": None, "context": None, "children_spec": []}]
"""One tensor."""


class Of(NamedTuple):
    """A tensor, or a number, that an operation made."""

    name: str


def _meta(sizes: Sequence[Any], *, device: str, trained: bool = False) -> dict[str, Any]:
    """Return what is said of a tensor whose values lie in the order of its axes."""
    shape = [size if isinstance(size, dict) else {"as_int": size} for size in sizes]
    steps = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    return {
        "dtype": FLOAT,
        "sizes": shape,
        "requires_grad": trained,
        "device": {"type": device, "index": None},
        "strides": [{"as_int": step} for step in steps],
        "storage_offset": {"as_int": 0},
        "layout": STRIDED,
    }


def _argument(value: Any) -> dict[str, Any]:
    if isinstance(value, Of):
        return {"as_tensor": {"name": value.name}}
    if value is None:
        return {"as_none": True}
    if isinstance(value, (list, tuple)):
        if any(isinstance(one, Of) for one in value):
            return {"as_sym_ints": [{"as_name": one.name} if isinstance(one, Of) else {"as_int": one} for one in value]}
        return {"as_ints": [*value]}
    kinds = {bool: "as_bool", int: "as_int", float: "as_float", str: "as_string"}
    return {kinds[type(value)]: value}


class ProgramWriter:
    """Writes the operations of one layer after the other.

    Args:
        written: the network, and what reads its tensors.
    """

    def __init__(self, written: Written) -> None:
        self.written = written
        self.device = "meta" if written.tensors is None else "cpu"
        self.nodes: list[dict[str, Any]] = []
        self.specs: list[dict[str, Any]] = []
        self.weights: dict[str, tuple[tuple[str, str], Shape]] = {}
        self.values: dict[str, Any] = {}
        self.current = Of(IMAGE)
        self.placed: PlacedLayer = written.network.layers[0]
        self.count = 0
        self._value(IMAGE, written.network.input_shape)

    def _value(self, name: str, shape: Shape) -> None:
        self.values[name] = _meta([SYMBOL, *shape], device=self.device)
        steps = [prod(shape), *(prod(shape[axis:]) for axis in range(1, len(shape) + 1))]
        self.values[name]["strides"] = [{"as_int": step} for step in steps]

    def begin(self, placed: PlacedLayer) -> None:
        """Begin a layer; what is added now is part of it."""
        self.placed, self.count = placed, 0

    def add(self, op: str, shape: Shape, **inputs: Any) -> Of:
        """Add an operation.

        Args:
            op: its name in ATen with that of its overload.
            shape: of what it makes, for one image.
            inputs: its arguments, by their names there; `self_` is `self`.

        Returns:
            What it makes.
        """
        self.count += 1
        name = f"{self.placed.name}_{self.count}"
        self._node(op, name, {"as_tensor": {"name": name}}, inputs)
        self._value(name, shape)
        return Of(name)

    def batch(self) -> Of:
        """Return the number of images."""
        name = f"{BATCH}_{self.placed.name}"
        self._node("sym_size.int", name, {"as_sym_int": {"as_name": name}}, {"self_": self.current, "dim": 0})
        return Of(name)

    def _node(self, op: str, name: str, output: dict[str, Any], inputs: Mapping[str, Any]) -> None:
        path = self.placed.module
        said = [
            {"name": word.rstrip("_"), "arg": _argument(value), "kind": KEYWORD if word in KEYWORDS else POSITIONAL}
            for word, value in inputs.items()
        ]
        self.nodes.append(
            {
                "target": f"torch.ops.aten.{op}",
                "inputs": said,
                "outputs": [output],
                "metadata": {"nn_module_stack": f"L__self__,,vggkit.VGG;L__self___{path},{path},torch.nn.Module"},
                "name": name,
            }
        )

    def end(self) -> None:
        """End a layer: what its last operation makes has its name."""
        last, name = self.nodes[-1], self.placed.name
        self.values[name] = self.values.pop(last["name"])
        last.update(name=name, outputs=[{"as_tensor": {"name": name}}])
        self.current = Of(name)

    def tensor(self, role: str) -> Of:
        """Return one of the layer's tensors, which has the name that it has in a `state_dict()`."""
        kind = "parameter" if role in self.placed.layer.parameters(self.placed.input_shape) else "buffer"
        name = f"{kind[0]}_{self.placed.name}_{role}"
        known = f"{self.placed.module}.{role}"
        spec = {"arg": {"name": name}, f"{kind}_name": known, **({"persistent": True} if kind == "buffer" else {})}
        self.specs.append({kind: spec})
        shape = self.placed.held[role]
        self.weights[known] = (self.placed.name, role), shape
        self.values[name] = _meta(shape, device=self.device, trained=kind == "parameter")
        return Of(name)

    def write(self, file: IO[bytes]) -> None:
        """Write the archive."""
        root = self.written.network.name
        with zipfile.ZipFile(file, "w") as archive:
            members = _Members(archive, root)
            config = {}
            for number, (name, ((layer, role), shape)) in enumerate(self.weights.items()):
                place = f"weight_{number}"
                values: Any = b""
                if self.written.tensors is not None:
                    values = self.written.tensors[layer, role]().astype("<f4", copy=False).reshape(-1).view("u1").data
                members.add_values(f"data/weights/{place}", values)
                trained = any(spec.get("parameter", {}).get("parameter_name") == name for spec in self.specs)
                meta = _meta(shape, device=self.device, trained=trained)
                config[name] = {"path_name": place, "is_param": trained, "use_pickle": False, "tensor_meta": meta}
            members.add("data/weights/model_weights_config.json", _json({"config": config}))
            members.add("data/constants/model_constants_config.json", _json({"config": {}}))
            members.add("models/model.json", self.program())
            members.add("data/sample_inputs/model.pt", b"")
            for name, text in (("archive_format", "pt2"), ("archive_version", "0"), ("byteorder", "little")):
                members.add(name, text.encode())
            members.add(".data/version", b"6\n")

    def program(self) -> bytes:
        """Return the program, as JSON."""
        image, output = ({"as_tensor": {"name": name}} for name in (IMAGE, self.current.name))
        tensors = [{"as_tensor": next(iter(spec.values()))["arg"]} for spec in self.specs]
        graph = {
            "inputs": [*tensors, image],
            "outputs": [output],
            "nodes": self.nodes,
            "tensor_values": self.values,
            "sym_int_values": {
                one["name"]: SYMBOL for one in self.nodes if "as_sym_int" in one["outputs"][0]
            },
            "sym_bool_values": {},
            "is_single_tensor_return": False,
            "custom_obj_values": {},
            "sym_float_values": {},
        }  # fmt: skip
        signature = {
            "input_specs": [*self.specs, {"user_input": {"arg": image}}],
            "output_specs": [{"user_output": {"arg": output}}],
        }
        call = {
            "inputs": [],
            "outputs": [],
            "in_spec": json.dumps(TREE_IN),
            "out_spec": json.dumps(TREE_OUT),
            "forward_arg_names": [IMAGE],
        }
        said = {
            "graph_module": {
                "graph": graph,
                "signature": signature,
                "module_call_graph": [{"fqn": "", "signature": call}],
                "metadata": {STATEMENT: str(self.written.network.config)},
                "treespec_namedtuple_fields": {},
            },
            "opset_version": {"aten": 10},
            "range_constraints": {"s0": {"min_val": 0, "max_val": None}},
            "schema_version": dict(zip(("major", "minor"), SCHEMA_VERSION)),
            "verifiers": ["TRAINING"],
            "torch_version": TORCH_VERSION,
            "guards_code": [],
        }
        return _json(said)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class _Members:
    """Adds members to an archive: texts, which are compressed, and values, each at an address that can be mapped."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self.archive, self.root = archive, root

    def add(self, name: str, content: bytes) -> None:
        self.archive.writestr(zipfile.ZipInfo(f"{self.root}/{name}"), content, zipfile.ZIP_DEFLATED)

    def add_values(self, name: str, content: Any) -> None:
        info = zipfile.ZipInfo(f"{self.root}/{name}")
        is_large = len(content) >= 2**31
        assert self.archive.fp is not None  # it is open
        begin = self.archive.fp.tell() + 30 + len(info.filename.encode()) + 4 + 20 * is_large  # with both headers
        padding = -begin % ALIGNMENT
        info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        with self.archive.open(info, "w", force_zip64=is_large) as member:
            member.write(content)
