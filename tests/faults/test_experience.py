"""Recorded experience while replicas and the converter die: what was answered is in the data, exactly once."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.experience.journal.segments import SEAL_AFTER_S
from tests.faults.arena import Registry, kill
from tests.faults.disk import mend, small_disk, spoil
from tests.faults.players import Players
from tests.faults.recorder import NAME, Recorder, assert_recorded_once, tell_decisions
from tests.serving.policies import EXPLORING_BUNDLE
from tests.workshop import await_true

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def recorder(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    version = registry.register(EXPLORING_BUNDLE, name=NAME)
    registry.promote(version, NAME)
    recorder = Recorder(registry, tmp_path_factory.mktemp("recorded"))
    try:
        recorder.server.wait_up()
        yield recorder
    finally:
        recorder.server.end()


def test_replicas_killed_ten_times(recorder: Recorder) -> None:
    with Players(recorder.server.url) as players:
        for _ in range(10):
            time.sleep(2)
            killed = recorder.server.replica_pid()
            kill(killed)
            recorder.server.await_models(lambda model, killed=killed: model["replica"]["pid"] != killed, "back", 60)
    assert not players.failed
    assert len(players.answered) > 1000
    repeated = assert_recorded_once(recorder, players.answered)
    tell_decisions(
        "10 x SIGKILL of a replica", players.answered, f"0 lost, {repeated} in the journals of both replicas"
    )


def test_a_request_that_the_proxy_repeats_after_sigstop_draws_the_same_action(recorder: Recorder) -> None:
    with Players(recorder.server.url) as players:
        time.sleep(2)
        stopped = recorder.server.replica_pid()
        kill(stopped, signal.SIGSTOP)
        time.sleep(3)  # the proxy sends a request again after two seconds
        kill(stopped, signal.SIGCONT)
        time.sleep(2)
    assert not players.failed
    repeated = assert_recorded_once(recorder, players.answered)
    assert repeated > 0, "both replicas have answered some requests"
    tell_decisions(
        "SIGSTOP of a replica for 3 s", players.answered, f"{repeated} answered by both, with the same action"
    )


def test_converters_killed(recorder: Recorder) -> None:
    with Players(recorder.server.url) as players:
        for _ in range(10):
            await_true(recorder.converters, "a converter runs", 90)
            time.sleep(1.5)
            for process in recorder.converters():
                process.kill()
    assert not players.failed
    assert_recorded_once(recorder, players.answered)
    tell_decisions("10 x SIGKILL of the converter", players.answered, "0 lost, none twice")


@contextlib.contextmanager
def spoiled(directory: Path, fault: str) -> Iterator[None]:
    """No file can be created in a directory meanwhile: its disk is full, or it is mounted read-only."""
    spoil(directory, fault)
    yield
    mend(directory, fault)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_the_journals_disk(registry: Registry, tmp_path: Path, fault: str) -> None:
    registry.promote(registry.register(EXPLORING_BUNDLE, name=NAME), NAME)
    journals = tmp_path / "cache" / "experience"
    with small_disk(journals, "48m"):
        recorder = Recorder(registry, tmp_path)
        try:
            recorder.server.wait_up()
            with Players(recorder.server.url) as players:
                time.sleep(2)
                with spoiled(journals, fault):
                    time.sleep(SEAL_AFTER_S + 10)
                time.sleep(5)
            assert not players.failed
            recorder.await_converted()
            recorded, dropped = len(recorder.rows()), recorder.dropped()
            assert dropped > 0
            assert recorded + dropped >= len(players.answered)
            tell_decisions(f"the disk of the journal is {fault}", players.answered, f"{dropped} dropped and counted")
        finally:
            recorder.server.end()
