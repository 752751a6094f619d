"""What is recorded of an experiment, from the request to the tables."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.experience.conversion.decisions import DecisionReader
from serving.experience.episodes import EpisodeHasher
from serving.experience.journal.journal import Journal
from serving.experience.journal.records import (
    ARM_FLAGS,
    EXPERIMENT,
    OF_CHALLENGER,
    OF_CHAMPION,
    experiment_payload,
)
from serving.experience.journal.segment import Segment
from serving.experience.journal.segments import Place
from serving.experiments.assignment import CHALLENGER, CHAMPION
from serving.experiments.experiment import Step
from serving.http.policy_app import PolicyApp
from serving.policy.errors import PolicyFailed
from serving.replica.arms.arms import Challenge
from tests.serving.asking import ask, post
from tests.serving.experience.conversion.journals import (
    Actor,
    converter,
    episodes,
    put_into_cache,
    rows,
    version_record,
    write_segment,
)
from tests.serving.experiment import CHALLENGERS, CHAMPIONS, challenge, champion, experiment
from tests.serving.policies import CARTPOLE_BUNDLE, EXPLORING_BUNDLE

Start = Callable[..., PolicyApp]
HASHED = EpisodeHasher()
BODY = b'{"observation": [0, 0, 1, 0]}'


@pytest.fixture
def app(tmp_path: Path) -> Iterator[PolicyApp]:
    """An application that records into `tmp_path`, with the champion's tag of an experiment."""
    journal = Journal(Place(tmp_path / "journal", "r1", {"model": "cartpole-ppo"}, 1 << 24, 1 << 16))
    journal.start()
    yield PolicyApp(champion(experiment()), journal=journal)
    journal.stop()


def ask_step(app: PolicyApp, episode: str | None, **headers: str) -> None:
    names = {} if episode is None else {"X-Episode-Id": episode}
    assert ask(app, body=BODY, headers=names | {it.replace("_", "-"): headers[it] for it in headers}).status == 200


def recorded(app: PolicyApp, tmp_path: Path) -> list[dict[str, Any]]:
    """Close the journal, convert its segments, and return the rows in the order of time."""
    journal = app._journal
    assert journal is not None
    journal.stop()
    for path in sorted((tmp_path / "journal").glob("*.segment")):
        converter(tmp_path / "store", tmp_path / "cache").convert(path)
    return sorted(rows(tmp_path / "store", "decisions"), key=lambda row: row["time"])


def columns(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["version"], row["experiment"], row["arm"], _number(row["share"])) for row in found]


def _number(share: Any) -> float | None:
    return None if share is None or math.isnan(share) else share


def test_decisions_have_the_experiment_the_arm_and_the_share_of_their_time(app: PolicyApp, tmp_path: Path) -> None:
    state, now = experiment(), time.time()
    app.challenge = challenge(state)
    for name in (CHAMPIONS[0], CHALLENGERS[0], None):
        ask_step(app, name)
    later = experiment(shares=(Step(now - 20, 0.25), Step(now - 10, 0.5)))
    app.challenge = Challenge(later, app.challenge.served)
    ask_step(app, CHALLENGERS[0], x_pin_version="4")
    ask_step(app, CHALLENGERS[0], x_pin_version="3")  # as an episode from before the experiment
    app.challenge = None
    ask_step(app, CHALLENGERS[0])
    assert columns(recorded(app, tmp_path)) == [
        (3, "e1", CHAMPION, 0.5),
        (4, "e1", CHALLENGER, 0.5),
        (3, None, None, None),
        (4, "e1", CHALLENGER, 0.5),
        (3, None, None, None),
        (3, None, None, None),
    ]


def test_a_decision_of_the_champion_for_a_challenger_that_failed_stays_in_the_challengers_arm(
    app: PolicyApp, tmp_path: Path
) -> None:
    def fail(_: Any) -> Any:
        raise PolicyFailed("it fails")

    app.challenge = challenge(experiment())
    app.challenge.served.batcher._act = fail
    ask_step(app, CHALLENGERS[0])
    assert columns(recorded(app, tmp_path)) == [(3, "e1", CHALLENGER, 0.5)]


def test_requests_of_two_experiments_in_one_segment_keep_theirs(app: PolicyApp, tmp_path: Path) -> None:
    first, second = experiment(), experiment(id="e2", shares=(Step(0.0, 1.0),))
    app.challenge = challenge(first)
    held = app.experiment.arms
    app.challenge = challenge(second)
    assert held is not None

    async def overlap() -> None:  # a request that began in the first experiment is recorded during the second
        for name in CHALLENGERS[:3]:
            await post(app, BODY, more=((b"x-episode-id", name.encode()),))
            other, app.experiment.arms = app.experiment.arms, held
            await post(app, BODY, more=((b"x-episode-id", name.encode()),))
            app.experiment.arms = other

    asyncio.run(overlap())
    assert columns(recorded(app, tmp_path)) == [(4, "e2", CHALLENGER, 1.0), (4, "e1", CHALLENGER, 0.5)] * 3


def test_the_experiment_is_described_once_in_each_segment(app: PolicyApp, tmp_path: Path) -> None:
    app.challenge = challenge(experiment())
    for name in (*CHAMPIONS[:5], *CHALLENGERS[:5]):
        ask_step(app, name)
    app._journal._segments._begun_at = -1e9  # type: ignore[union-attr]
    app._journal._segments.maintain()  # type: ignore[union-attr]
    for name in (*CHAMPIONS[:5], *CHALLENGERS[:5]):
        ask_step(app, name)
    app._journal.stop()  # type: ignore[union-attr]
    kinds = [
        [record.kind for record in Segment.read(path).records] for path in (tmp_path / "journal").glob("*.segment")
    ]
    assert [each.count(EXPERIMENT) for each in kinds] == [1, 1]


def test_a_segment_is_read_without_the_records_of_experiments_as_earlier_releases_do(
    app: PolicyApp, tmp_path: Path
) -> None:
    app.challenge = challenge(experiment())
    for name in (*CHAMPIONS[:2], *CHALLENGERS[:2], None):
        ask_step(app, name)
    app._journal.stop()  # type: ignore[union-attr]
    (path,) = (tmp_path / "journal").glob("*.segment")
    reader = DecisionReader([record for record in Segment.read(path).records if record.kind != EXPERIMENT])
    chunks = list(reader)
    assert sum(map(len, chunks)) == 5
    assert reader.unreadable == 0
    assert {chunk.table.number for chunk in chunks} == {1}


def test_a_record_with_an_arm_whose_experiment_is_lost_has_none(tmp_path: Path) -> None:
    actor = Actor(CARTPOLE_BUNDLE)
    inputs = {"observations": actor.inputs(1, np.random.default_rng(1))["observations"]}
    payloads = [actor.record(inputs, actor.act(inputs), episodes(1), flags=flag) for flag in ARM_FLAGS.values()]
    path = write_segment(tmp_path / "journal", 1, [version_record(actor.spec), *payloads])
    converter(tmp_path / "store", tmp_path / "cache").convert(path)
    found = rows(tmp_path / "store", "decisions")
    assert columns(found) == [(3, None, None, None)] * 2


def test_the_audit_of_decisions_in_an_experiment_is_that_of_all_others(tmp_path: Path) -> None:
    actor = Actor(EXPLORING_BUNDLE)
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    inputs = actor.inputs(1, np.random.default_rng(1))
    sampled = actor.record(inputs, actor.act(inputs, row_seeds=[7]), episodes(1), row_seeds=[7], flags=OF_CHALLENGER)
    greedy = actor.record(inputs, actor.act(inputs), episodes(1, first=1), flags=OF_CHAMPION)
    described = experiment_payload(experiment(shares=(Step(0.0, 0.1),)))
    path = write_segment(tmp_path / "journal", 1, [version_record(actor.spec), described, sampled, greedy])
    converter(tmp_path / "store", tmp_path / "cache").convert(path)
    found = sorted(rows(tmp_path / "store", "decisions"), key=lambda row: row["step"])
    assert [(row["arm"], row["share"], row["explored"], row["audit"]) for row in found] == [
        (CHALLENGER, 0.1, True, "ok"),
        (CHAMPION, 0.1, False, "ok"),
    ]
