import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.experience.conversion.audit import Auditor
from serving.experience.conversion.backlog import complete_segments
from serving.experience.conversion.converter import Converter
from serving.experience.errors import StoreUnavailable
from serving.experience.journal.records import DROPPED, FRAME, MAGIC, json_payload
from serving.experience.journal.segment import Segment, SegmentWriter
from serving.experience.store import Store, open_store
from serving.experience.tables import model_directory, tensor_of, version_spec
from serving.release import release
from tests.serving.experience.conversion.journals import (
    CREATED_NS,
    DAY,
    HASHER,
    NO_EPISODES,
    Actor,
    converter,
    episodes,
    feedback_record,
    identities,
    manifests,
    put_into_cache,
    rows,
    simple_segment,
    tables,
    version_record,
    write_segment,
)
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE

FEEDBACK_COUNT, DECISION_COUNT = 2, 5


@pytest.fixture(scope="module")
def actor() -> Actor:
    return Actor(EXPLORING_BUNDLE)


@pytest.fixture
def cache(tmp_path, actor) -> Path:
    put_into_cache(tmp_path / "cache", actor.name, actor.number, actor.bundle)
    return tmp_path / "cache"


def full_segment(journal: Path, actor: Actor, number: int = 1) -> Path:
    """A segment with all kinds of records: DECISION_COUNT decisions, FEEDBACK_COUNT reports, and what was dropped."""
    inputs = actor.inputs(2, np.random.default_rng(1))
    batch = actor.record(inputs, actor.act(inputs, 5), episodes(2), CREATED_NS + 5, seed=5)
    one = {name: values[:1] for name, values in inputs.items()}
    alone = actor.record(one, actor.act(one), NO_EPISODES, CREATED_NS + 9, protocol=3)
    payloads = [
        version_record(actor.spec),
        batch,
        feedback_record(time_ns=CREATED_NS + 1, rewards=[[3, 1.5], [4, -1]], length=5, done="truncated", version=3),
        json_payload(DROPPED, {"decisions": 4, "feedback": 1, "time_ns": 1, "reason": "full"}),
        alone,
        feedback_record(**{"return": 2.5}, final_observation={"observations": "AAAAAA=="}),
        json_payload(DROPPED, {"decisions": 2, "feedback": 0, "time_ns": 1, "reason": "disk"}),
        batch,
    ]
    return write_segment(journal, number, payloads)


def test_a_segment_becomes_tables_and_a_manifest_and_is_deleted(tmp_path, actor, cache):
    path = full_segment(tmp_path / "journal", actor)
    converter(tmp_path / "store", cache).convert(path)
    assert not path.exists()
    decisions, feedback = f"decisions/cartpole-ppo/{DAY}/r1-1-v3.parquet", f"feedback/cartpole-ppo/{DAY}/r1-1.parquet"
    found = {str(file.relative_to(tmp_path / "store")) for file in (tmp_path / "store").rglob("*") if file.is_file()}
    assert found == {decisions, feedback, f"manifests/cartpole-ppo/{DAY}/r1-1.json"}
    (manifest,) = manifests(tmp_path / "store").values()
    assert {name: manifest.pop(name) for name in ("files", "header", "versions")} == {
        "files": {
            path: {
                "sha256": hashlib.sha256((tmp_path / "store" / path).read_bytes()).hexdigest(),
                "bytes": (tmp_path / "store" / path).stat().st_size,
                "rows": count,
            }
            for path, count in ((decisions, DECISION_COUNT), (feedback, FEEDBACK_COUNT))
        },
        "header": {
            "format": 1,
            "model": "cartpole-ppo",
            "application": "app",
            "replica": "r1",
            "segment": 1,
            "created_ns": CREATED_NS,
        },
        "versions": {
            "3": {
                "run_id": "run",
                "digests": actor.spec.digests,
                "decisions": 5,
                "audit": {"ok": 5, "differs": 0, "unchecked": 0},
            }
        },
    }
    assert manifest == {
        "format": 1,
        "release": release(),
        "model": "cartpole-ppo",
        "replica": "r1",
        "segment": 1,
        "decisions": 5,
        "feedback": 2,
        "time": [CREATED_NS, CREATED_NS + 9],
        "audit": {"ok": 5, "differs": 0, "unchecked": 0},
        "dropped": {"decisions": 6, "feedback": 1, "reasons": {"full": 5, "disk": 2}},
        "lost_bytes": 0,
        "unreadable_records": 0,
    }


def test_a_decision_is_a_row_with_all_that_was_recorded_and_computed(tmp_path, actor, cache):
    converter(tmp_path / "store", cache).convert(full_segment(tmp_path / "journal", actor))
    first, second, alone, *_ = rows(tmp_path / "store")
    assert first["time"].value == CREATED_NS + 5
    named = ("episode", "step", "version", "protocol", "explored", "seed", "noise_row", "previous_reward", "row")
    assert [second[name] for name in named] == [HASHER("e"), 1, 3, "native", True, 5, 1, None, 1]
    assert [alone[name] for name in named] == [None, None, 3, "inference_grpc", False, None, None, None, 0]
    assert first["offset"] == second["offset"] < alone["offset"]
    assert (first["replica"], first["segment"], first["audit"]) == ("r1", 1, "ok")
    assert first["action_logp"] < 0
    assert len(first["action_dist_inputs"]) == 2


def test_a_report_is_a_row_with_all_that_was_reported(tmp_path, actor, cache):
    converter(tmp_path / "store", cache).convert(full_segment(tmp_path / "journal", actor))
    first, second = rows(tmp_path / "store", "feedback")
    assert (first.pop("time").value, first.pop("offset") > 0) == (CREATED_NS + 1, True)
    assert first == {
        "episode": HASHER("e"),
        "steps": [3, 4],
        "rewards": [1.5, -1.0],
        "return": None,
        "length": 5,
        "done": "truncated",
        "version": 3,
        "final_observation": None,
        "replica": "r1",
        "segment": 1,
    }
    assert (second["return"], second["steps"], second["done"]) == (2.5, [], None)
    assert second["final_observation"] == [("observations", bytes(4))]


@pytest.mark.parametrize("bundle", [ROBOT_BUNDLE, COUNTING_BUNDLE], ids=["nested", "recurrent"])
def test_the_tensors_in_a_table_are_those_of_the_requests(tmp_path, bundle):
    actor = Actor(bundle)
    inputs = actor.inputs(4, np.random.default_rng(1))
    outputs = actor.act(inputs)
    path = write_segment(tmp_path, 1, [version_record(actor.spec), actor.record(inputs, outputs, episodes(4))])
    converter(tmp_path / "store", tmp_path / "cache").convert(path)
    table = pq.ParquetFile(tables(tmp_path / "store")[0]).read()
    assert version_spec(table.schema) == actor.spec
    for prefix, tensors in (("input.", inputs), ("output.", outputs)):
        for name, tensor in tensors.items():
            read = tensor_of(table.column(prefix + name), table.schema.field(prefix + name))
            assert (read.dtype, read.shape, read.tolist()) == (tensor.dtype, tensor.shape, tensor.tolist())


class Crash(BaseException):
    """The end of the process."""


class CrashingStore(Store):
    """A store whose process dies before a write, or right after it."""

    writes = 0
    dies_at = 0
    is_after = False

    def write(self, path: str, content: bytes) -> None:
        type(self).writes += 1
        if self.writes == self.dies_at and not self.is_after:
            raise Crash
        super().write(path, content)
        if self.writes == self.dies_at:
            raise Crash


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3], ids=["decisions", "feedback", "manifest"])
def test_each_decision_is_there_once_after_a_crash_at_any_step(tmp_path, actor, cache, step, is_after, monkeypatch):
    path = full_segment(tmp_path / "journal", actor)
    expected = [(record.offset, record.kind) for record in Segment.read(path).records]
    monkeypatch.setattr(CrashingStore, "writes", 0)
    monkeypatch.setattr(CrashingStore, "dies_at", step)
    monkeypatch.setattr(CrashingStore, "is_after", is_after)
    store = open_store(str(tmp_path / "store"))
    crashing = CrashingStore(store.uri, store.filesystem, store.local)
    with pytest.raises(Crash):
        Converter(crashing, Auditor(cache)).convert(path)
    assert path.exists()
    assert len(manifests(tmp_path / "store")) == (step == 3 and is_after)
    converter(tmp_path / "store", cache).convert(path)
    assert not path.exists()
    batch = [offset for offset, kind in expected if kind == 3]
    assert identities(tmp_path / "store") == sorted(
        ("r1", 1, offset, row) for offset, size in zip(batch, (2, 1, 2), strict=True) for row in range(size)
    )
    assert len(rows(tmp_path / "store", "feedback")) == FEEDBACK_COUNT
    assert len(manifests(tmp_path / "store")) == 1


def test_a_segment_that_comes_back_is_converted_into_the_same_files(tmp_path, actor, cache):
    path = full_segment(tmp_path / "journal", actor)
    content = path.read_bytes()
    worker = converter(tmp_path / "store", cache)
    worker.convert(path)
    before = {file: file.read_bytes() for file in (tmp_path / "store").rglob("*.*")}
    path.write_bytes(content)
    worker.convert(path)
    assert {file: file.read_bytes() for file in (tmp_path / "store").rglob("*.*")} == before


def test_a_segment_that_ends_at_any_byte_loses_only_the_record_that_is_cut(tmp_path, actor):
    """As after a power failure; zeros follow, or the file is shorter."""
    content = full_segment(tmp_path / "journal", actor).read_bytes()
    ends = [record.offset + FRAME.size + len(record.payload) for record in Segment().scan(content)]
    for cut in range(len(content)):
        for zeros in (0, 1000):
            # A record that ends with zeros is whole if only these are cut, and zeros follow.
            whole = [end for end in ends if end <= cut or (zeros and not any(content[cut:end]))]
            segment = Segment()
            assert len(list(segment.scan(content[:cut] + bytes(zeros)))) == len(whole)
            lost = content[max(whole, default=0) : cut]
            assert len(lost.rstrip(b"\0")) <= segment.lost_bytes <= len(lost)


def test_a_hole_of_zeros_loses_only_the_records_in_it(tmp_path, actor, cache, caplog):
    path = simple_segment(tmp_path / "journal", 1, actor, 200)
    records = Segment.read(path).records
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 4096] = bytes(4096)
    path.write_bytes(content)
    lost = [each for each in records if each.offset < 12288 and each.offset + FRAME.size + len(each.payload) > 8192]
    with caplog.at_level(logging.WARNING):
        converter(tmp_path / "store", cache).convert(path)
    offsets = {offset for _, _, offset, _ in identities(tmp_path / "store")}
    assert offsets == {record.offset for record in records if record.kind == 3 and record not in lost}
    (manifest,) = manifests(tmp_path / "store").values()
    assert manifest["lost_bytes"] > 4000
    assert "bytes were damaged" in caplog.text


def test_a_segment_of_a_killed_replica_ends_with_zeros_that_are_no_loss(tmp_path, actor, cache):
    sealed = simple_segment(tmp_path / "journal", 1, actor, 3)
    killed = sealed.with_name("r2-1.segment")
    killed.write_bytes(sealed.read_bytes() + bytes(100_000))
    manifest = converter(tmp_path / "store", cache).convert(killed)
    assert (manifest.lost_bytes, manifest.audit["ok"]) == (0, 3)


@pytest.mark.parametrize("content", [b"", bytes(5000)], ids=["no bytes", "zeros"])
def test_an_empty_segment_is_deleted_and_has_a_manifest(tmp_path, cache, content):
    path = tmp_path / "r1-7.segment"
    path.write_bytes(content)
    converter(tmp_path / "store", cache).convert(path)
    assert not path.exists()
    ((name, manifest),) = manifests(tmp_path / "store").items()
    assert name.startswith("manifests/_unknown/")
    assert name.endswith("/r1-7.json")
    assert (manifest["decisions"], manifest["time"], manifest["files"]) == (0, None, {})


def test_a_segment_of_nothing_but_its_header_is_deleted_and_has_a_manifest(tmp_path, cache):
    path = tmp_path / "r1-1.segment"
    SegmentWriter(path, 4096, {"format": 1, "model": "m", "replica": "r1", "segment": 1, "created_ns": CREATED_NS})
    converter(tmp_path / "store", cache).convert(path)
    assert not path.exists()
    assert list(manifests(tmp_path / "store")) == [f"manifests/m/{DAY}/r1-1.json"]


def test_a_segment_in_which_nothing_can_be_read_is_kept_aside(tmp_path, cache):
    path = tmp_path / "r1-7.segment"
    path.write_bytes(b"x" * 5000)
    converter(tmp_path / "store", cache).convert(path)
    assert not path.exists()
    assert path.with_suffix(".damaged").read_bytes() == b"x" * 5000
    (manifest,) = manifests(tmp_path / "store").values()
    assert manifest["lost_bytes"] == 5000


def test_a_segment_that_lost_its_versions_is_kept_aside(tmp_path, actor, cache):
    path = simple_segment(tmp_path / "journal", 1, actor, 4)
    records = Segment.read(path).records
    content = bytearray(path.read_bytes())
    content[records[1].offset : records[2].offset] = bytes(records[2].offset - records[1].offset)
    path.write_bytes(content)
    manifest = converter(tmp_path / "store", cache).convert(path)
    assert manifest.unreadable == 4
    assert path.with_suffix(".damaged").exists()


def test_a_segment_that_lost_its_header_takes_its_names_from_its_file_and_its_versions(tmp_path, actor, cache):
    path = simple_segment(tmp_path / "journal", 12, actor, 4)
    content = path.read_bytes()
    path.write_bytes(bytes(40) + content[40:])
    converter(tmp_path / "store", cache).convert(path)
    (name,) = manifests(tmp_path / "store")
    assert name.startswith("manifests/cartpole-ppo/")
    assert name.endswith("/r1-12.json")
    assert len(rows(tmp_path / "store")) == 4


def test_the_oldest_damaged_segments_are_deleted(tmp_path, cache):
    worker = converter(tmp_path / "store", cache)
    for number in range(18):
        path = tmp_path / f"r1-{number:02}.segment"
        path.write_bytes(b"x")
        worker.convert(path)
    assert len(list(tmp_path.glob("*.damaged"))) == 16


@pytest.mark.parametrize("what", ["header", "frames"])
def test_a_segment_of_a_later_release_is_left(tmp_path, actor, cache, what):
    path = simple_segment(tmp_path / "journal", 1, actor, 4, **({"format": 2} if what == "header" else {}))
    if what == "frames":
        path.write_bytes(path.read_bytes().replace(MAGIC, MAGIC[:-1] + b"\x02"))
    assert converter(tmp_path / "store", cache).convert(path) is None
    assert path.exists()
    assert not tables(tmp_path / "store")


@pytest.mark.parametrize(
    "content",
    [
        {"rewards": 7},
        {"rewards": [[1, None]]},
        {"episode": "e"},
        {"version": 2**40},
        {"length": 2**70},
        {"rewards": [[2**70, 1]]},
        {"done": 5},
        {"final_observation": {"observations": "no base64"}},
    ],
    ids=str,
)
def test_a_report_that_is_none_is_counted_and_the_segment_kept_aside(tmp_path, actor, cache, content):
    payloads = [version_record(actor.spec), feedback_record(**content), feedback_record(length=3)]
    path = write_segment(tmp_path / "journal", 1, payloads)
    manifest = converter(tmp_path / "store", cache).convert(path)
    assert (manifest.unreadable, manifest.feedback) == (1, 1)
    assert path.with_suffix(".damaged").exists()


def test_a_planted_action_is_in_the_table_the_manifest_and_the_log(tmp_path, actor, cache, caplog):
    inputs = actor.inputs(3, np.random.default_rng(1))
    wrong = {"action": 1 - actor.act(inputs)["action"]}
    payloads = [version_record(actor.spec), actor.record(inputs, wrong, episodes(3))]
    with caplog.at_level(logging.WARNING):
        manifest = converter(tmp_path / "store", cache).convert(write_segment(tmp_path / "journal", 1, payloads))
    assert manifest.audit["differs"] == 3
    assert {(row["audit"], row["action_logp"]) for row in rows(tmp_path / "store")} == {("differs", None)}
    message = "segment r1-1.segment: 3 of 3 actions of version 3 are not those that its bundle computes"
    assert [record.getMessage() for record in caplog.records] == [message]


def test_without_the_audit_decisions_are_unchecked(tmp_path, actor, cache):
    path = simple_segment(tmp_path / "journal", 1, actor, 4)
    assert converter(tmp_path / "store", cache).convert(path, is_audited=False).audit["unchecked"] == 4


def test_what_a_killed_converter_left_unfinished_is_deleted_after_an_hour(tmp_path, actor, cache):
    directory = tmp_path / "store" / "decisions" / "cartpole-ppo" / DAY
    directory.mkdir(parents=True)
    for name, age in ((".writing-old", 7200), (".writing-new", 60)):
        (directory / name).touch()
        written = (directory / name).stat().st_mtime - age
        os.utime(directory / name, (written, written))
    converter(tmp_path / "store", cache).convert(simple_segment(tmp_path / "journal", 1, actor, 4))
    assert {file.name for file in directory.iterdir()} == {".writing-new", "r1-1-v3.parquet"}


def test_a_store_that_cannot_be_written_leaves_the_segment(tmp_path, actor, cache):
    path = simple_segment(tmp_path / "journal", 1, actor, 4)
    content = path.read_bytes()
    worker = converter(tmp_path / "store", cache)
    (tmp_path / "store" / "decisions").write_text("a file where a directory should be")
    with pytest.raises(StoreUnavailable):
        worker.convert(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("model", "directory"), [("cartpole-ppo", "cartpole-ppo"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a b.c", "a b.c")]
)
def test_each_model_has_a_directory_of_its_own(model, directory):
    assert model_directory(model) == directory


def test_complete_segments_are_those_without_a_writer_the_oldest_first(tmp_path, actor):
    newer, older = (simple_segment(tmp_path, number, actor, 1) for number in (1, 2))
    os.utime(older, (1, 1))
    writer = SegmentWriter(tmp_path / "r1-3.segment", 4096, {"format": 1})
    (tmp_path / "r1-4.segment").touch()  # its writer has not locked it yet
    (tmp_path / "r1-5.segment").touch()
    os.utime(tmp_path / "r1-5.segment", (2, 2))  # its writer died before it could
    assert complete_segments(tmp_path) == [older, tmp_path / "r1-5.segment", newer]
    writer.append(b"\x05{}")
    writer.close()
    assert len(complete_segments(tmp_path)) == 4
    assert complete_segments(tmp_path / "none") == []
