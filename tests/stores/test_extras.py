"""Without the extra of a store, every command ends with one line that names it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.arena import GOOD
from tests.stores.mlflow_stores import StoreRegistry
from tests.workshop import PROJECT, Workshop, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.stores, pytest.mark.timeout(300)]

COMMANDS = {
    "train": ("pipeline", "train", "--max-env-steps", "2000"),
    "evaluate": ("pipeline", "evaluate", "models:/extras/1", "--episodes", "2"),
    "promote": ("pipeline", "promote", "1", "--name", "extras", "--episodes", "2"),
    "verify": ("pipeline", "verify", "models:/extras/1"),
    "run": ("serving", "run", "--model-uri", "models:/extras/1", "--cache-dir", "cache"),
}


def without(module: str, registry: StoreRegistry, directory: Path) -> Workshop:
    """Return a directory whose commands cannot import a module."""
    stub = directory / "without" / f"{module}.py"
    stub.parent.mkdir()
    stub.write_text(f"raise ModuleNotFoundError('No module named {module}', name='{module}')\n")
    return Workshop(directory, {**registry.environment, "PYTHONPATH": f"{PROJECT}:{stub.parent}"})


def last_line(shop: Workshop, *command: str) -> str:
    port = ("--port", str(free_port())) if command[1] == "run" else ()
    done = shop.python(*command, *port)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_files_in_s3_without_boto3(command: str, registry_of: Callable[[str], StoreRegistry], tmp_path: Path) -> None:
    registry = registry_of("direct")
    if not registry.client().search_model_versions("name='extras'"):
        registry.register(GOOD, name="extras")
    line = last_line(without("boto3", registry, tmp_path), *COMMANDS[command])
    assert line.startswith("Error: the artifact store at s3:// needs the module boto3, which is not installed")
    assert line.endswith("pip install 'cartpole-ppo[s3]'")


def test_a_new_experiment_in_s3_without_boto3(registry_of: Callable[[str], StoreRegistry], tmp_path: Path) -> None:
    """Before the experiment exists, nobody knows where its files will be."""
    shop = without("boto3", registry_of("direct"), tmp_path)
    shop.environment["MLFLOW_EXPERIMENT_NAME"] = f"new-{free_port()}"
    assert last_line(shop, *COMMANDS["train"]).endswith("pip install 'cartpole-ppo[s3]'")


@pytest.mark.parametrize("command", [*COMMANDS, "versions"])
def test_a_database_without_psycopg2(command: str, registry_of: Callable[[str], StoreRegistry], tmp_path: Path) -> None:
    shop = without("psycopg2", registry_of("database"), tmp_path)
    line = last_line(shop, *COMMANDS.get(command, ("pipeline", "versions")))
    assert line.startswith("Error: the database at postgresql+psycopg2:// needs the module psycopg2, which is not")
    assert line.endswith("pip install 'cartpole-ppo[postgres]'")
