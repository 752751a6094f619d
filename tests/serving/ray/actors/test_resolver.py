import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.store import Store
from tests.workshop import Workshop

pytestmark = pytest.mark.e2e


@pytest.fixture
def shop(store: Store) -> Iterator[Workshop]:
    directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # Ray's socket paths are limited in length
    workshop = Workshop(directory, {"MLFLOW_TRACKING_URI": store.uri, "RAY_TMPDIR": str(directory)})
    yield workshop
    workshop.end()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.long
def test_the_nodes_of_a_cluster_share_a_resolver_and_a_single_node_has_none(shop: Workshop, store: Store) -> None:
    store.register("over-nodes", stage="Production")
    module = "tests.serving.ray.actors.two_nodes"
    done = shop.python(module, store.uri, "models:/over-nodes/Production", timeout_s=280)
    assert done.returncode == 0, done.stderr
    facts = {}
    for line in filter(lambda line: line.startswith("{"), done.stdout.splitlines()):
        facts |= json.loads(line)
    assert facts["alone"] == [[None]] * 5
    assert facts["resolved"]
    assert facts["owner"] == ["resolver of an application a deployment"]
    numbers = [number for both in facts["together"] for number, _ in both]
    assert max(numbers) - min(numbers) <= len(facts["together"]), "the two nodes share each poll"
    assert {version for both in facts["together"] for _, version in both} == {1}
    assert facts["refused"] == [[7], [7, 5], [7, 5]], "each node learns what the other has refused"
    assert facts["after_its_end"], "the other node starts another resolver"
    assert facts["left"] == [], "it ends with the replica that started it"
