"""Code of TorchScript is followed: what it computes with sizes and options is computed, what it does to images noted.

Every kind of statement and expression that TorchScript prints has a case here
(torch/csrc/jit/serialization/python_print.cpp in pytorch/pytorch); nothing else is taken.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from vggkit.base.errors import LayerError, escaped, shorten
from vggkit.base.pickles import TensorRecord
from vggkit.exchange.programs.calls import COMPUTED, Recorder, Value, values_in
from vggkit.exchange.programs.code import Code, Function
from vggkit.exchange.programs.objects import Pickles, ScriptObject
from vggkit.exchange.values import Values

MOST_STEPS = 150_000
"""Expressions and statements that are followed."""

MOST_DEPTH = 40
"""Functions in one another."""

LARGEST = 2**63


class Module(NamedTuple):
    """A module of the file.

    Args:
        path: where it is.
        held: its attributes.
    """

    path: str
    held: ScriptObject


class Named(NamedTuple):
    """A function that is called by its name, such as `torch.conv2d`."""

    name: str


class Returned(NamedTuple):
    """What a function returns."""

    value: Any


class Budget:
    """Counts steps, so that a program that never ends does."""

    def __init__(self) -> None:
        self.left = MOST_STEPS

    def take(self) -> None:
        """Take a step.

        Raises:
            LayerError: if there have been too many.
        """
        self.left -= 1
        if self.left < 0:
            raise LayerError(f"expected at most {MOST_STEPS:,} steps, found more")


class Interpreter:
    """Follows functions of a file.

    Args:
        code: its texts.
        pickles: its tensors.
        constants: its constants, `CONSTANTS.c0` and so on.
        recorder: notes the operations.
        budget: of steps.
    """

    def __init__(
        self, code: Code, pickles: Pickles, constants: Sequence[Any], recorder: Recorder, budget: Budget
    ) -> None:
        self.code, self.pickles, self.constants = code, pickles, constants
        self.recorder, self.budget = recorder, budget
        self.depth = 0

    def run(self, module: Module, name: str, args: Sequence[Any]) -> Any:
        """Follow a method of a module.

        Raises:
            LayerError: if it can't be followed; says where.
        """
        return self.invoke(self.code.method(module.held.kind, name), module.path, [module, *args], {})

    def invoke(self, function: Function, path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Follow a function.

        Args:
            function: it.
            path: of the module that calls it.
            args: its arguments.
            kwargs: the same by their names.
        """
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise LayerError(f"expected at most {MOST_DEPTH} functions in one another, found more")
        frame = _Frame(self, function, path, args, kwargs)
        returned = frame.follow(function.node.body)
        self.depth -= 1
        return returned.value if returned else None

    def attribute(self, module: Module, name: str) -> Any:
        """Return an attribute of a module: another one, a tensor, or an option."""
        if name == "training":
            return False
        found = module.held.attributes.get(name, COMPUTED)
        path = f"{module.path}.{name}" if module.path else name
        return Module(path, found) if isinstance(found, ScriptObject) else self.settled(found, "data")

    def settled(self, value: Any, folder: str) -> Any:
        """Return an attribute or a constant with tensors for their records; a number for one without axes."""
        if isinstance(value, dict):
            plain = listed([*value.values()])
            return plain if plain is COMPUTED else {**value}
        if not isinstance(value, TensorRecord):
            return listed(value) if isinstance(value, (list, tuple)) else value
        tensor = self.pickles.tensor(folder, value)
        return tensor.load().item() if not tensor.shape and tensor.is_known else tensor


LONGEST = 500
"""Elements of a list."""


def listed(values: Sequence[Any]) -> Any:
    """Return a list; COMPUTED for a long one, and for one with lists in it, which can be larger than the file."""
    is_plain = len(values) <= LONGEST and not any(type(one) in (list, tuple, dict) for one in values)
    return [*values] if is_plain else COMPUTED


class _Frame:
    """A function that is followed right now."""

    def __init__(
        self,
        interpreter: Interpreter,
        function: Function,
        path: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.interpreter, self.path, self.home = interpreter, path, function.home
        self.line = function.node.lineno
        said = function.node.args
        names = [one.arg for one in said.args]
        defaults = dict(zip(names[len(names) - len(said.defaults) :], said.defaults))
        self.known: dict[str, Any] = {}
        for name in names:
            if name in defaults:
                self.known[name] = self.value(defaults[name])
        self.known |= dict(zip(names, args)) | {name: value for name, value in kwargs.items() if name in names}
        if len(args) > len(names) or not all(name in self.known for name in names):
            raise self.refused(f"{function.node.name} takes {len(names)} arguments")

    @property
    def where(self) -> str:
        """The module that runs, or the line."""
        return escaped(shorten(self.path).strip("'")) if self.path else f"{escaped(self.home)}, line {self.line}"

    def refused(self, why: str) -> LayerError:
        return LayerError(f"{escaped(self.home)}, line {self.line}: {why}")

    # Statements

    def follow(self, body: Sequence[ast.stmt]) -> Returned | None:
        """Follow statements up to one that returns."""
        for node in body:
            self.interpreter.budget.take()
            self.line = node.lineno
            returned = self.statement(node)
            if returned is not None:
                return returned
        return None

    def statement(self, node: ast.stmt) -> Returned | None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self.assign(node.targets[0], self.value(node.value))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.assign(node.target, self.value(node.value))
        elif isinstance(node, ast.Expr):
            self.value(node.value)
        elif isinstance(node, ast.Return):
            return Returned(None if node.value is None else self.value(node.value))
        elif isinstance(node, ast.If):
            return self.follow(node.body if self.condition(node.test) else node.orelse)
        elif isinstance(node, ast.For):
            return self.loop(node)
        elif isinstance(node, ast.While):
            while self.condition(node.test):
                returned = self.follow(node.body)
                if returned is not None:
                    return returned
        elif not isinstance(node, ast.Pass):
            raise self.refused(f"expected a statement of TorchScript, found {type(node).__name__}")
        return None

    def loop(self, node: ast.For) -> Returned | None:
        items = self.value(node.iter)
        if not isinstance(items, (list, tuple, range)):
            raise self.refused("it loops over something that is not known")
        for item in items:
            self.assign(node.target, item)
            returned = self.follow(node.body)
            if returned is not None:
                return returned
        return None

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.known[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = value if isinstance(value, (list, tuple)) and len(value) == len(target.elts) else None
            for number, one in enumerate(target.elts):
                self.assign(one, values[number] if values is not None else COMPUTED)
        elif not isinstance(target, ast.Attribute):  # of a module: what it counts does not matter
            raise self.refused("it assigns to something else than a name")

    def condition(self, node: ast.expr) -> bool:
        self.interpreter.budget.take()
        found = self.value(node)
        if not isinstance(found, bool):
            raise self.refused("which way it goes depends on its images; a network here does the same for all")
        return found

    # Expressions

    def value(self, node: ast.expr) -> Any:
        """Return what an expression stands for."""
        self.interpreter.budget.take()
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.known[node.id] if node.id in self.known else Named(node.id)
        if isinstance(node, (ast.List, ast.Tuple)):
            return listed([self.value(one) for one in node.elts])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self.value(node.operand)
            return -number if type(number) in (int, float) else COMPUTED
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Subscript):
            return self.element(self.value(node.value), self.value(node.slice))
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.refused(f"expected an expression of TorchScript, found {type(node).__name__}")

    def attribute(self, node: ast.Attribute) -> Any:
        base = self.value(node.value)
        if isinstance(base, Module):
            return self.interpreter.attribute(base, node.attr)
        if isinstance(base, Named):
            if base.name == "CONSTANTS":
                constants, number = self.interpreter.constants, node.attr.removeprefix("c")
                known = number.isdecimal() and len(number) < 9 and int(number) < len(constants)
                return self.interpreter.settled(constants[int(number)], "constants") if known else COMPUTED
            return Named(f"{base.name}.{node.attr}")
        return COMPUTED

    def element(self, items: Any, place: Any) -> Any:
        if isinstance(items, dict):
            return computed("__getitem__", [items, place])
        if isinstance(items, Value):
            return self.interpreter.recorder.call(self.path, "select", [items, place], {}, self.where)
        known = isinstance(items, (list, tuple)) and not isinstance(items, Values) and type(place) is int
        return items[place] if known and -len(items) <= place < len(items) else COMPUTED

    def call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):  # a method, or the name of a function
            base = self.value(node.func.value)
            function = Named(f"{base.name}.{node.func.attr}") if isinstance(base, Named) else base
        else:
            function = self.value(node.func)
        args = [self.value(one) for one in node.args]
        kwargs = {one.arg: self.value(one.value) for one in node.keywords if one.arg is not None}
        if isinstance(function, Named):
            return self.named(function.name, args, kwargs)
        if isinstance(function, Module) and isinstance(node.func, ast.Attribute):
            method = self.interpreter.code.method(function.held.kind, node.func.attr)
            return self.interpreter.invoke(method, function.path, [function, *args], kwargs)
        raise self.refused("it calls something that is not known")

    def named(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return what a function makes that is called by its name."""
        if name.startswith("__torch__."):
            return self.interpreter.invoke(self.interpreter.code.function(name), self.path, args, kwargs)
        if name == "ops.prim.RaiseException":
            said = next((arg for arg in args if isinstance(arg, str)), "")
            raise self.refused(f"it raises an error: {escaped(shorten(' '.join(said.split())))}")
        if name == "getattr" and len(args) == 2 and isinstance(args[0], Module):
            return self.interpreter.attribute(args[0], str(args[1]))
        if name in ("annotate", "unchecked_cast"):
            return args[-1] if args else COMPUTED
        library, _, op = name.rpartition(".")
        if op in ABOUT and len(values_in(args)) == 1 and args and isinstance(args[0], Value):
            return ABOUT[op](args[0], *args[1:2])
        if taken := values_in([*args, *kwargs.values()]):
            if library in ("", "ops.prim") and op in ("NumToTensor", "data", "float", "int", "bool"):
                return taken[0] if op == "data" else COMPUTED
            word = op if library in ("torch", "ops.aten") else name
            return self.interpreter.recorder.call(self.path, word, args, kwargs, self.where)
        return computed(op, args)


def _size(value: Value, axis: Any = None) -> Any:
    if value.shape is None:
        return COMPUTED
    if axis is None:
        return [*value.shape]
    known = type(axis) is int and -len(value.shape) <= axis < len(value.shape)
    return value.shape[axis] if known else COMPUTED


ABOUT: dict[str, Callable[..., Any]] = {
    "size": _size,
    "dim": lambda value, *_: COMPUTED if value.shape is None else len(value.shape),
    "len": lambda value, *_: COMPUTED if value.shape is None else value.shape[0],
    "numel": lambda value, *_: COMPUTED if value.shape is None else prod(value.shape),
    "dtype": lambda *_: COMPUTED,
    "device": lambda *_: COMPUTED,
    "is_floating_point": lambda *_: True,
    "__is__": lambda *_: False,
    "__isnot__": lambda *_: True,
}
"""What is asked of a value that comes from the image; None is what it is compared with."""

NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "remainder": operator.mod, "neg": operator.neg, "div": operator.truediv, "eq": operator.eq, "ne": operator.ne,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "min": min, "max": max,
    "__and__": operator.and_, "__or__": operator.or_, "__not__": operator.not_, "int": int, "Int": int,
    "float": float, "Float": float, "bool": bool, "Bool": bool, "ScalarImplicit": operator.pos,
    "NumToTensor": operator.pos,
}  # fmt: skip
"""What is computed with numbers."""


def _of_dict(op: str, args: Sequence[Any]) -> Any:
    """Return an element of a dict, or whether it has one."""
    held, key = args[0], args[1] if len(args) > 1 else COMPUTED
    if not isinstance(key, (str, int)):
        return COMPUTED
    if op == "__contains__":
        return key in held
    return held.get(key, args[2] if op == "get" and len(args) > 2 else COMPUTED)


def computed(op: str, args: Sequence[Any]) -> Any:
    """Return what a function makes of numbers, lists and options; COMPUTED if that is not known."""
    if op in ("__is__", "__isnot__") and len(args) == 2 and COMPUTED not in args:
        return (args[0] is args[1]) == (op == "__is__")
    if op in ("eq", "ne") and len(args) == 2 and all(isinstance(arg, (list, str)) for arg in args):
        return (args[0] == args[1]) == (op == "eq")
    if op == "len" and len(args) == 1 and isinstance(args[0], list):
        return len(args[0])
    if op == "range" and all(type(arg) is int for arg in args) and 1 <= len(args) <= 3:
        return range(*args) if len(args) < 3 or args[2] else COMPUTED
    if op in ("get", "__getitem__", "__contains__") and args and isinstance(args[0], dict):
        return _of_dict(op, args)
    if (
        op == "slice"
        and args
        and isinstance(args[0], list)
        and all(one is None or type(one) is int for one in args[1:])
    ):
        return args[0][slice(*(args[1:] or [None]))] if len(args) < 4 or args[3] else COMPUTED
    if op == "add" and len(args) == 2 and all(isinstance(arg, list) for arg in args):
        return listed([*args[0], *args[1]])
    if op in ("list", "tuple") and len(args) == 1 and isinstance(args[0], list):
        return [*args[0]]
    if op == "append" and len(args) == 2 and isinstance(args[0], list) and len(args[0]) < LONGEST:
        args[0].append(args[1])
        return args[0]
    if op == "__getitem__" and len(args) == 2 and isinstance(args[0], list) and type(args[1]) is int:
        return args[0][args[1]] if -len(args[0]) <= args[1] < len(args[0]) else COMPUTED
    if op in NUMBERS and args and all(isinstance(arg, (int, float)) for arg in args):
        try:
            found = NUMBERS[op](*args)
        except (ArithmeticError, TypeError, ValueError):
            return COMPUTED
        return found if abs(found) < LARGEST else COMPUTED
    return COMPUTED
