"""Files of torch's programs that mean harm: exported programs and TorchScript, made in code."""

from __future__ import annotations

import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.model.weights.hostile import FILES, Maker, archive, hostile, number, pickled, tensor, text

# Exported programs


def meta(sizes: list[int], strides: list[int] | None = None) -> dict[str, Any]:
    """Return what an exported program says of a tensor."""
    steps = [1] * len(sizes) if strides is None else strides
    return {
        "dtype": 7,
        "sizes": [{"as_int": size} for size in sizes],
        "strides": [{"as_int": step} for step in steps],
        "storage_offset": {"as_int": 0},
    }


def node(target: str, output: str, *args: dict[str, Any]) -> dict[str, Any]:
    """Return an operation of an exported program."""
    inputs = [{"name": "", "arg": arg, "kind": 1} for arg in args]
    return {"target": f"torch.ops.aten.{target}", "inputs": inputs, "outputs": [named(output)], "metadata": {}}


def named(name: str) -> dict[str, Any]:
    """Return an argument that is a tensor."""
    return {"as_tensor": {"name": name}}


def program(
    nodes: list[dict[str, Any]], weight: dict[str, Any] | None = None, content: bytes = b"", text: bytes = b""
) -> dict[str, bytes]:
    """Return an exported program's members: operations on x, with a tensor w; or a text in place of the operations."""
    specs: list[dict[str, Any]] = [{"parameter": {"arg": {"name": "w"}, "parameter_name": "w"}}] if weight else []
    last = nodes[-1]["outputs"][0] if nodes else named("x")
    said = {
        "graph_module": {
            "graph": {"nodes": nodes, "tensor_values": {"x": meta([2, 3, 8, 8])}},
            "signature": {
                "input_specs": [*specs, {"user_input": {"arg": named("x")}}],
                "output_specs": [{"user_output": {"arg": last}}],
            },
        },
        "schema_version": {"major": 8, "minor": 20},
    }
    config = {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": weight}}
    return {
        "models/model.json": text or json.dumps(said).encode(),
        "data/weights/model_weights_config.json": json.dumps({"config": config if weight else {}}).encode(),
        "data/weights/weight_0": content,
    }


CODE = b"cposix\nsystem\n(S'touch pt2_was_executed'\ntR."
CONV = [node("conv2d.default", "y", named("x"), named("w"))]


@hostile("claims.pt2", "'w': expected 1000000000000×3×3×3 values with strides [27, 9, 3, 1] from 0 on, found 1")
def _(path: Path) -> None:
    archive(path, program(CONV, meta([10**12, 3, 3, 3], [27, 9, 3, 1]), b"\0" * 4))


@hostile("expanded.pt2", "'w': expected 1000000000×3×3×3 values with strides [0, 0, 0, 0] from 0 on, found 1")
def _(path: Path) -> None:
    archive(path, program(CONV, meta([10**9, 3, 3, 3], [0, 0, 0, 0]), b"\0" * 4))


@hostile("elsewhere.pt2", "expected data/weights/../../../etc/passwd in it, found none")
def _(path: Path) -> None:
    members = program(CONV, meta([4, 3, 3, 3], [27, 9, 3, 1]))
    config = members["data/weights/model_weights_config.json"].replace(b"weight_0", b"../../../etc/passwd")
    archive(path, {**members, "data/weights/model_weights_config.json": config})


@hostile("code.pt2", "its weights are in a pickle")
def _(path: Path) -> None:
    archive(path, {**program(CONV), "data/weights/model.pt": CODE})


@hostile("pickled.pt2", "conv2d: its weights or numbers are computed as it runs, or missing")
def _(path: Path) -> None:
    members = program(CONV, meta([4, 3, 3, 3], [27, 9, 3, 1]), CODE)
    config = members["data/weights/model_weights_config.json"].replace(b'"use_pickle": false', b'"use_pickle": true')
    archive(path, {**members, "data/weights/model_weights_config.json": config})


@hostile("bomb.pt2", "models/model.json has 1,000,000,000 bytes")
def _(path: Path) -> None:
    archive(path, program([], text=b" " * 10**9), zipfile.ZIP_DEFLATED)


@hostile("nested.pt2", "models/model.json: ")
def _(path: Path) -> None:
    archive(path, program([], text=b'{"graph_module": ' + b"[" * 10**6))


@hostile("nested_argument.pt2", "models/model.json: ")
def _(path: Path) -> None:
    text = program([node("relu.default", "y", named("x"), {"as_ints": ["deep"]})])["models/model.json"]
    archive(path, program([], text=text.replace(b'"deep"', b"[" * 10**6 + b"]" * 10**6)))


@hostile("many.pt2", "expected at most 20,000 operations, found more")
def _(path: Path) -> None:
    archive(path, program([node("relu.default", "y", named("x"))] * 20_001))


@hostile("layers.pt2", "expected at most 2,000 layers, found more")
def _(path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(2_001))]
    archive(path, program([node("relu.default", after, named(name)) for name, after in pairwise(names)]))


@hostile("moved.pt2", "expected at most 50 moves of values before a layer, found more")
def _(path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(300))]
    order = {"as_ints": [0, 3, 1, 2]}
    archive(path, program([node("permute.default", after, named(name), order) for name, after in pairwise(names)]))


@hostile("sizes.pt2", "view: it can't make 99999999999×3×8×8 of 2×3×8×8")
def _(path: Path) -> None:
    archive(path, program([node("view.default", "y", named("x"), {"as_ints": [99999999999, 3, 8, 8]})]))


@hostile("digits.pt2", "conv2d: stride: expected a whole number from 1")
def _(path: Path) -> None:
    huge = node("conv2d.default", "y", named("x"), named("w"), {"as_none": True}, {"as_int": 10**4000})
    archive(path, program([huge], meta([4, 3, 3, 3], [27, 9, 3, 1])))


@hostile("squared.pt2", "takes")
def _(path: Path) -> None:
    names = ["x", *(f"v{number}" for number in range(5_000))]
    archive(path, program([node("mul.Tensor", after, named(name), named(name)) for name, after in pairwise(names)]))


@hostile("control.pt2", "\\x1b[31mrelu in \\x1b[31mn: no layer")
def _(path: Path) -> None:
    made = {**node("\x1b[31mrelu.default", "y", named("x")), "metadata": {"nn_module_stack": "L,\x1b[31mn,M"}}
    archive(path, program([made]))


# TorchScript


def scripted(forward: str, more: str = "", constants: bytes = b"\x80\x02).") -> dict[str, bytes]:
    """Return the members of TorchScript: one module with the tensor w, whose forward has these lines."""
    made = pickled(b"c__torch__\nM\n)\x81}", text("w"), tensor("FloatStorage", 4, number(4) + b"\x85"), b"sb")
    lines = "\n".join(f"    {line}" for line in forward.splitlines())
    code = f"class M(Module):\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n{lines}\n{more}"
    return {**made, "constants.pkl": constants, "code/__torch__.py": code.encode(), "data/0": bytes(16)}


SCRIPTS = {
    "endless": ("n = 1\nwhile True:\n  n = torch.add(n, 1)", "expected at most 150,000 steps, found more"),
    "range": ("for i in range(999999999999):\n  n = i\nreturn x", "expected at most 150,000 steps, found more"),
    "itself": ("return (self).forward(x, )", "expected at most 40 functions in one another, found more"),
    "doubled": ("n = [x]\n" + "n = [n, n]\n" * 5_000 + "return torch.cat(n)", "expected one tensor as its output"),
    "grown": ("n = [1]\n" + "n = torch.add(n, n)\n" * 500 + "return torch.view(x, n)", "view in"),
    "powers": ("n = 3\n" + "n = torch.mul(n, n)\n" * 500 + "return torch.view(x, [n, 1])", "view in"),
    "layers": ("x = torch.relu(x)\n" * 2_001 + "return x", "expected at most 2,000 layers, found more"),
    "calls": ("while True:\n  x = torch.relu(x)", "expected at most 10,000 operations, found more"),
    "misfits": (
        "x = torch.relu(x)\n" * 1_990 + "x = torch.flatten(x, 1)\nreturn torch.linear(x, self.w)",
        "expected units × features as weights, found 4",
    ),
    "deep": ("return " + "-" * 3_900 + "1", "expected statements of at most 1,000 words"),
    "attributes": ("return (x" + ".a\n" * 100_000 + ")", "expected statements of at most 1,000 words"),
    "brackets": ("return " + "[" * 900, "expected code of TorchScript"),
    "blocks": ("\n".join(" " * depth + "if True:" for depth in range(300)), "expected code of TorchScript"),
    "digits": ("return " + "9" * 1_000_000, "expected lines of at most 4,000 bytes"),
    "long": ("#\n" * 2**20, "expected at most 2,097,152 bytes of code, found more"),
    "python": ("return __import__('os').system('touch pt_was_executed')", "it calls something that is not known"),
    "eval": ('return eval(\'open("pt_was_executed", "w")\')', "expected one tensor as its output"),
    "comprehension": ("return [x for x in range(9)]", "expected an expression of TorchScript, found ListComp"),
    "statement": ("import os", "expected a statement of TorchScript, found Import"),
    "control": ("ops.prim.RaiseException('\x1b[31m')", "it raises an error: '\\x1b[31m'"),
}
"""Forward passes that mean harm, with what their refusal says."""


def script(name: str) -> Maker:
    """Return what writes one of them."""

    def make(path: Path) -> None:
        archive(path, scripted(SCRIPTS[name][0]))

    return make


for _name, (_, _says) in SCRIPTS.items():
    FILES[f"{_name}.pt"] = script(_name), _says


@hostile("bomb.pt", "code/__torch__.py has 1,000,000,000 bytes")
def _(path: Path) -> None:
    archive(path, {**scripted(""), "code/__torch__.py": b" " * 10**9}, zipfile.ZIP_DEFLATED)


@hostile("object.pt", "refused, as it would run code: it asks for posix.system")
def _(path: Path) -> None:
    archive(path, {**scripted(""), "data.pkl": CODE})


@hostile("constants.pt", "refused: its pickle has more than 1,048,576 steps")
def _(path: Path) -> None:
    archive(path, scripted("return x", constants=b"\x80\x02" + b")" * (2**20 + 2) + b"."))


@hostile("huge.pt", "expected 2000000000 values with strides [1] from 0 on, found 4")
def _(path: Path) -> None:
    big = tensor("FloatStorage", 2 * 10**9, number(2 * 10**9) + b"\x85")
    members = {**scripted("return x"), **pickled(b"c__torch__\nM\n)\x81}", text("w"), big, b"sb")}
    archive(path, {**members, "code/__torch__.py": members["code/__torch__.py"].replace(b"return x", b"return self.w")})
