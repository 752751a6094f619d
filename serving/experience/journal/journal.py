"""The journal of one replica: it records decisions and what clients report of them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from serving.experience.episodes import EpisodeHasher, Origin
from serving.experience.errors import JournalFull
from serving.experience.journal.encoding import encode
from serving.experience.journal.records import FEEDBACK, VersionSpec, json_payload
from serving.experience.journal.sampling import Sample
from serving.experience.journal.segments import Place, Segments, run
from serving.experience.options import Observations
from serving.policy.tensors import Batch
from serving.telemetry.numbers import Number


@dataclass(frozen=True)
class Recording:
    """What is recorded, and what happens while it cannot be."""

    observations: Observations = "full"
    sample: Sample = Sample()  # noqa: RUF009 - immutable
    refuses: bool = False
    """Whether requests fail while the journal cannot be written, instead of being answered without a record."""


@dataclass
class JournalCounts:
    """Counters of one journal since its replica started."""

    decisions: int = 0
    feedback: int = 0
    dropped: int = 0
    """Decisions and reports that were not recorded, because the journal or the disk was full."""


class Journal:
    """Records decisions and feedback. `decide` and `report` belong to one thread, that of the event loop.

    Args:
        place: where the segments are written.
        recording: what is recorded.
        hashed: turns the names of episodes into the hashes under which they are recorded.
        tick: called about once a second, in the journal's own thread.
    """

    def __init__(
        self,
        place: Place,
        recording: Recording = Recording(),
        hashed: EpisodeHasher = EpisodeHasher(),  # noqa: B008 - immutable
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.hashed = hashed
        self.counts = JournalCounts()
        self._recording, self._tick = recording, tick
        self._segments = Segments(place)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    @property
    def size(self) -> int:
        """The size in bytes of the journal of all replicas on this node."""
        return self._segments.size

    def numbers(self) -> Iterator[Number]:
        """Yield the metrics of this journal."""
        recorded = {"decisions": self.counts.decisions, "feedback": self.counts.feedback}
        for kind, count in recorded.items():
            yield Number("policy_experience_recorded", count, labels={"kind": kind})
        yield Number("policy_experience_dropped", self.counts.dropped)
        yield Number("policy_experience_backlog_bytes", self.size)

    def start(self) -> None:
        """Begin the first segment, and maintain the journal in a thread."""
        self._segments.maintain()
        self._thread.start()

    def stop(self) -> None:
        """Close the segments, which then become data. Later records are dropped."""
        self._stopped.set()
        self._segments.wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)
        self._segments.close()

    def decide(self, version: VersionSpec, origin: Origin, observations: Batch, actions: Batch) -> None:
        """Record the decisions of one request. Raises JournalFull if it cannot, and requests are then refused."""
        rows = self._recording.sample.rows(origin, len(observations))
        if rows == []:
            return
        payload = encode(version, origin, observations, actions, self._recording.observations, rows)
        number = len(observations) if rows is None else len(rows)
        if self._segments.append(payload, version, None if origin.arm is None else origin.arm.experiment):
            self.counts.decisions += number
        else:
            self._drop("decisions", number)

    def report(self, event: dict[str, Any]) -> None:
        """Record the content of a FEEDBACK record. Raises JournalFull as `decide`."""
        if not self._recording.sample.includes(bytes.fromhex(event["episode"])):
            return
        if self._segments.append(json_payload(FEEDBACK, event)):
            self.counts.feedback += 1
        else:
            self._drop("feedback", 1)

    def _drop(self, kind: str, number: int) -> None:
        if self._recording.refuses:
            raise JournalFull
        self.counts.dropped += number
        self._segments.drop(kind, number)

    def _run(self) -> None:
        run(self._segments, self._stopped.is_set, self._tick)
