"""The figures of a machine are written after each part, whatever becomes of the others."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import cores
from benchmarks.cores_parts import CONNECTIONS

LOADS = {str(each): {"requests_per_s": 4000.0, "p50_ms": 0.25, "p99_ms": 2.0, "failed": 0} for each in CONNECTIONS}
SERVING = {"this server": {"1": LOADS}, "FastAPI": {"1": LOADS}}
TRAINING = {"CartPole-v1": {"0": {"steps_per_s": 7000.0}, "1": {"steps_per_s": 6500.0}}}


def fails(_: object) -> Any:
    raise RuntimeError("Ray did not start")


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: (lambda _, found=found: found, cores.PARTS[name][1]) for name, found in (("serving", SERVING),)}
    parts |= {"image": (fails, cores.PARTS["image"][1]), "training": (lambda _: TRAINING, cores.PARTS["training"][1])}
    monkeypatch.setattr(cores, "PARTS", parts)
    result = CliRunner().invoke(cores.main, ["--bundle", "none", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = (tmp_path / "cores.md").read_text()
    assert "| FastAPI | 1 | 4,000, 0.25, 2.00 | 4,000," in report
    assert "| CartPole-v1 | 7,000 | 6,500 |" in report
    assert "image: RuntimeError: Ray did not start" in report
    written = json.loads((tmp_path / "cores.json").read_text())
    assert written["serving"] == SERVING
    assert written["machine"]["cores"] >= 1
