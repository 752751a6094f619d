"""Recorded experience while replicas and the converter die: what was answered is in the data, exactly once."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from serving.experience.episodes import EpisodeHasher
from serving.experience.journal.records import DECISIONS
from serving.experience.journal.segment import Segment
from serving.experience.journal.segments import SEAL_AFTER_S
from serving.experience.tables import DIFFERS, OK
from tests.faults.arena import Registry, Server, kill
from tests.faults.disk import mend, small_disk, spoil
from tests.faults.players import Answered, Players
from tests.serving.policies import EXPLORING_BUNDLE
from tests.workshop import await_true

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

NAME = "explorer"
CONVERTED_WITHIN_S = 120


class Recorder:
    """A server that records, and what it recorded."""

    def __init__(self, registry: Registry, directory: Path) -> None:
        self.uri, self.cache = directory / "experience", directory / "cache"
        options = ("--experience-uri", str(self.uri))
        self.server = Server(registry, 2, *options, cache=self.cache, name=NAME)

    def converters(self) -> list[psutil.Process]:
        """The processes that convert segments of this server."""
        return [each for each in psutil.process_iter() if str(self.uri) in self._command(each)]

    def await_converted(self) -> None:
        """Wait until all decisions in the journal have become tables."""
        await_true(lambda: not self._waiting(), "all segments have become tables", CONVERTED_WITHIN_S)

    def rows(self) -> list[tuple[bytes, int, int, str]]:
        """Return the episode, the step, the action and the outcome of the audit of each decision in the tables."""
        columns = ["episode", "step", "output.action", "audit"]
        tables = [pq.read_table(file, columns=columns) for file in sorted(self.uri.glob("decisions/**/*.parquet"))]
        return [tuple(row.values()) for table in tables for row in table.to_pylist()]

    def dropped(self) -> int:
        """Return how many decisions were not recorded, as the manifests say."""
        manifests = [json.loads(file.read_text()) for file in self.uri.glob("manifests/**/*.json")]
        return sum(manifest["dropped"]["decisions"] for manifest in manifests)

    def _waiting(self) -> list[str]:
        return [path.name for path in self.cache.glob("experience/*/*.segment") if _has_decisions(path)]

    @staticmethod
    def _command(process: psutil.Process) -> list[str]:
        try:
            command = process.cmdline()
        except psutil.Error:
            return []
        return command if "serving.experience.conversion" in command else []


def _has_decisions(path: Path) -> bool:
    try:
        return any(record.kind == DECISIONS for record in Segment.read(path).records)
    except FileNotFoundError:
        return False


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


def assert_recorded_once(recorder: Recorder, answered: list[Answered]) -> int:
    """Check that each answered decision is in the tables once for each replica that answered it, with its action.

    Returns:
        How many decisions are there more than once: two replicas answered the same request.
    """
    recorder.await_converted()
    hashed = EpisodeHasher()
    actions: dict[tuple[bytes, int], list[int]] = {}
    audits: Counter[str] = Counter()
    for episode, step, action, audit in recorder.rows():
        actions.setdefault((episode, step), []).append(action)
        audits[audit] += 1
    lost = [each for each in answered if (hashed(each.episode), each.step) not in actions]
    assert not lost, f"{len(lost)} of {len(answered)} are lost, such as {lost[:3]}"
    other = [each for each in answered if {*actions[hashed(each.episode), each.step]} != {each.action}]
    assert not other, f"{len(other)} have other actions in the data, such as {other[:3]}"
    assert audits[DIFFERS] == 0
    assert audits[OK] == sum(audits.values())
    return sum(len(found) > 1 for found in actions.values())


def tell_decisions(fault: str, answered: list[Answered], note: str) -> None:
    """Print what became of the decisions. `pytest -s` shows it."""
    sys.stdout.write(f"\n{fault}: {len(answered)} decisions answered in their end, 0 failed; {note}\n")


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
    if fault == "full":
        spoil(directory, fault)
        yield
        mend(directory, fault)
        return
    for command in (("--bind", directory, directory), ("-o", "remount,bind,ro", directory)):
        subprocess.run(["mount", *map(str, command)], check=True)
    yield
    subprocess.run(["umount", str(directory)], check=True)


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
