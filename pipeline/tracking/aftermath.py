"""What is left to do once the process of a killed run has ended.

`mlflow run` marks a run whose command failed as FAILED, even one that marked itself KILLED (it looks for the status's
name among the numbers of the final ones). So a process that outlives the command by moments puts KILLED back.
"""

import os
import subprocess
import sys
import time

import mlflow

_TIMEOUT_S = 30.0
_POLL_S = 0.2


def keep_killed(run_id: str) -> None:
    """Start a process that puts the status KILLED back when `mlflow run`, our parent, has overwritten it."""
    subprocess.Popen(
        [sys.executable, "-m", "pipeline.tracking.aftermath", run_id, str(os.getppid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _put_back(run_id: str, parent: int) -> None:
    client = mlflow.MlflowClient()
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        parent_lives = _lives(parent)  # asked first: what it wrote before it died is seen below
        if client.get_run(run_id).info.status != "KILLED":
            client.set_terminated(run_id, "KILLED")
            return
        if not parent_lives:
            return
        time.sleep(_POLL_S)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _put_back(sys.argv[1], int(sys.argv[2]))
