"""A server that records experience, and what must hold of it whatever happened."""

import io
import json
import sys
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from serving.experience.episodes import EpisodeHasher
from serving.experience.journal.records import DECISIONS
from serving.experience.journal.segment import Segment
from serving.experience.store import open_store
from serving.experience.tables import DIFFERS, OK
from tests.faults.arena import Registry, Server
from tests.faults.players import Answered
from tests.workshop import await_true

NAME = "explorer"
CONVERTED_WITHIN_S = 120


class Recorder:
    """A server that records, and what it recorded."""

    def __init__(self, registry: Registry, directory: Path, uri: str = "", *options: str, name: str = NAME) -> None:
        self.uri, self.cache = uri or str(directory / "experience"), directory / "cache"
        self.server = Server(registry, 2, "--experience-uri", self.uri, *options, cache=self.cache, name=name)

    def converters(self) -> list[psutil.Process]:
        """The processes that convert segments of this server."""
        return [each for each in psutil.process_iter() if self.uri in self._command(each)]

    def await_converted(self) -> None:
        """Wait until all decisions in the journal have become tables."""
        await_true(lambda: not self._waiting(), "all segments have become tables", CONVERTED_WITHIN_S)

    def rows(self) -> list[tuple[bytes, int, int, str]]:
        """Return the episode, the step, the action and the outcome of the audit of each decision in the tables."""
        columns, store = ["episode", "step", "output.action", "audit"], open_store(self.uri)
        files = [io.BytesIO(store.read(path)) for path in store.files("decisions", ".parquet")]
        return [tuple(row.values()) for file in files for row in pq.read_table(file, columns=columns).to_pylist()]

    def dropped(self) -> int:
        """Return how many decisions were not recorded, as the manifests say."""
        store = open_store(self.uri)
        manifests = [json.loads(store.read(path)) for path in store.files("manifests", ".json")]
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
