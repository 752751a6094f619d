"""`make loop` ends by itself with a higher online return, a chart, and nothing left behind."""

import json
import sys

import pytest

from tests.workshop import await_true

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_version_that_learned_from_its_clients_has_a_higher_online_return(seed, tmp_path, workshop):
    process = workshop.start(sys.executable, "-m", "examples.closed_loop", "--seed", str(seed), "--output", "report")
    await_true(lambda: process.poll() is not None, "the loop ends by itself", 1400)
    assert process.returncode == 0, workshop.output()
    assert (tmp_path / "report" / "online-return.png").read_bytes().startswith(b"\x89PNG")
    first, second = json.loads((tmp_path / "report" / "loop.json").read_text())["versions"].values()
    assert second["return_mean"] > first["return_mean"]
