"""Keeps the measured runs in a JSON file, so that a benchmark can be continued."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.training.report import Run


def key(run: Run) -> tuple[str, str, int, str]:
    """Return what identifies a run; a later one with the same key replaces it."""
    return run["kind"], run["env_id"], run["seed"], run["peer"]


def read(file: Path) -> list[Run]:
    """Return the runs of a file; none if it does not exist."""
    return json.loads(file.read_text())["runs"] if file.exists() else []


def merge(file: Path, machine: str, run: Run) -> Sequence[Run]:
    """Add a run to the file and return all runs."""
    kept = [each for each in read(file) if key(each) != key(run)]
    runs = sorted([*kept, run], key=key)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".tmp")
    written.write_text(json.dumps({"machine": machine, "runs": runs}) + "\n")
    written.replace(file)
    return runs
