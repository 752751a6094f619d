"""The journey from training to live traffic, each step a process, with an MLflow server of any kind."""

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.serving.commands.server import Server
from tests.workshop import Workshop, free_port

#: A training of some seconds with more checkpoints than it keeps.
_SHORT = "--max-env-steps 20000 --target-return 1 --checkpoint-interval-s 0"


def take(directory: Path, model: str, trainer: Mapping[str, str], server: Mapping[str, str], *options: str) -> str:
    """Train, promote, verify and serve a policy of CartPole, then train and promote another one, which is served.

    Args:
        directory: Where the commands run.
        model: The registered model.
        trainer: MLflow's variables of the account that trains and promotes.
        server: Those of the account that serves and reads.
        options: Of `serving run`.

    Returns:
        What the trainings have shown.
    """
    writes, reads = Workshop(directory, dict(trainer)), Workshop(directory, dict(server))
    shown = _run(writes, "train", *_SHORT.split(), "--registered-model-name", model)
    number = int(shown.rsplit(f"models:/{model}/", 1)[1].split()[0])
    _run(writes, "promote", str(number), "--name", model, "--episodes", "2", "--force")
    for command in ("versions", "history"):
        assert str(number) in _run(reads, command, "--name", model)
    _run(reads, "verify", f"models:/{model}/{number}", "--observations", "20")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "serving",
        "run",
        "--model-uri",
        f"models:/{model}/Production",
        "--port",
        str(port),
    ]
    cache = ["--cache-dir", str(directory / "served"), "--refresh-interval", "0.5"]
    serving = Server([*command, *cache, *options], dict(server), port, f"/{model}")
    try:
        serving.wait_up()
        serving.await_models(lambda found: found["version"] == number, f"version {number} is served")
        shown += _run(writes, "train", *_SHORT.split(), "--seed", "1", "--registered-model-name", model)
        _run(writes, "promote", str(number + 1), "--name", model, "--episodes", "2", "--force")
        serving.await_models(lambda found: found["version"] == number + 1, "the promoted version is served")
        _run(writes, "rollback", "--name", model)
        serving.await_models(lambda found: found["version"] == number, "the version before is served again")
    finally:
        serving.clean()
    return shown


def _run(shop: Workshop, *arguments: str) -> str:
    done = shop.python("pipeline", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
