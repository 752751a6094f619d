"""An experiment on three replicas under load: each episode has one version, whatever fails meanwhile."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest

from serving.experience.episodes import EpisodeHasher
from serving.experiments.assignment import CHALLENGER, CHAMPION
from tests.faults.arena import Registry, kill
from tests.faults.contest import RELEASED_WITHIN_S, REPLICAS, Clients, Contest, Figures, Played

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

SHARE, EPISODES = 0.3, 500
SLOW_S = 0.05
"""A pause before each step, so that episodes last through a fault."""


@pytest.fixture
def contest(registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Contest]:
    contest = Contest(registry, request.node.name[:40], tmp_path)
    try:
        contest.server.wait_up()
        yield contest
    finally:
        contest.end()


def tell(what: str, played: list[Played], *notes: str) -> None:
    """Print the figures. `pytest -s` shows them."""
    sys.stdout.write(f"\n{what}: {Figures.of(played)}; {'; '.join(notes)}\n")


def assert_as_assigned(contest: Contest, played: list[Played]) -> None:
    """Each episode had the one version that it is assigned to."""
    other = [each for each in played if set(each.versions) != {contest.assigned(each.name)}]
    assert not other, f"{len(other)} of {len(played)}, such as {other[:3]}"


def assert_share(played: list[Played]) -> None:
    """The challenger's share is within 4 standard deviations: a true one is outside in 1 of 16,000 runs."""
    count, size = sum(each.versions[0] == 2 for each in played), len(played)
    assert abs(count - SHARE * size) < 4 * (size * SHARE * (1 - SHARE)) ** 0.5, f"{count} of {size}"


def answered(contest: Contest) -> dict[str, int]:
    parts = [model["experiment"] for model in contest.server.models().values()]
    return {arm: sum(part["answered"][arm] for part in parts) for arm in (CHAMPION, CHALLENGER)}


def await_replaced(contest: Contest, killed: int) -> None:
    """Wait until another replica is in the place of the killed one, and takes part."""
    contest.server.await_models(
        lambda model: model["replica"]["pid"] != killed and model["experiment"]["share"] == SHARE, "it is replaced", 90
    )


def test_500_episodes_over_16_connections(contest: Contest) -> None:
    contest.start(SHARE)
    with Clients(contest.server.url, EPISODES) as clients:
        pass
    played = clients.played
    assert len(played) == EPISODES
    assert_as_assigned(contest, played)
    assert_share(played)
    steps = {version: sum(each.versions.count(version) for each in played) for version in (1, 2)}
    assert answered(contest) == {CHAMPION: steps[1], CHALLENGER: steps[2]}
    assert [model["experiment"]["failed"] for model in contest.server.models().values()] == [0] * REPLICAS
    names = [each.name for each in played[:60]]
    assert {name: contest.unpinned(name, 6) for name in names} == {name: {contest.assigned(name)} for name in names}
    found = contest.recorded()
    hashed = EpisodeHasher()
    rows = {name: found.filter(pc.equal(found["episode"], hashed(name))) for name in names}
    assert {name: set(each["version"].to_pylist()) for name, each in rows.items()} == {
        name: {contest.assigned(name)} for name in names
    }
    arms = {1: CHAMPION, 2: CHALLENGER}
    triples = zip(*(found[name].to_pylist() for name in ("version", "arm", "share")), strict=True)
    assert set(triples) == {(version, arm, SHARE) for version, arm in arms.items()}
    replicas = min(len(set(each["replica"].to_pylist())) for each in rows.values())
    tell("500 episodes", played, f"at least {replicas} replicas answered each of {len(names)} episodes, all alike")


def test_a_replica_is_killed(contest: Contest) -> None:
    contest.start(SHARE)
    with Clients(contest.server.url, pause_s=SLOW_S) as clients:
        for _ in range(3):
            time.sleep(3)
            killed = contest.server.replica_pid()
            kill(killed)
            await_replaced(contest, killed)
    assert_as_assigned(contest, clients.played)
    tell("3 x SIGKILL of a replica", clients.played)


def test_the_registry_is_away_and_the_experiment_expires(contest: Contest) -> None:
    state = contest.start(SHARE, expires_in_s=45)
    contest.registry.stop()
    try:
        with Clients(contest.server.url, pause_s=SLOW_S) as clients:
            time.sleep(5)
            killed = contest.server.replica_pid()
            kill(killed)  # it starts from the last known good version
            await_replaced(contest, killed)
            assert time.time() < state.expires_s, "the replica came back too late for this test"
            time.sleep(max(0.0, state.expires_s - time.time()) + 3)
        before = [each for each in clients.played if each.began + sum(each.seconds) + 1 < state.expires_s - 2]
        assert_as_assigned(contest, before)
        after = [each for each in clients.played if each.began > state.expires_s]
        assert after
        assert {version for each in after for version in each.versions} == {1}
        contest.server.await_models(
            lambda model: (model["experiment"]["share"], model["experiment"]["decision"]) == (0.0, None), "over", 10
        )
        tell("MLflow killed, a replica killed", before, f"{len(after)} episodes after the expiry, all of the champion")
    finally:
        contest.registry.start()


def test_a_rollback(contest: Contest) -> None:
    state = contest.start(SHARE)
    with Clients(contest.server.url, pause_s=SLOW_S) as clients:
        time.sleep(5)
        decided = contest.write(state, decision="rolled back")
        taken = contest.server.await_models(lambda model: model["experiment"]["decision"] == "rolled back", "seen", 30)
        time.sleep(3)
    assert taken < RELEASED_WITHIN_S
    assert_as_assigned(contest, [each for each in clients.played if each.began + sum(each.seconds) + 1 < decided])
    after = [each for each in clients.played if each.began > decided + taken]
    assert {version for each in after for version in each.versions} == {1}
    repinned = [each for each in clients.played if len(set(each.versions)) > 1]
    assert all(each.versions == tuple(sorted(each.versions, reverse=True)) for each in repinned), (
        "once, to the champion"
    )
    tell(
        "a rollback",
        clients.played,
        f"seen by all within {taken:.1f} s; {len(repinned)} episodes changed to the champion",
    )


def test_a_promotion(contest: Contest) -> None:
    state = contest.start(SHARE)
    with Clients(contest.server.url, pause_s=SLOW_S) as clients:
        time.sleep(5)
        decided = contest.write(state, decision="promoted")
        time.sleep(3)  # the decision is written before the stage changes
        promoted = contest.registry.promote(2, contest.name)
        taken = contest.server.await_models(lambda model: model["version"] == 2, "promoted", 30)
        time.sleep(3)
    changed = [each for each in clients.played if len(set(each.versions)) > 1]
    # In the second in which the replicas switch, one of them may not hold yet what another one has begun with.
    assert all(promoted < each.began + sum(each.seconds) + 2 and each.began < promoted + taken for each in changed)
    assert_as_assigned(contest, [each for each in clients.played if each.began + sum(each.seconds) + 1 < decided])
    after = [each for each in clients.played if each.began > promoted + taken]
    assert {version for each in after for version in each.versions} == {2}
    tell("a promotion", clients.played, f"complete within {taken:.1f} s; {len(changed)} episodes changed their version")
