import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve import context

from serving.arguments import Arguments
from serving.experience.online import OnlineReturns
from serving.http.policy_app import PolicyApp
from serving.replica import metrics
from serving.replica.metrics import DESCRIPTIONS, Exporter, Metrics, Tally
from serving.replica.refresh_state import Refresh
from tests.serving.asking import ask, served

ONE = b'{"observation": [0, 0, 1, 0]}'


def test_a_tally_has_the_cumulative_counts_of_a_prometheus_histogram() -> None:
    tally = Tally((1.0, 2.5))
    for number in (0.5, 1.0, 2.0, 9.0):
        tally.add(number)
    assert tally.cumulative() == [("1", 2), ("2.5", 3), ("+Inf", 4)]
    assert tally.total == 12.5


def test_the_bounds_of_the_histograms_stay_because_dashboards_add_them_up_over_replicas_and_releases() -> None:
    bounds = {name: " ".join(bound for bound, _ in tally.cumulative()) for name, tally in Metrics().histograms.items()}
    latency = "0.05 0.1 0.2 0.5 1 2 5 10 20 50 100 200 500 1000 5000 +Inf"
    assert bounds == {
        "policy_request_latency_ms": latency,
        "policy_inference_latency_ms": latency,
        "policy_batch_size": "1 2 4 8 16 32 64 128 256 512 1024 4096 16384 +Inf",
    }


def test_every_histogram_is_described() -> None:
    assert Metrics().histograms.keys() <= DESCRIPTIONS.keys()


def test_requests_batches_and_errors_are_counted() -> None:
    app = PolicyApp(served(), Arguments(max_body_bytes=1000))
    for body in (ONE, b'{"observations": [[0, 0, 1, 0], [0, 0, 1, 0]]}', b"hello", b"hello", b"{}"):
        ask(app, body=body)
    assert app.metrics.request_ms.cumulative()[-1] == ("+Inf", 2)
    assert app.metrics.inference_ms.cumulative()[-1] == ("+Inf", 2)
    assert app.metrics.batch_size.cumulative()[:2] == [("1", 1), ("2", 2)]
    assert app.metrics.requests_rejected == {"body_not_json": 2, "observation_missing": 1}


class Gauges:
    """Keeps what the exporter sets, in the place of Ray's gauges; `test_run.py` reads the real ones from a server."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def __call__(self, model: str, name: str, suffix: str = "", *tag_keys: str) -> "Gauges.One":
        assert model == "cartpole-ppo"
        return Gauges.One(self, name + suffix, tag_keys)

    class One:
        def __init__(self, gauges: "Gauges", name: str, tag_keys: tuple[str, ...]) -> None:
            self._gauges, self._name, self._tag_keys = gauges, name, tag_keys

        def set(self, value: float, tags: dict[str, Any] | None = None) -> None:
            assert set(tags or {}) == set(self._tag_keys)
            self._gauges.values[" ".join([self._name, *(tags or {}).values()])] = value


def test_the_exported_numbers_are_those_of_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges, counted = Gauges(), Metrics()
    monkeypatch.setattr(metrics, "_gauge", gauges)
    for size in (1.0, 2.0, 2.0):
        counted.batch_size.add(size)
    counted.requests_rejected["body_not_json"] += 4
    refresh = Refresh(swaps=2, degraded=True, stale_at=0.0, rejections={"digest_mismatch": 5})
    Exporter(counted, "cartpole-ppo", lambda: 7, lambda: refresh).flush()
    expected = {
        "policy_batch_size_bucket 1": 1,
        "policy_batch_size_bucket 2": 3,
        "policy_batch_size_bucket +Inf": 3,
        "policy_batch_size_sum": 5,
        "policy_batch_size_count": 3,
        "policy_request_latency_ms_count": 0,
        "policy_requests_rejected body_not_json": 4,
        "policy_model_version": 7,
        "policy_swaps": 2,
        "policy_degraded": True,
        "policy_stale": True,
        "policy_versions_rejected digest_mismatch": 5,
    }
    assert {name: gauges.values[name] for name in expected} == expected


def test_the_totals_of_finished_episodes_are_exported_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges, online = Gauges(), OnlineReturns(lambda: 3)
    monkeypatch.setattr(metrics, "_gauge", gauges)
    online.add({"episode": "a", "return": 10.0, "length": 12, "done": "terminated", "version": None})
    online.add({"episode": "b", "return": 5.0, "length": None, "done": "truncated", "version": 4})
    Exporter(Metrics(), "cartpole-ppo", lambda: 3, Refresh, online.numbers).flush()
    assert {name: value for name, value in gauges.values.items() if "online" in name} == {
        "policy_online_episodes 3": 1,
        "policy_online_return_sum 3": 10.0,
        "policy_online_length_sum 3": 12,
        "policy_online_length_count 3": 1,
        "policy_online_episodes 4": 1,
        "policy_online_return_sum 4": 5.0,
        "policy_online_length_sum 4": 0,
        "policy_online_length_count 4": 0,
    }


def test_without_experience_no_totals_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    gauges = Gauges()
    monkeypatch.setattr(metrics, "_gauge", gauges)
    Exporter(Metrics(), "cartpole-ppo", lambda: 3, Refresh).flush()
    assert not [name for name in gauges.values if "online" in name]


def test_the_export_survives_failures_and_logs_the_first_of_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that ends leaves the last numbers of its replica on the dashboards for ever."""
    monkeypatch.setattr(metrics, "FLUSH_S", 0.0)
    monkeypatch.setattr(metrics, "_gauge", Gauges())
    failures = [ZeroDivisionError(), MemoryError()]
    exported = asyncio.Event()

    def version() -> int:
        if failures:
            raise failures.pop()
        exported.set()
        return 7

    async def run() -> None:
        exporting = asyncio.create_task(Exporter(Metrics(), "cartpole-ppo", version, Refresh).run())
        async with asyncio.timeout(10):
            await exported.wait()
        exporting.cancel()

    asyncio.run(run())
    assert caplog.text.count("exporting the metrics failed") == 1


def test_every_metric_of_a_replica_says_which_one_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = SimpleNamespace(app_name="staging", deployment="policy", replica_tag="abc")
    monkeypatch.setattr(context, "_get_internal_replica_context", lambda: identity)
    for labels in ((), ("code",)):
        gauge = metrics._gauge("cartpole-ppo", "policy_swaps", "", *labels).info
        assert gauge["default_tags"] == {
            "application": "staging",
            "deployment": "policy",
            "replica": "abc",
            "model": "cartpole-ppo",
        }
        assert set(gauge["tag_keys"]) == {*gauge["default_tags"], *labels}
