"""The evaluator raises a failed preflight export once it is known, and before the export of the best policy."""

import shutil
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.recording import Recording
from pipeline.export.errors import ExportFailed
from pipeline.reference.reference import Reference
from pipeline.training.evaluator import BestPolicy, Evaluator
from pipeline.training.worker_process import WorkerProcess
from pipeline.training.workspace import Workspace


@pytest.fixture
def evaluator(cartpole, tmp_path):
    def evaluator(preflight=None, **settings):
        return Evaluator(TrainConfig(**settings), cartpole, Workspace.create(tmp_path), WorkerProcess(), preflight)

    return evaluator


def test_the_target_is_the_configured_return_or_the_threshold_of_the_environment(evaluator, cartpole, tmp_path):
    assert evaluator().target_return == cartpole.reward_threshold == 475
    workspace = Workspace(tmp_path)
    assert Evaluator(TrainConfig(target_return=20.0), cartpole, workspace, WorkerProcess()).target_return == 20


def test_a_failed_preflight_is_raised_once_it_has_ended(evaluator):
    preflight = Future()
    evaluator = evaluator(preflight)
    evaluator.check_preflight()
    preflight.set_exception(ExportFailed("no"))
    with pytest.raises(ExportFailed):
        evaluator.check_preflight()


def test_the_export_raises_a_failed_preflight_first(evaluator):
    preflight = Future()
    preflight.set_exception(ExportFailed("no"))
    with pytest.raises(ExportFailed, match="so it could not be served: no"):
        evaluator(preflight).export()


def best_with(result=None, error=None):
    recording = Future()
    if error is None:
        recording.set_result(result)
    else:
        recording.set_exception(error)
    return BestPolicy(Evaluation((1.0,), 0), 1, recording)


@pytest.mark.parametrize(
    ("best", "expected", "notes"),
    [
        (best_with(Recording(is_written=True)), "episode.gif", []),
        (best_with(Recording(is_written=False)), None, []),
        (
            best_with(Recording(is_written=False, reason="render() returned NoneType")),
            None,
            ["No recording of an episode: render() returned NoneType"],
        ),
        (best_with(error=BrokenExecutor()), None, ["No recording of an episode: the process that drew it died"]),
        (best_with(error=TimeoutError()), None, ["No recording of an episode: it was not drawn within 120 s"]),
    ],
)
def test_a_policy_without_a_recording_is_kept_and_a_note_says_why(best, expected, notes):
    noted = []
    file = best.recorded(Path("episode.gif"), noted.append)
    assert file == (expected and Path(expected))
    assert noted == notes


def test_the_final_evaluation_leaves_the_reference_of_its_observations_in_the_bundle(evaluator, assembled, tmp_path):
    directory, _ = assembled
    made = evaluator(evaluation_episodes=3)
    shutil.copytree(directory, made.workspace.bundle, dirs_exist_ok=True)
    best = made.evaluate_bundle(step=0, first_seed=5)
    reference = Reference.from_bytes((tmp_path / "bundle" / "reference.json").read_bytes())
    assert reference.sketches.lengths.tolist() == list(best.evaluation.returns)
