import json
from dataclasses import replace
from pathlib import Path

import pytest

from serving.registry.model_version import ModelVersion
from serving.rollout.refusals import LIFTED, MAX_KEPT, Refusals
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags

VERSION = ModelVersion(
    uri="models:/judged/Production",
    name="judged",
    version=5,
    run_id=None,
    stage="Production",
    tags=digest_tags(CARTPOLE_BUNDLE),
    registry="sqlite:///nowhere.db",
)


def test_a_refusal_holds_for_all_replicas_of_a_node_and_after_their_restart(tmp_path: Path) -> None:
    one, other = Refusals(tmp_path, "an-app"), Refusals(tmp_path, "an-app")
    assert other.of(VERSION) is None
    refusal = one.add(VERSION, "crashed", "it crashed")
    assert (refusal.version, refusal.code, refusal.reason) == (5, "crashed", "it crashed")
    assert one.of(VERSION) == other.of(VERSION) == Refusals(tmp_path, "an-app").of(VERSION) == refusal


def test_applications_have_refusals_of_their_own(tmp_path: Path) -> None:
    Refusals(tmp_path, "an-app").add(VERSION, "crashed", "it crashed")
    assert Refusals(tmp_path, "another").of(VERSION) is None


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({"stage": "Staging", "uri": "models:/judged/Staging", "run_id": "0"}, True),
        ({"tags": {**VERSION.tags, "experiment.stage.Production": "{}"}}, True),
        ({"tags": {**VERSION.tags, "online.return": "475", "ope.answer": "better"}}, True),
        ({"tags": {**VERSION.tags, "gate.stage.Production": "{}", "signature.version.0": "0"}}, True),
        ({"tags": {**VERSION.tags, LIFTED: "the sensor was at fault"}}, False),
        ({"tags": {**VERSION.tags, "sha256.model.onnx": "0"}}, False),
        ({"version": 6}, False),
        ({"name": "another"}, False),
    ],
)
def test_a_refusal_holds_for_the_files_of_a_version_until_a_person_lifts_it(
    changes: dict[str, object], *, is_refused: bool, tmp_path: Path
) -> None:
    refusals = Refusals(tmp_path, "an-app")
    refusals.add(VERSION, "crashed", "it crashed")
    assert (refusals.of(replace(VERSION, **changes)) is not None) is is_refused  # type: ignore[arg-type]


def test_the_first_reason_stays(tmp_path: Path) -> None:
    one, other = Refusals(tmp_path, "an-app"), Refusals(tmp_path, "an-app")
    first = one.add(VERSION, "crashed", "it crashed")
    assert other.add(VERSION, "inference_timeout", "it took long") == first


def test_replicas_that_refuse_different_versions_lose_none(tmp_path: Path) -> None:
    replicas = [Refusals(tmp_path, "an-app") for _ in range(3)]
    for number, replica in enumerate(replicas):
        replica.add(replace(VERSION, version=number), "crashed", "it crashed")
    assert [each.version for each in Refusals(tmp_path, "an-app").all()] == [0, 1, 2]


def test_refusals_of_another_node_are_kept_and_a_known_one_writes_nothing(tmp_path: Path) -> None:
    here, there = Refusals(tmp_path / "here", "an-app"), Refusals(tmp_path / "there", "an-app")
    there.add(VERSION, "crashed", "it crashed")
    here.merge(there.all())
    written = (tmp_path / "here" / "refused" / "an-app.json").stat()
    here.merge(there.all())
    assert (tmp_path / "here" / "refused" / "an-app.json").stat().st_ino == written.st_ino
    assert Refusals(tmp_path / "here", "an-app").of(VERSION) == there.of(VERSION)


def test_only_the_last_refusals_are_kept(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path, "an-app")
    for number in range(MAX_KEPT + 2):
        refusals.add(replace(VERSION, version=number), "crashed", "it crashed")
    assert [each.version for each in Refusals(tmp_path, "an-app").all()] == list(range(2, MAX_KEPT + 2))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 2, "refusals": []}',
        '{"format": 1, "refusals": [{"key": "0"}]}',
        json.dumps({"format": 1, "refusals": [{"key": "0", "version": "5", "code": "", "reason": "", "at": ""}]}),
    ],
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "an-app.json").write_text(content)
    refusals = Refusals(tmp_path, "an-app")
    assert refusals.all() == []
    refusals.add(VERSION, "crashed", "it crashed")
    assert Refusals(tmp_path, "an-app").of(VERSION) is not None


def test_without_a_directory_that_can_be_written_a_refusal_holds_in_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "refused").write_text("a file")
    refusals = Refusals(tmp_path, "an-app")
    refusals.add(VERSION, "crashed", "it crashed")
    assert refusals.of(VERSION) is not None
    assert "refused versions cannot be written to" in caplog.text
