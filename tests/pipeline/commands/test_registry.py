import os
import subprocess
import sys

import mlflow

from tests.serving.store import Store
from tests.workshop import PROJECT

COMMANDS = [
    ["versions"],
    ["history"],
    ["promote", "1", "--stage", "Staging"],
    ["promote", "1", "--alias", "champion", "--episodes", "2", "--force"],
    ["promote", "2", "--episodes", "2", "--force"],
    ["rollback", "--alias", "champion"],
    ["evaluate", "models:/cartpole-ppo/7"],
]

SCRIPT = f"""
import sys
from click.testing import CliRunner
from pipeline.cli import cli
for arguments in {COMMANDS}:
    result = CliRunner().invoke(cli, arguments)
    print(arguments, result.exit_code, result.output)
print({{"ray", "torch", "matplotlib"}} & set(sys.modules))
"""


def test_commands_on_registered_versions_import_neither_ray_nor_torch(store):
    registry = Store(mlflow.get_tracking_uri(), store)
    registry.register("cartpole-ppo", stage="Production")
    registry.register("cartpole-ppo")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registry.uri, "XDG_CACHE_HOME": str(store)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**environment, "PYTHONPATH": str(PROJECT)},
        cwd=store,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stdout
    assert "now has version 1" in done.stdout
    assert "now has version 2" in done.stdout
    assert "Traceback" not in done.stdout
