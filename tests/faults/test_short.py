"""The fault suite in short, as part of `make test`: a promotion, a refusal and a killed replica, under load."""

import signal

import pytest

from tests.faults.arena import CONTRARY, GOOD, Load, Registry, Server, kill
from tests.faults.report import row
from tests.serving.policies import digest_tags
from tests.workshop import await_true

pytestmark = pytest.mark.e2e


def test_promotions_a_refusal_and_a_killed_replica_fail_no_request(registry: Registry, pair: Server) -> None:
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
    counts = row("in short", load.records, registry.bundles)
    assert (counts.failed, counts.wrong) == (0, 0), [record for record in load.records if record.error][:5]
    assert {record.version for record in load.records} == {1, 2}
    assert max(swaps) < 10
    assert back < 30


def test_sigterm_stops_the_server_and_leaves_no_process(pair: Server) -> None:
    """The last test of this file, because it stops the server."""
    pair.process.send_signal(signal.SIGTERM)
    assert pair.process.wait(60) == 0
    await_true(lambda: not pair.shop.processes(), "every process has ended")
