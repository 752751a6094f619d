"""Rooms are ordered and imports run one way; see docs/explanation/architecture.md."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent

#: The rooms of each package, the lowest first. A room imports from itself and from rooms above it in this list only.
ORDER = {
    "serving": [
        "errors",
        "release",
        "uri_secrets",
        "processes",
        "credentials",
        "sandbox",
        "telemetry",
        "client",
        "async_client",
        "policy",
        "experiments",
        "registry",
        "integrity",
        "experience",
        "replica",
        "protocols",
        "protocols.openapi",
        "protocols.native",
        "protocols.feedback",
        "protocols.mlflow_scoring",
        "protocols.open_inference",
        "play",
        "arguments",
        "rollout",
        "http",
        "ray",
        "app",
        "commands",
        "cli",
        "__main__",
    ],
    "pipeline": [
        "errors",
        "config",
        "signals",
        "environments",
        "settings",
        "rllib.compat",
        "networks",
        "export",
        "evaluation",
        "reference",
        "rllib",
        "bundle",
        "tracking",
        "registry",
        "training",
        "tuning",
        "verification",
        "tables",
        "journey",
        "experience",
        "learning",
        "experiment",
        "drift",
        "ope",
        "commands",
        "cli",
        "__main__",
    ],
}

#: What `pipeline` may import from `serving`, beside its ground.
ALLOWED_FROM_SERVING = (
    "serving.policy",
    "serving.registry",
    "serving.integrity",
    "serving.client",
    "serving.errors",
    "serving.processes",
    "serving.experience",
    "serving.experiments",
)

#: Where private parts of Ray, RLlib and MLflow may be used.
PRIVATE = (PROJECT / "serving/ray/internals.py", PROJECT / "pipeline/rllib/compat.py")

MAX_FILES = 9
MAX_LINES = 300
MAX_FUNCTION_LINES = 45

FILES = sorted(file for package in ORDER for file in (PROJECT / package).rglob("*.py"))
WRITTEN = [file for file in FILES if "_pb2" not in file.name]
DIRECTORIES = sorted({file.parent for file in FILES})


def module_of(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def name(file: Path) -> str:
    return str(file.relative_to(PROJECT))


@cache
def imported(file: Path) -> frozenset[str]:
    """The modules that a file imports, at any depth; `from room import module` is an import of the module."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(file)}, line {node.lineno}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner if inner <= MODULES.keys() else inner | {node.module}
    return frozenset(found)


def room_of(module: str) -> str | None:
    """The room that a module lies in; None for a package itself."""
    package, _, rest = module.partition(".")
    parts = rest.split(".")
    rooms = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return next((room for room in rooms if room in ORDER[package]), None)


def within_package(file: Path) -> Iterator[str]:
    package = module_of(file).partition(".")[0]
    return (module for module in imported(file) if module.partition(".")[0] == package and module in MODULES)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_file_lies_in_a_room_of_the_order(file):
    module = module_of(file)
    assert module in ORDER or room_of(module), f"{name(file)} is in no room: add it to ORDER"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_room_imports_only_rooms_below_it(file):
    order = ORDER[module_of(file).partition(".")[0]]
    own = room_of(module_of(file))
    for module in within_package(file):
        room = room_of(module)
        if own is not None and room is not None:
            assert order.index(room) <= order.index(own), f"{name(file)} imports {module}, which lies above it"


def test_no_module_imports_itself_through_others():
    graph = {module: set(within_package(file)) - {module} for module, file in MODULES.items()}
    while free := {module for module, needs in graph.items() if not needs & graph.keys()}:
        graph = {module: needs for module, needs in graph.items() if module not in free}
    assert not graph, f"these import each other, or something that does: {sorted(graph)}"


@pytest.mark.parametrize("file", [file for file in FILES if file.is_relative_to(PROJECT / "serving")], ids=name)
def test_serving_imports_neither_pipeline_nor_torch_nor_rllib(file):
    for module in imported(file):
        assert not f"{module}.".startswith(("pipeline.", "torch.", "ray.rllib.", "gym.")), f"imports {module}"


@pytest.mark.parametrize("file", [file for file in FILES if file.is_relative_to(PROJECT / "pipeline")], ids=name)
def test_pipeline_imports_from_serving_only_what_judging_a_policy_needs(file):
    for module in imported(file):
        if module.startswith("serving"):
            assert f"{module}.".startswith(tuple(f"{room}." for room in ALLOWED_FROM_SERVING)), f"imports {module}"


@pytest.mark.parametrize("file", [file for file in WRITTEN if file not in PRIVATE], ids=name)
def test_private_parts_of_libraries_are_used_in_one_file_an_engine(file):
    assert "SLF001" not in file.read_text(), "move the use of a private member into one of PRIVATE, with a guard"
    assert not [module for module in imported(file) if re.search(r"(^|\.)_", module) and "__" not in module]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=name)
def test_a_room_is_small_and_says_what_it_is_for(directory):
    assert ast.get_docstring(ast.parse((directory / "__init__.py").read_text()))
    files = [file for file in directory.glob("*.py") if file.name not in {"__init__.py", "__main__.py"}]
    assert len(files) <= MAX_FILES, f"{len(files)} files"


@pytest.mark.parametrize("file", WRITTEN, ids=name)
def test_files_and_functions_are_short(file):
    text = file.read_text()
    assert text.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("file", sorted((PROJECT / "serving" / "play" / "web").iterdir()), ids=name)
def test_files_of_the_page_are_short(file):
    assert file.read_text().count("\n") <= MAX_LINES


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.training.progress", "serving.cli"])
def test_what_a_command_imports_first_is_light(module):
    script = f"import sys, {module}; print({{'ray', 'torch', 'mlflow', 'onnxruntime', 'gymnasium'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.strip() == "set()"
