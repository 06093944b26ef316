"""The rules of the house: who may import whom, who computes, and what a new layer kind touches."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import vggkit
from tests import scratch

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vggkit"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

WINGS = (
    "base",
    "notation",
    "modules",
    "network",
    "footprint",
    "figures",
    "pictures",
    "search",
    "exchange",
    "model",
    "classify",
    "cli",
)
"""The wings of the package, in order: each imports only itself and wings before it."""


@cache
def tree(module: str) -> ast.Module:
    """Parse a module of the package."""
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def home(name: str) -> str:
    """Return the module of the package that an imported name is, or stands in; torch if it is torch's."""
    package, *path = name.split(".")
    homes = ("/".join([*path[:end], *ending]) for end in (len(path), len(path) - 1) for ending in ([], ["__init__"]))
    return next((home for home in homes if home in MODULES), "") if package == "vggkit" else package


@cache
def imports(module: str) -> set[str]:
    """Return the other modules of the package that a module imports anywhere in it, and torch if it does."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {home(name) for name in names} & {*MODULES, "torch"} - {module}


def test_a_wing_imports_only_what_stands_before_it() -> None:
    """Data flows one way: no import, not even a lazy one or one for types alone, leads back."""
    for module in MODULES:
        if not module.startswith("__"):
            allowed = WINGS[: WINGS.index(module.split("/")[0]) + 1]
            assert {name for name in imports(module) - {"torch"} if name.split("/")[0] not in allowed} == set(), module


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Lazy imports and those for types alone are counted as well."""
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_the_root_has_few_modules() -> None:
    """What stands at the package's root is the front door; everything else is in a wing."""
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_only_modules_the_model_and_classify_need_torch() -> None:
    """What reads torch modules, the model, the weights and what is made of them import torch, and nobody else does."""
    needing = {module for module in MODULES if "torch" in imports(module)}
    assert {module.split("/")[0] for module in needing} == {"modules", "model", "classify"}


def test_layers_have_no_framework_at_all() -> None:
    """The layers import nothing but msgspec, the standard library and vggkit's own base."""
    roots = set()
    for module in (module for module in MODULES if module.startswith("notation/layers/")):
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.split(".")[0])
    assert roots <= {*sys.stdlib_module_names, "msgspec", "vggkit"}


def test_what_computes_prints_nothing() -> None:
    """No wing that computes figures calls print or knows the terminal."""
    for module in MODULES:
        if module.startswith(("base/", "notation/", "network", "footprint/", "figures/")):
            calls = [node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
            assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), module
            text = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
            assert "import click" not in text, module
            assert "Console" not in text or module == "base/tables", module


COMPUTING = {"sum", "elements", "summarize", "memory", "plan", "place"}
FIGURES = {
    "weights", "biases", "parameters", "multiply_accumulates", "activation_elements", "activation_bytes", "peak_bytes",
    "saved_for_backward_bytes", "steady_bytes", "stored", "statistics",
}  # fmt: skip


DRAWING = [
    module
    for module in MODULES
    if module.startswith("pictures/") or module.endswith(("listings", "tables", "problems"))
    if module not in ("pictures/plot", "pictures/report/report")
]


def drawing(module: str) -> list[ast.AST]:
    """Return what draws in a module: all of it, or where values and their tables are one module, the tables."""
    if module in DRAWING:
        return [tree(module)]
    return [
        node
        for node in ast.walk(tree(module))
        if (isinstance(node, ast.FunctionDef) and node.name == "table")
        or (isinstance(node, ast.ClassDef) and node.name.endswith("Table"))
    ]


def test_rendering_computes_no_figure() -> None:
    """No figure of a row, a total or a plan takes part in arithmetic where it is drawn, and nothing is summed up.

    Exceptions: widths of columns and of a picture's parts are summed up, charts divide figures by a unit, and the
    lecture's listing divides bytes by elements to say how many one element has.
    """
    widths = ("base/tables", "pictures/architecture", "pictures/parts", "pictures/tikz")
    for module in MODULES:
        allowed = {"sum"} if module in widths else set()
        for node in (node for part in drawing(module) for node in ast.walk(part)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in COMPUTING - allowed, (module, ast.unparse(node))
            if isinstance(node, ast.BinOp) and module not in ("pictures/timeline", "figures/listings"):
                sides = {side.attr for side in (node.left, node.right) if isinstance(side, ast.Attribute)}
                assert not sides & FIGURES, (module, ast.unparse(node))


def test_no_module_hides_a_function() -> None:
    """No module bears the name of a public function: importing it would hide the function."""
    assert not {module.split("/")[0] for module in MODULES} & set(vggkit.__all__)


MISH = '''

class Mish(InPlaceActivation, frozen=True):
    """x·tanh(softplus(x))."""

    keyword = "mish"
    stem = "mish"

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("clone of the input" if self.inplace else "input", x),)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.Mish(inplace=self.inplace)
'''

PRELU = '''
from vggkit.notation.layers.rules import Product


class PReLU(Activation, frozen=True):
    """x where it is above 0, elsewhere x times a slope that is trained."""

    init: Number = 0.25

    keyword = "prelu"
    primary = "init"
    stem = "prelu"
    keras_type = "PReLU"

    def parameter_counts(self, x: Shape) -> dict[str, Product]:
        return {"weight": Product.of("one slope for all channels", ("1", 1))}

    def kept(self, x: Shape) -> tuple[Kept, ...]:
        return (Kept("input", x),)

    def run(self, x: Tensor, parameters: dict[str, Parameter], eager: Eager) -> Tensor:
        weight = parameters["weight"]

        def backward(_: Any) -> Any:
            made = [eager.new(*x.size), eager.new(*x.size)]
            eager.note()
            return made

        def adjust(_: Any, made: Any) -> Any:
            total = eager.new(*weight.size)  # the engine sums the slope's gradient over all values
            eager.note()
            eager.release(made[1])
            return [made[0], total]

        return eager.op(x, weight, keeps=(x, weight), backward=backward, adjust=adjust)

    def module(self, x: Shape, nn: Any) -> Any:
        return nn.PReLU(init=self.init)
'''

USE_PARAMETERS = """
import pathlib, tempfile
import vggkit, torch
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.model import verify
text = '{input: 3x8x8, defaults: {activation: {prelu: 0.5}}, blocks: [[conv3-4, prelu]], classifier: [FC-6, FC-5]}'
network = vggkit.Network.of(vggkit.loads(text))
assert vggkit.loads(vggkit.dump(network.config)) == network.config
slopes = {'block1_prelu1': 0.5, 'block1_prelu1_2': 0.25, 'prelu1': 0.5}
rows = {row.name: row for row in vggkit.summarize(network)}
assert [rows[name].parameters for name in slopes] == [1, 1, 1]
torch.use_deterministic_algorithms(True)  # what nobody initialises is NaN
torch.manual_seed(0)
model = vggkit.build(network, seed=0)
layers = {name: model.get_submodule(network.layer(name).module) for name in slopes}
assert {name: layer.weight.item() for name, layer in layers.items()} == slopes
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
optimizer.step()
assert all(layer.weight.item() != slopes[name] for name, layer in layers.items())
file = pathlib.Path(tempfile.mkdtemp()) / 'trained.safetensors'
vggkit.save_weights(model, file)
x = torch.randn(2, 3, 8, 8)
assert torch.equal(vggkit.load_model(file).eval()(x), model.eval()(x))
described = vggkit.describe(torch.nn.Sequential(model), input='3x8x8')
assert torch.equal(vggkit.build(described, weights=model).eval()(x), model(x))
assert next(step.result for step in vggkit.explain(network, 'prelu1') if step.quantity == 'parameters') == 1
for batch, options in ((1, {}), (3, {'optimizer': 'adamw', 'checkpoint': ('block1',)}), (2, {'freeze': ('block1',)})):
    options = StepOptions(batch=batch, **options)
    claims = list(verify.verify(network, options))
    assert claims and all(claim.holds for claim in claims), claims
"""

USE = """
import vggkit, torch
from vggkit.footprint.plan import plan_step
from vggkit.footprint.steps.options import StepOptions
from vggkit.model import verify
from vggkit.notation.json_schema import schema
text = 'input: 3x8x8\\ndefaults: {activation: mish}\\nblocks: [[conv3-4, maxpool, mish]]\\nclassifier: [FC-5]'
config = vggkit.loads(text)
network = vggkit.Network.of(config)
assert vggkit.loads(vggkit.dump(config)) == config
assert [placed.name for placed in network][:2] == ['block1_conv1', 'block1_mish1']
assert vggkit.summarize(network, expand=True).rows[2].notation == 'mish'
model = vggkit.build(network)
assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
model.block1.mish1 = torch.nn.Mish()
assert 'inplace: false' in vggkit.dump(model.config)
assert 'mish' in vggkit.dump(vggkit.describe(torch.nn.Sequential(model), input='3x8x8'))
options = StepOptions(batch=2)
assert plan_step(network, options).by_kind == verify.training_peak(network, options)
assert 'Mish' in schema()['$defs']
assert [step.result for step in vggkit.explain(network, 'block1_mish1')][:3] == [4, 8, 8]
"""


def use_with(kind: str, use: str, tmp_path: Path) -> None:
    """Add a class to the activations of a copy of the package, and run a program with that copy."""
    family = scratch.package(tmp_path) / "notation" / "layers" / "activations.py"
    family.write_text(family.read_text(encoding="utf-8") + kind, encoding="utf-8")
    scratch.run(tmp_path, use)


def test_a_new_layer_kind_is_one_class(tmp_path: Path) -> None:
    """A class added to its family can be written, read, summed up, explained, built, measured and checked."""
    use_with(MISH, USE, tmp_path)


def test_so_is_one_with_parameters(tmp_path: Path) -> None:
    """It is initialised by its own module, trained, saved and loaded, and verified to the byte as well."""
    use_with(PRELU, USE_PARAMETERS, tmp_path)


ALL = [
    "VGG", "ArgumentError", "BuildError", "CheckpointError", "Classifier", "Comparison", "Config", "ConfigError",
    "Explanation", "Finding", "Found", "GroupPlan", "Inspection", "MemoryPlan", "Network", "Picture", "Remedies",
    "Remedy", "Report", "StrategyPlan", "Summary",
    "VggkitError", "build", "compare", "convert", "describe", "dump", "explain", "export", "features", "find",
    "import_config", "inspect", "load",
    "load_model", "load_weights", "loads", "max_batch", "memory", "names", "parallelize", "plan", "plot", "reconcile",
    "remedies", "report", "save_weights", "summarize", "to_fully_convolutional",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    """The package's surface is small, and each name of it is there and says what it is."""
    assert vggkit.__all__ == ALL
    for name in ALL:
        assert getattr(vggkit, name).__doc__
    assert set(ALL) <= set(dir(vggkit))


def test_importing_vggkit_imports_nothing_heavy(tmp_path: Path) -> None:
    """`import vggkit` takes no torch, rich, matplotlib or YAML; the commands that need no torch take none."""
    code = (
        "import sys, json, vggkit\n"
        "first = sorted({'torch', 'rich', 'matplotlib', 'yaml', 'msgspec', 'numpy'} & set(sys.modules))\n"
        "from vggkit.cli import main\n"
        "import io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    for arguments in ('summarize D', 'list', 'show D', 'names D', 'validate D', 'schema', 'memory D',"
        "        'compare', 'explain D', 'reconcile D 15.48G', 'find A', 'remedies D 8GB',"
        "        'plan D --ranks 8 --card 24GiB --batch 256', 'export D -o D.prototxt',"
        "        'import D.prototxt', 'export D -o D.onnx', 'import D.onnx',"
        "        'export D -o D.pt2', 'import D.pt2', 'export D -o D.keras', 'import D.keras'):\n"
        "        try: main(arguments.split())\n"
        "        except SystemExit as end: assert end.code == 0\n"
        "print(json.dumps([first, 'torch' in sys.modules, 'matplotlib' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(done.stdout) == [[], False, False]
