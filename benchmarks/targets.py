"""What the figures should reach, and whether they do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.recipes import MLFLOW, NOOP, OURS, OURS_2, OURS_DIRECT, OURS_INVOCATIONS, OURS_V2, PLAIN, TUTORIAL

Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One figure and its bound."""

    name: str
    figure: Callable[[Results], float]
    bound: float
    at_least: bool = False

    def met(self, results: Results) -> bool:
        """Whether the figure is on the right side."""
        figure = self.figure(results)
        return figure >= self.bound if self.at_least else figure <= self.bound


def _load(name: str, connections: int, figure: str) -> Callable[[Results], float]:
    return lambda results: float(results["load"][name][str(connections)][figure])


def _ratio(one: Callable[[Results], float], other: Callable[[Results], float]) -> Callable[[Results], float]:
    return lambda results: one(results) / other(results)


def _over(section: str, *keys: str) -> Callable[[Results], float]:
    """Return ours less the no-op's."""

    def figure(results: Results) -> float:
        ours, noop = (results[section][name] for name in (OURS, NOOP))
        for key in keys:
            ours, noop = ours[key], noop[key]
        return float(ours - noop)

    return figure


def _to_plain(name: str, connections: int, figure: str) -> Callable[[Results], float]:
    """Return the ratio to one process of FastAPI."""
    return _ratio(_load(name, connections, figure), _load(PLAIN, connections, figure))


_AT_16 = _load(OURS, 16, "requests_per_s")

TARGETS = (
    Target(
        "requests/s at 16 connections, to the no-op",
        _ratio(_AT_16, _load(NOOP, 16, "requests_per_s")),
        0.9,
        at_least=True,
    ),
    Target("p50 at 1 connection, to the no-op's", _ratio(_load(OURS, 1, "p50_ms"), _load(NOOP, 1, "p50_ms")), 1.15),
    Target("p99 at 1 connection, ms", _load(OURS, 1, "p99_ms"), 5.0),
    Target("p99 at 1 connection, to the no-op's", _ratio(_load(OURS, 1, "p99_ms"), _load(NOOP, 1, "p99_ms")), 1.5),
    Target(
        "requests/s at 16, to mlflow models serve",
        _ratio(_AT_16, _load(MLFLOW, 16, "requests_per_s")),
        6,
        at_least=True,
    ),
    Target(
        "/invocations requests/s at 16, to mlflow models serve",
        _ratio(_load(OURS_INVOCATIONS, 16, "requests_per_s"), _load(MLFLOW, 16, "requests_per_s")),
        4,
        at_least=True,
    ),
    *(
        Target(
            f"v2 with bytes, requests/s at {connections}, to the native route",
            _ratio(_load(OURS_V2, connections, "requests_per_s"), _load(OURS, connections, "requests_per_s")),
            0.8,
            at_least=True,
        )
        for connections in (1, 16)
    ),
    Target(
        "requests/s at 16, to the tutorial", _ratio(_AT_16, _load(TUTORIAL, 16, "requests_per_s")), 15, at_least=True
    ),
    *(
        Target(
            f"requests/s at {connections} with 2 replicas, to FastAPI",
            _to_plain(OURS_2, connections, "requests_per_s"),
            1.0,
            at_least=True,
        )
        for connections in (16, 64)
    ),
    Target("p99 at 1 connection, to FastAPI's", _to_plain(OURS, 1, "p99_ms"), 4),
    Target("p99 at 16 connections, to FastAPI's", _to_plain(OURS, 16, "p99_ms"), 2),
    Target("p99 at 1 connection on the direct port, to FastAPI's", _to_plain(OURS_DIRECT, 1, "p99_ms"), 2),
    Target(
        "observations/s at batch 1024, to single requests/s",
        _ratio(lambda results: float(results["batch"]["1024"]), _AT_16),
        100,
        at_least=True,
    ),
    Target("memory of a replica over the no-op's (USS), MiB", _over("memory", "uss"), 75),
    Target("memory of a replica over the no-op's (RSS), MiB", _over("memory", "rss"), 75),
    Target("cold start over the no-op's, s", _over("cold_start_s"), 1.5),
)
