"""The fault suite in short, as part of `make test`: a promotion, a refusal and a killed replica, under load."""

import pytest

from tests.faults.arena import CONTRARY, GOOD, Load, Registry, Server, kill
from tests.serving.policies import digest_tags

pytestmark = pytest.mark.e2e


def test_promotions_a_refusal_and_a_killed_replica_fail_no_request(registry: Registry, pair: Server, tell) -> None:
    corrupt = registry.register(GOOD, tags=digest_tags(CONTRARY))
    with Load(pair, "--rate", "100", "--client", "requests") as load:
        swaps = []
        for version in (2, 1):
            registry.promote(version)
            swaps.append(pair.await_models(lambda model, v=version: model["version"] == v, "the promoted answers"))
        registry.promote(corrupt)
        pair.await_models(lambda model: model["refused"], "the corrupt version is refused")
        registry.promote(1)
        pair.await_models(lambda model: not model["refused"], "the refusal is over")
        killed = pair.replica_pid()
        kill(killed)
        back = pair.await_models(lambda model: model["replica"]["pid"] != killed, "both replicas are back", 60)
    row = tell("in short", load.records, f"swaps within {max(swaps):.1f} s", f"two replicas again after {back:.1f} s")
    assert (row.failed, row.wrong) == (0, 0), [record for record in load.records if record.error][:5]
    assert {record.version for record in load.records} == {1, 2}
    assert max(swaps) < 10
    assert back < 30
