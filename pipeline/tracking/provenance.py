"""Records what a run and its version were made with: the commit, the packages and the environment."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

from pipeline.environments.make import Environment

_PACKAGES = ("gymnasium", "mlflow", "numpy", "onnx", "onnxruntime", "ray", "torch")


def tags(environment: Environment) -> dict[str, str]:
    """Return the tags `git_commit`, `env_id`, `env_kwargs` and `package.NAME`."""
    return {
        "git_commit": _commit(),
        "env_id": environment.id,
        "env_kwargs": json.dumps(dict(environment.kwargs)),
        "package.python": platform.python_version(),
        **{f"package.{name}": importlib.metadata.version(name) for name in _PACKAGES},
    }


def _commit() -> str:
    """Return the commit of this code, with `+changes` if files differ from it; `unknown` outside a git repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
