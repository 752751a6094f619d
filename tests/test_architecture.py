"""Imports run one way: serving knows nothing of pipeline, nor of what trains."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

ALLOWED_FROM_SERVING = {"auth", "policy", "registry", "spaces", "errors", "console"}


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("file", sorted((PROJECT / "serving").rglob("*.py")), ids=lambda file: file.stem)
def test_serving_imports_neither_pipeline_nor_torch_nor_rllib(file):
    for module in imported_modules(file):
        assert not module.startswith(("pipeline", "torch", "ray.rllib", "gym.")), f"{file.name} imports {module}"


@pytest.mark.parametrize("file", sorted((PROJECT / "pipeline").glob("*.py")), ids=lambda file: file.stem)
def test_pipeline_takes_from_serving_only_what_judging_a_policy_needs(file):
    for module in imported_modules(file):
        package, _, name = module.partition(".")
        assert package != "serving" or name in ALLOWED_FROM_SERVING, f"{file.name} imports {module}"


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.training.progress", "serving.cli"])
def test_what_speaks_first_imports_nothing_heavy(module):
    script = f"import sys, {module}; print({{'ray', 'torch', 'mlflow', 'onnxruntime', 'gymnasium'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.strip() == "set()"
