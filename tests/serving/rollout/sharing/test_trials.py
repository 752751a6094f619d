import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from serving.policy.bundle import Bundle
from serving.policy.errors import ProviderUnavailable
from serving.rollout.candidate_trial import TrialConditions, run_trial
from serving.rollout.errors import CandidateRejected
from serving.rollout.sharing import trials
from serving.rollout.sharing.trials import REJECTED_FOR_S, SharedTrial
from tests.serving.policies import CARTPOLE_BUNDLE

CONDITIONS = TrialConditions(1 << 30, 15.0, 1, "cpu")
TAGS = {"sha256.model.onnx": "0123"}


class Trial:
    """Counts its runs, and rejects if a test says so."""

    def __init__(self, error: Exception | None = None, lasts_s: float = 0) -> None:
        self.runs, self.error, self.lasts_s = 0, error, lasts_s

    def __call__(self) -> None:
        self.runs += 1
        time.sleep(self.lasts_s)
        if self.error is not None:
            raise self.error


def shared(directory: Path, tags: dict[str, str] | None = None, **changes: object) -> SharedTrial:
    return SharedTrial(directory, tags or TAGS, replace(CONDITIONS, **changes))


def test_replicas_that_want_a_version_at_the_same_time_try_it_once(tmp_path: Path) -> None:
    trial, barrier = Trial(lasts_s=0.2), threading.Barrier(4)

    def admit(_: int) -> None:
        barrier.wait(30)
        shared(tmp_path).run(trial)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(admit, range(4)))
    shared(tmp_path).run(trial)
    shared(tmp_path, {"other": "tags"}).run(trial)
    assert trial.runs == 1


@pytest.mark.parametrize(
    "change",
    [{"memory_bytes": 1 << 20}, {"timeout_s": 1.0}, {"num_threads": 2}, {"provider": "cuda"}, {"max_batch_size": 2}],
    ids=lambda change: next(iter(change)),
)
def test_a_trial_under_other_conditions_counts_for_nothing(change: dict[str, object], tmp_path: Path) -> None:
    trial = Trial()
    shared(tmp_path).run(trial)
    shared(tmp_path, **change).run(trial)
    assert trial.runs == 2


@pytest.mark.parametrize("name", ["_code", "_runtime"])
def test_a_trial_of_another_release_counts_for_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial()
    shared(tmp_path).run(trial)
    monkeypatch.setattr(trials, name, lambda: "another")
    shared(tmp_path).run(trial)
    assert trial.runs == 2


def test_all_replicas_reject_what_one_has_rejected(tmp_path: Path) -> None:
    trial = Trial(CandidateRejected("it needs more than 64 MiB of memory"))
    for _ in range(3):
        with pytest.raises(CandidateRejected, match=r"^it needs more than 64 MiB of memory$"):
            shared(tmp_path).run(trial)
    assert trial.runs == 1


def test_a_rejected_version_is_tried_again_with_other_tags_and_by_replicas_that_start_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CandidateRejected):
        shared(tmp_path).run(Trial(CandidateRejected("it is not valid")))
    trial = Trial()
    with monkeypatch.context() as later:
        later.setattr(trials.time, "time", lambda now=time.time: now() + REJECTED_FOR_S)
        shared(tmp_path).run(trial)
    assert trial.runs == 1
    with pytest.raises(CandidateRejected):
        shared(tmp_path, timeout_s=2.0).run(Trial(CandidateRejected("it is not valid")))
    shared(tmp_path, {"changed": "by a person"}, timeout_s=2.0).run(trial)
    assert trial.runs == 2


def test_a_trial_that_runs_into_its_time_limit_is_repeated(tmp_path: Path) -> None:
    """Seen on a busy machine, where the child did not even start in time."""
    for _ in range(2):
        with pytest.raises(CandidateRejected, match="did not load and answer within"):
            shared(tmp_path, timeout_s=0.01).run(
                lambda: run_trial(CARTPOLE_BUNDLE, replace(CONDITIONS, timeout_s=0.01))
            )
    trial = Trial()
    shared(tmp_path, timeout_s=0.01).run(trial)
    assert trial.runs == 1


def test_the_outcome_of_a_real_trial_is_recorded(tmp_path: Path) -> None:
    bundle = Bundle(CARTPOLE_BUNDLE.graph[:-10], CARTPOLE_BUNDLE.policy)
    with pytest.raises(CandidateRejected) as first:
        shared(tmp_path).run(lambda: run_trial(bundle, CONDITIONS))
    with pytest.raises(CandidateRejected) as second:
        shared(tmp_path).run(Trial())
    assert str(second.value) == str(first.value) == "model.onnx is not valid: it is truncated"


def test_a_missing_provider_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable):
        shared(tmp_path).run(Trial(ProviderUnavailable("cuda", "a GPU")))
    trial = Trial()
    shared(tmp_path).run(trial)
    assert trial.runs == 1


def test_a_directory_that_cannot_be_written_costs_a_trial_of_each_replica(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    trial = Trial()
    for _ in range(2):
        shared(tmp_path / "file" / "bundle").run(trial)
    assert trial.runs == 2


def test_a_damaged_record_is_ignored(tmp_path: Path) -> None:
    trial = Trial()
    shared(tmp_path).run(trial)
    (record,) = tmp_path.iterdir()
    record.write_text("{")
    shared(tmp_path).run(trial)
    assert trial.runs == 2
