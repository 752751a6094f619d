"""A registry with a champion and a challenger, and the traffic of an experiment as servers would record it.

The time of the traffic is simulated: the controller's clock is that of the world.
"""

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import numpy as np

from pipeline.experiment.live import state
from pipeline.experiment.live.controller import Controller
from pipeline.experiment.live.figures import GRACE_S
from pipeline.experiment.live.start import StartOptions, start
from pipeline.experiment.live.state import Live
from pipeline.registry.target import Target
from serving.experience.store import Store as Experience
from serving.experience.store import open_store
from serving.experiments.assignment import CHALLENGER
from tests.pipeline.experience.recording import (
    HASH,
    MODEL,
    NOW_NS,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)

TARGET = Target(MODEL, "Production")
CHAMPION, OTHER = 1, 2
WAIT_S = 20.0


def ago(time_s: float) -> float:
    """Return a time as the recording has it: in seconds before NOW_NS."""
    return NOW_NS / 1e9 - time_s


@dataclass
class World:
    """Servers that record to a directory, and their clients."""

    directory: Path
    target: Target = TARGET
    now_s: float = field(default_factory=time.time)
    lines: list[str] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _segments: itertools.count = field(default_factory=itertools.count)
    _names: itertools.count = field(default_factory=itertools.count)

    @property
    def uri(self) -> str:
        return str(self.directory / "experience")

    @property
    def store(self) -> Experience:
        return open_store(self.uri)

    def open(self) -> "World":
        """Record one episode of the champion, before any experiment."""
        self.record([(f"before-{next(self._names)}", self.now_s - 1000, CHAMPION, 1.0)])
        return self

    def options(self, **changes) -> StartOptions:
        known = {"return_mean": 100.0, "return_std": 20.0, "reward_wait_s": WAIT_S, "record_wait_s": 0.0}
        return StartOptions(self.uri, **{**known, "shares": (0.5,), "margin_of_mean": 0.2, **changes})

    def start(self, **changes) -> Live:
        # One salt in a hundred gives arms that the sample-ratio test blocks, as it should.
        with mock.patch("pipeline.experiment.live.start.secrets.token_hex", lambda size: self.rng.bytes(size).hex()):
            live = start(self.target, OTHER, self.options(**changes)).live
        self.now_s = live.experiment.shares[0].start_s
        return live

    def live(self) -> Live:
        found = state.find(self.target)
        assert found is not None
        return found

    def controller(self, **options) -> Controller:
        given = {"signer": None, "notify": self.lines.append, "every_s": 0.01, "clock": lambda: self.now_s}
        return Controller(self.target, **{**given, "settle_s": 0.0, **options})

    def play(self, count, champion=100.0, challenger=100.0, std=20.0, *, served=None, reports=lambda _arm, _n: True):
        """Let episodes begin for 100 s, from when on they count, and pass the time until all are settled.

        Args:
            count: the number of episodes.
            champion, challenger: the mean returns.
            std: their standard deviation.
            served: the version that answers in the challenger's arm, by default the challenger.
            reports: whether the client of an episode reports, by arm and number.
        """
        experiment = self.live().experiment
        begun = max(self.now_s + 5, experiment.shares[0].start_s + GRACE_S)
        rows = []
        for number in range(count):
            name, at_s = f"episode-{next(self._names)}", begun + 100 * number / count
            is_challenger = experiment.arm(HASH(name), at_s) == CHALLENGER
            version = (served or OTHER) if is_challenger else CHAMPION
            returned = (challenger if is_challenger else champion) + std * self.rng.standard_normal()
            rows.append((name, at_s, version, returned if reports(is_challenger, number) else None))
        self.record(rows)
        self.now_s = begun + 100 + WAIT_S + 1

    def record(self, rows) -> None:
        """Record episodes of one decision: their names, times, versions and returns; None is not reported."""
        segment, replica = next(self._segments), "r1"
        tables = []
        for version in sorted({row[2] for row in rows}):
            decisions = [
                Decision(name, 0, ago(at_s), {"observations": [0.0] * 4}, {"action": 0})
                for name, at_s, number, _ in rows
                if number == version
            ]
            tables.append(decision_table(spec(version), decisions, replica, segment))
        told = [Feedback(name, ago(at_s + 2), total=each, done="terminated") for name, at_s, _, each in rows if each]
        day = datetime.fromtimestamp(rows[0][1], UTC).strftime("%Y-%m-%d")
        write_segment(self.store, tables, feedback_table(told, replica, segment) if told else None, segment, day=day)
