"""Nothing of a forgotten episode stays below the URI, and everything else does."""

import contextlib
import os
import shutil
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.forgetting import forget
from pipeline.experience.raw import RENEWING, read_raw
from pipeline.experience.stats import stats
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.store import open_store
from tests.pipeline.experience.recording import (
    HASH,
    MODEL,
    NOW_NS,
    Crash,
    Decision,
    Feedback,
    crashing,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)

MARKER = np.array([1.25e-7, -3.75e11, 0.1, 7.7e7], np.float32)
"""An observation that only the forgotten episode has."""
REWARD = 1234.56789
TRACES = (HASH("gone"), HASH("gone").hex().encode(), MARKER.tobytes(), np.float64(REWARD).tobytes())


def decisions(name, steps):
    value = MARKER if name == "gone" else np.arange(4, dtype=np.float32)
    return [Decision(name, step, 5000 - step, {"observations": value}, {"action": step % 2}) for step in steps]


@pytest.fixture
def recorded(store, compacted):
    """Record an episode among others in two of three segments, and compact it."""
    for segment, names in enumerate([("kept", "gone"), ("gone", "other"), ("third",)]):
        steps = range(segment * 3, segment * 3 + 3)
        rows = [row for name in names for row in decisions(name, steps)]
        events = [
            Feedback(name, 4000, {0: REWARD if name == "gone" else 1.0}, done="terminated", final={
                "observations": MARKER if name == "gone" else np.zeros(4, np.float32)
            })
            for name in names
        ]  # fmt: skip
        write_segment(store, [decision_table(spec(), rows, segment=segment)], feedback_table(events), segment)
    compacted(bucket_bytes=2000)
    return store


def traces_in(store):
    """Return the files in which a byte of the episode is left, uncompressed pages included."""
    found = set()
    for file in store.local.rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes()
        if content[:4] == b"PAR1":
            table = pq.ParquetFile(file).read()
            content += b"".join(buffer.to_pybytes() for buffer in _buffers(table) if buffer is not None)
        if any(trace in content for trace in TRACES):
            found.add(str(file.relative_to(store.local)))
    return found


def _buffers(table):
    return [buffer for column in table.columns for chunk in column.chunks for buffer in chunk.buffers()]


def test_the_traces_can_be_found(recorded):
    places = {path.split("/")[0] for path in traces_in(recorded)}
    assert places == {"decisions", "feedback", "episodes"}
    assert sum(path.startswith("episodes") for path in traces_in(recorded)) == 2


def test_nothing_is_left_of_a_forgotten_episode(recorded, quiet):
    before = WholeEpisodes.open(recorded, MODEL)
    done = forget(recorded, [MODEL], [HASH("gone")], quiet)
    assert (done.decisions, done.feedback, done.steps, done.episodes) == (6, 2, 6, 1)
    assert traces_in(recorded) == set()
    after = WholeEpisodes.open(recorded, MODEL)
    assert after.digest != before.digest
    assert (after.content["episodes"], after.content["decisions"]) == (3, 9)
    assert sorted(after.summary()["eps_id"].to_pylist()) == sorted(
        HASH(name).hex() for name in ("kept", "other", "third")
    )
    assert sum(len(table) for table in after.tables()) == 9


def test_the_raw_files_without_it_are_sound(recorded, quiet, compacted):
    forget(recorded, [MODEL], [HASH("gone")], quiet)
    raw = read_raw(recorded, MODEL)
    assert all(file.read(recorded) is not None and len(file.read(recorded)) == file.rows for file in raw.files)
    (version,) = stats(recorded, MODEL).versions
    assert (version.recorded, version.audit) == (9, {"ok": 9})
    done = compacted()
    assert (done.damaged, done.content["episodes"]) == ([], 3)
    assert traces_in(recorded) == set()


def test_forgetting_it_again_changes_nothing(recorded, quiet):
    forget(recorded, [MODEL], [HASH("gone")], quiet)
    digest = WholeEpisodes.open(recorded, MODEL).digest
    done = forget(recorded, [MODEL], [HASH("gone"), HASH("unknown")], quiet)
    assert (done.decisions, done.feedback, done.steps, done.episodes) == (0, 0, 0, 0)
    assert WholeEpisodes.open(recorded, MODEL).digest == digest


def test_all_episodes_can_be_forgotten(recorded, quiet):
    names = ("kept", "gone", "other", "third")
    forget(recorded, [MODEL], [HASH(name) for name in names], quiet)
    assert stats(recorded, MODEL).versions[0].recorded == 0
    assert traces_in(recorded) == set()


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_crash_at_any_step_is_repaired_by_running_it_again(recorded, quiet, tmp_path, every):
    def run(crash_at=None):
        target = tmp_path / f"copy-{crash_at}"
        shutil.copytree(recorded.local, target)
        copy = crashing(open_store(str(target)), crash_at)
        with contextlib.suppress(Crash):
            forget(copy, [MODEL], [HASH("gone")], quiet)
        return open_store(str(target)), copy.changes

    _, changes = run()
    assert len(changes) > 15
    for crash_at in range(0, len(changes), every):
        copy, _ = run(crash_at)
        forget(copy, [MODEL], [HASH("gone")], quiet)
        assert traces_in(copy) == set()
        raw = read_raw(copy, MODEL)
        assert not any(each.content.get(RENEWING) for each in raw.manifests)
        assert all(file.read(copy) is not None for file in raw.files)
        assert sum(len(table) for table in WholeEpisodes.open(copy, MODEL).tables()) == 9
        assert compact(copy, MODEL, CompactOptions(), quiet, NOW_NS).content["decisions"] == 9


def test_a_damaged_file_stays_known_as_damaged(recorded, quiet, compacted):
    path = f"decisions/{MODEL}/2027-01-14/r1-0-v3.parquet"
    other = recorded.read(f"decisions/{MODEL}/2027-01-14/r1-1-v3.parquet")
    recorded.write(path, other)
    forget(recorded, [MODEL], [HASH("gone")], quiet)
    assert traces_in(recorded) == set()
    assert compacted().damaged == [path]


def test_files_of_an_interrupted_conversion_are_reached_when_they_are_old(recorded, quiet):
    path = f"decisions/{MODEL}/2027-01-14/r1-77-v3.parquet"
    source = recorded.local / f"decisions/{MODEL}/2027-01-14/r1-0-v3.parquet"
    temporary = recorded.local / f"decisions/{MODEL}/2027-01-14/.writing-x"
    for target in (recorded.local / path, temporary):
        shutil.copy(source, target)
    assert forget(recorded, [MODEL], [HASH("gone")], quiet).unconverted == 1
    assert traces_in(recorded) == {path, str(temporary.relative_to(recorded.local))}
    for target in (recorded.local / path, temporary):
        os.utime(target, (time.time() - 4000,) * 2)
    assert forget(recorded, [MODEL], [HASH("gone")], quiet).unconverted == 0
    assert traces_in(recorded) == set()
