"""An exported program of torch's → layers with their values.

Source: torch/export/pt2_archive/_package.py in pytorch/pytorch, for the archive's members.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from vggkit.base.errors import LayerError, VggkitError, escaped, shorten
from vggkit.base.shapes import Shape
from vggkit.exchange.chain import Chain, Imported
from vggkit.exchange.files import Given, Written, network_stated
from vggkit.exchange.messages import MalformedError
from vggkit.exchange.programs.archive import Archive, view
from vggkit.exchange.programs.calls import BATCH, COMPUTED, FLOAT32, Recorder, add_layers, values_in
from vggkit.exchange.programs.schema import (
    FLOAT,
    FORMATS,
    KEYWORD,
    SCHEMA_VERSION,
    STATEMENT,
    Graph,
    Meta,
    Node,
    Payloads,
    Program,
    Union,
)
from vggkit.exchange.programs.writing import program_of
from vggkit.exchange.values import Values
from vggkit.network import Network
from vggkit.notation.preprocess import LARGEST_SIDE

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
CONFIGS = {WEIGHTS: f"{WEIGHTS}model_weights_config.json", CONSTANTS: f"{CONSTANTS}model_constants_config.json"}
BEFORE = "serialized_exported_program.json"
"""What torch before 2.8 has for MODEL."""

MOST_NODES = 20_000
LARGEST = 2**63

Type = TypeVar("Type")


def imported(given: Given) -> Imported:
    """Read a network from an exported program.

    Raises:
        MalformedError: if it is no such file.
        LayerError: if it is no chain, or has an operation that no layer of a configuration is.
    """
    archive = Archive(given.path)
    if not archive.is_little_endian():
        raise MalformedError("expected little-endian values, found big-endian ones")
    if not archive.has(MODEL):
        raise MalformedError(_missing(archive))
    program = _decoded(archive, MODEL, Program)
    if program.schema_version.major != SCHEMA_VERSION[0]:
        version = f"{program.schema_version.major}.{program.schema_version.minor}"
        raise MalformedError(
            f"expected version {SCHEMA_VERSION[0]} of torch's schema of exported programs, found {version}; export it"
            " with a newer torch"
        )
    tensors = dict(_tensors(archive))
    if (network := _stated(program, given)) is not None:
        held = {
            (placed.name, role): tensors.get(f"{placed.module}.{role}") for placed in network for role in placed.held
        }
        return Imported(network, {key: values for key, values in held.items() if values and values.is_known})
    chain = _Follower(program, given.image, tensors).chain()
    return Imported(*chain.network(given.stem))


def _stated(program: Program, given: Given) -> Network | None:
    """Return the network that a file of our own states, if its program is what is written for that; None if not."""
    text = program.graph_module.metadata.get(STATEMENT)
    network = network_stated(text, given) if text is not None else None
    if network is None:
        return None
    try:
        wanted = msgspec.json.decode(program_of(Written(network, None)).program(), type=Program)
    except VggkitError:
        return None
    is_its = given.image in (None, network.input_shape) and program.graph_module == wanted.graph_module
    return network if is_its else None


def _missing(archive: Archive) -> str:
    """Say what an archive is that has no exported program."""
    if archive.has(BEFORE):
        return "it was exported by a torch before 2.8; torch.export.load and .save of a newer one make it current"
    if any(name.startswith("data/aotinductor/") for name in archive.names):
        return "it was compiled by AOTInductor; expected the program itself, as torch.export.save writes it"
    if archive.has("constants.pkl"):
        return "it is TorchScript; rename it, so that it ends in .pt"
    return f"expected an exported program with {MODEL} in it, as torch.export.save writes it"


def _decoded(archive: Archive, name: str, kind: type[Type]) -> Type:
    try:
        return msgspec.json.decode(archive.text(name), type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"{name}: {escaped(shorten(str(error), 160))}") from None


def _tensors(archive: Archive) -> Iterator[tuple[str, Values]]:
    """Return the tensors in an archive by their names.

    Raises:
        MalformedError: if one is not as it is said to be.
    """
    for folder, config in CONFIGS.items():
        if archive.has(f"{folder}model.pt"):
            raise MalformedError(
                "its weights are in a pickle, as older torch wrote them; torch.export.load and .save of a newer one"
                " make them current"
            )
        if not archive.has(config):
            continue
        for name, payload in _decoded(archive, config, Payloads).config.items():
            meta = payload.tensor_meta
            if payload.use_pickle or meta is None:
                continue  # a tensor of a class of its own, which no layer has
            try:
                shape, strides = (tuple(map(_integer, sizes)) for sizes in (meta.sizes, meta.strides))
                content = archive.content(folder + payload.path_name)
                dtype = FORMATS.get(meta.dtype, f"the number {meta.dtype}")
                yield name, view(content, shape, strides, _integer(meta.storage_offset), dtype)
            except MalformedError as error:
                raise MalformedError(f"{escaped(shorten(name))}: {error}") from None


def _integer(size: Union) -> int:
    """Return a size that is a number, also if it is that for the images of the export alone."""
    number = size.get("as_int")
    if number is None:
        expression = size.get("as_expr")
        hint = expression.get("hint") if isinstance(expression, dict) else None
        number = hint.get("as_int") if isinstance(hint, dict) else None
    if type(number) is not int or not 0 <= number < LARGEST:
        raise MalformedError(f"expected a size, found {escaped(shorten(size))}")
    return number


ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
}
"""What is computed with sizes."""


class _Follower:
    """Follows a program from its image to its output.

    Args:
        program: it.
        asked: the shape of one image, if the user says it.
        tensors: in the file, by their names.
    """

    def __init__(self, program: Program, asked: Shape | None, tensors: Mapping[str, Values]) -> None:
        self.graph: Graph = program.graph_module.graph
        self.signature = program.graph_module.signature
        if len(self.graph.nodes) > MOST_NODES:
            raise MalformedError(f"expected at most {MOST_NODES:,} operations, found more")
        image = self._image()
        meta = self.graph.tensor_values.get(image)
        if meta is None:
            raise MalformedError("its input is no tensor of known sizes")
        self.recorder = Recorder(_shape(meta, asked))
        self.known: dict[str, Any] = {image: self.recorder.image}
        for spec in self.signature.input_specs:
            for kind in ("parameter", "buffer", "tensor_constant"):
                if kind in spec:
                    name = _name(spec[kind].get("arg"))
                    self.known[name] = tensors.get(str(spec[kind].get(f"{kind}_name")), COMPUTED)

    def _image(self) -> str:
        """Return the name of the images.

        Raises:
            MalformedError: if there is another number of inputs.
        """
        inputs = [spec["user_input"].get("arg") for spec in self.signature.input_specs if "user_input" in spec]
        if len(inputs) != 1 or not isinstance(inputs[0], dict) or "as_tensor" not in inputs[0]:
            raise MalformedError(f"expected one input, a batch of images, found {len(inputs)}")
        return _name(inputs[0]["as_tensor"])

    def chain(self) -> Chain:
        """Return the layers.

        Raises:
            LayerError: if they are no chain; says where.
        """
        for node in self.graph.nodes:
            try:
                self._follow(node)
            except MalformedError as error:
                raise MalformedError(f"{escaped(shorten(node.target))}: {error}") from None
        outputs = [spec["user_output"].get("arg") for spec in self.signature.output_specs if "user_output" in spec]
        if len(outputs) != 1 or not isinstance(outputs[0], dict) or "as_tensor" not in outputs[0]:
            raise LayerError(f"expected one tensor as its output, found {len(outputs)} values")
        network = Chain(self.recorder.shape[1:])
        add_layers(self.recorder, self.known.get(_name(outputs[0]["as_tensor"])), network)
        return network

    def _follow(self, node: Node) -> None:
        args = [self._value(one.arg) for one in node.inputs if one.kind != KEYWORD]
        kwargs = {one.name: self._value(one.arg) for one in node.inputs if one.kind == KEYWORD}
        made = self._made(node, args, kwargs)
        for output in node.outputs:
            for name in _names(output):
                self.known[name] = made

    def _made(self, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return what an operation makes: a number, a value of the program, or neither."""
        library, _, op = node.target.removeprefix("torch.ops.").partition(".")
        op = op.partition(".")[0] if library == "aten" else node.target
        taken = values_in([*args, *kwargs.values()])
        if op == "sym_size" and taken and taken[0].shape is not None and args[1:] and type(args[1]) is int:
            axis = args[1]
            return taken[0].shape[axis] if -len(taken[0].shape) <= axis < len(taken[0].shape) else COMPUTED
        if node.target in ARITHMETIC and len(args) == 2 and all(type(arg) is int for arg in args):
            first, second = args
            made = ARITHMETIC[node.target](first, second) if second or "div" not in node.target else LARGEST
            return made if abs(made) < LARGEST else COMPUTED
        if not taken:
            return COMPUTED
        path = _path(node)
        if len(node.outputs) != 1 or "as_tensor" not in node.outputs[0]:
            op = f"{op} (several results)" if node.outputs else op
        return self.recorder.call(path, op, args, kwargs, escaped(shorten(path or node.name or "").strip("'")))

    def _value(self, arg: Union) -> Any:
        """Return what an argument stands for.

        Raises:
            MalformedError: if it is none of torch's.
        """
        if len(arg) != 1:
            raise MalformedError(f"expected an argument, found {escaped(shorten(arg))}")
        ((kind, said),) = arg.items()
        if kind in ("as_tensor", "as_custom_obj"):
            return self.known.get(_name(said), COMPUTED)
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"):
            return self._value(said) if "as_name" not in said else self.known.get(str(said["as_name"]), COMPUTED)
        if kind == "as_tensors":
            return [self.known.get(_name(one), COMPUTED) for one in said]
        if kind in ("as_sym_ints", "as_optional_tensors"):
            return [self._value({"as_sym_int" if "as_name" in one else next(iter(one)): _inner(one)}) for one in said]
        if kind == "as_none":
            return None
        if kind == "as_scalar_type":
            return FLOAT32 if said == FLOAT else -1
        if kind in ("as_memory_format", "as_layout", "as_device"):
            return f"{kind} {said}"  # how it lies in memory
        if isinstance(said, (int, float, str, bool)) or (isinstance(said, list) and not any(map(_is_nested, said))):
            return said
        raise MalformedError(f"expected an argument, found {escaped(shorten(arg))}")


def _inner(one: Union) -> Any:
    return one if "as_name" in one else next(iter(one.values()))


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _name(said: Any) -> str:
    """Return the name of a tensor."""
    name = said.get("name") if isinstance(said, dict) else None
    if not isinstance(name, str):
        raise MalformedError(f"expected a tensor's name, found {escaped(shorten(said))}")
    return name


def _names(output: Union) -> list[str]:
    """Return the names of what an operation makes."""
    ((kind, said),) = output.items() if len(output) == 1 else (("", None),)
    if kind == "as_tensors" and isinstance(said, list):
        return [_name(one) for one in said]
    if isinstance(said, dict) and isinstance(name := said.get("name", said.get("as_name")), str):
        return [name]
    return []


def _path(node: Node) -> str:
    """Return the path of the module that an operation is of: the last of `name,path,class;…`."""
    innermost = node.metadata.get("nn_module_stack", "").rpartition(";")[2].split(",")
    return innermost[1] if len(innermost) >= 3 else ""


def _shape(meta: Meta, asked: Shape | None) -> Shape:
    """Return the shape of a batch of images."""
    if len(meta.sizes) != 4:
        raise MalformedError(f"expected images, batch × channels × height × width, found {len(meta.sizes)} axes")
    batch, *sizes = (_integer(size) for size in meta.sizes)
    if "as_expr" in meta.sizes[0] or not 1 <= batch <= 2**10:
        batch = BATCH
    image = asked or tuple(sizes)
    if not all(1 <= size <= LARGEST_SIDE for size in image[1:]) or not 1 <= image[0] <= 2**20:
        raise MalformedError("it does not say the size of its images; --input says it")
    return (batch, *image)
