"""Compaction: what is left out, what is replaced, and what a crash leaves."""

import contextlib
import hashlib
import json
import shutil

import pyarrow as pa
import pytest

from pipeline.experience.compaction.publish import renew_generation
from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.errors import (
    EpisodesReplaced,
    ExperienceChanged,
    ExperienceDamaged,
    ForgettingUnfinished,
    NotCompacted,
    ScratchUnusable,
)
from pipeline.experience.raw import RENEWING
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.store import open_store
from tests.pipeline.experience.recording import (
    MODEL,
    NOW_NS,
    Crash,
    CrashingStore,
    Decision,
    Feedback,
    crashing,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)


def episode(name, steps, at=5000.0):
    return [Decision(name, step, at - step / 100, {"observations": [step] * 4}, {"action": step % 2}) for step in steps]


def record(store, name, segment, steps=range(5), **end):
    """Write one episode to a segment of its own, with an end that its client reported."""
    events = [Feedback(name, 4000, dict.fromkeys(steps, 1.0), **({"done": "terminated"} | end))]
    return write_segment(
        store, [decision_table(spec(), episode(name, steps), segment=segment)], feedback_table(events), segment
    )


def steps_of(store):
    return pa.concat_tables(WholeEpisodes.open(store, MODEL).tables())


def test_what_arrives_late_is_in_the_next_compaction(store, compacted):
    record(store, "a", 0, range(3))
    first = compacted().content
    assert WholeEpisodes.open(store, MODEL).summary()["length"].to_pylist() == [3]
    write_segment(store, [decision_table(spec(), episode("a", [3, 4]))], segment=1)
    second = compacted().content
    assert WholeEpisodes.open(store, MODEL).summary()["length"].to_pylist() == [5]
    assert second["digest"] != first["digest"]
    assert {path.name for path in (store.local / "episodes" / MODEL).iterdir()} == {"current.json", second["digest"]}


def test_the_same_raw_files_give_the_same_digest(store, compacted):
    for number in range(3):
        record(store, f"episode-{number}", number)
    assert compacted().content["digest"] == compacted().content["digest"]


def test_an_episode_without_an_end_waits_until_nothing_happens_to_it(store, compacted):
    write_segment(store, [decision_table(spec(), episode("a", range(3), at=100.0))])
    assert compacted().content["left_out"]["pending_episodes"] == 1
    with pytest.raises(NotCompacted, match="python -m pipeline experience compact"):
        WholeEpisodes.open(store, MODEL)
    compacted(reward_wait_s=90)
    assert WholeEpisodes.open(store, MODEL).summary()["done"].to_pylist() == ["unreported"]


def test_decisions_without_an_episode_are_counted(store, compacted):
    nobody = [Decision(None, None, 5000, {"observations": [0] * 4}, {"action": 0}) for _ in range(4)]
    write_segment(store, [decision_table(spec(), [*nobody, *episode("a", range(2))])])
    content = compacted().content
    assert (content["left_out"]["without_episode"], content["decisions"]) == (4, 2)


def test_files_without_a_manifest_are_not_read(store, compacted):
    record(store, "a", 0)
    store.delete(record(store, "b", 1)[-1])
    content = compacted().content
    assert (content["episodes"], content["left_out"]["unconverted_files"]) == (1, 2)


@pytest.mark.parametrize("damage", ["flip a bit", "cut", "delete"])
def test_damaged_files_are_named_and_left_out(store, compacted, damage):
    record(store, "a", 0)
    path = record(store, "b", 1)[0]
    content = bytearray(store.read(path))
    content[len(content) // 2] ^= 1
    if damage == "delete":
        store.delete(path)
    else:
        store.write(path, bytes(content) if damage == "flip a bit" else bytes(content[:100]))
    done = compacted()
    assert done.damaged == [path]
    assert (done.content["episodes"], done.content["left_out"]["damaged_files"]) == (1, 1)


def test_a_manifest_that_is_none_stops_the_compaction(store, compacted):
    path = record(store, "a", 0)[-1]
    store.write(path, b"{")
    with pytest.raises(ExperienceDamaged, match=path):
        compacted()


def test_keep_days_deletes_raw_files_and_so_their_episodes(store, compacted):
    old = write_segment(store, [decision_table(spec(), episode("a", range(2)))], day="2027-01-04")
    kept = write_segment(store, [decision_table(spec(), episode("b", range(3)))], day="2027-01-05", segment=1)
    done = compacted(keep_days=10)  # now is 2027-01-15
    assert (done.deleted, done.content["decisions"]) == (len(old), 3)
    assert set(store.files("decisions")) | set(store.files("manifests")) == set(kept)


def test_a_crash_at_any_step_leaves_whole_episodes_that_the_next_compaction_replaces(store, compacted, quiet, tmp_path):
    record(store, "a", 0)
    before = compacted().content["digest"]
    record(store, "b", 1)

    def run(crash_at=None):
        """Compact a copy of the store; return it and the changes that were made."""
        target = tmp_path / f"copy-{crash_at}"
        shutil.copytree(store.local, target)
        copy = crashing(open_store(str(target)), crash_at)
        with contextlib.suppress(Crash):
            compact(copy, MODEL, CompactOptions(), quiet, NOW_NS)
        return open_store(str(target)), copy.changes

    done, changes = run()
    after = WholeEpisodes.open(done, MODEL).digest
    for crash_at in range(len(changes)):
        copy, _ = run(crash_at)
        found = WholeEpisodes.open(copy, MODEL)
        assert (found.digest, len(steps_of(copy))) in {(before, 5), (after, 10)}
        compact(copy, MODEL, CompactOptions(), quiet, NOW_NS)
        assert len(steps_of(copy)) == 10
        assert {path.name for path in (copy.local / "episodes" / MODEL).iterdir()} == {"current.json", after}


def test_a_compaction_that_read_what_is_forgotten_meanwhile_publishes_nothing(store, compacted, quiet):
    record(store, "a", 0)
    before = compacted().content["digest"]
    record(store, "b", 1)

    class Forgetting(CrashingStore):
        def write(self, path, content):
            super().write(path, content)
            if path.endswith("summary.parquet"):
                renew_generation(store)

    with pytest.raises(ExperienceChanged):
        compact(Forgetting(store.uri, store.filesystem, store.local), MODEL, CompactOptions(), quiet, NOW_NS)
    assert WholeEpisodes.open(store, MODEL).digest == before
    assert {path.name for path in (store.local / "episodes" / MODEL).iterdir()} == {"current.json", before}


def test_a_compaction_refuses_while_episodes_are_forgotten(store, compacted):
    path = record(store, "a", 0)[-1]
    store.write(path, json.dumps(json.loads(store.read(path)) | {RENEWING: True}).encode())
    with pytest.raises(ForgettingUnfinished, match="Run the same command again"):
        compacted()


def test_a_full_scratch_directory_is_named(store, compacted, tmp_path):
    record(store, "a", 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ScratchUnusable, match=r"file: Not a directory\. Choose a directory with --scratch"):
        compacted(scratch=str(tmp_path / "file"))


def test_no_temporary_file_stays(store, compacted, tmp_path):
    record(store, "a", 0)
    (tmp_path / "scratch").mkdir()
    compacted(scratch=str(tmp_path / "scratch"))
    assert not list((tmp_path / "scratch").iterdir())


def test_a_reader_notices_that_its_episodes_were_replaced_or_damaged(store, compacted):
    record(store, "a", 0)
    compacted()
    whole = WholeEpisodes.open(store, MODEL)
    record(store, "b", 1)
    compacted()
    with pytest.raises(EpisodesReplaced, match="Run the command again"):
        list(whole.tables())
    whole = WholeEpisodes.open(store, MODEL)
    path = f"episodes/{MODEL}/{whole.digest}/{whole.parts[0]}"
    store.write(path, store.read(path)[:-1])
    with pytest.raises(ExperienceDamaged, match="sha256"):
        list(whole.tables())


def test_the_digests_in_current_json_are_those_of_the_files(store, compacted):
    record(store, "a", 0)
    content = compacted().content
    for name, digest in content["files"].items():
        file = store.local / "episodes" / MODEL / content["digest"] / name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest


def test_one_column_can_be_read_alone(store, compacted):
    record(store, "a", 0)
    compacted()
    (table,) = WholeEpisodes.open(store, MODEL).tables(columns=["rewards"])
    assert table.to_pydict() == {"rewards": [1.0] * 5}
