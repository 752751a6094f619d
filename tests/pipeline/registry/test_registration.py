"""A registration logs the bundle, its evaluation and its origin, and creates a version with all of them."""

import mlflow
import pytest

from pipeline.config import TrainConfig
from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry.registration import Registration
from pipeline.tracking import run as tracking

SOLVED = Evaluation((480.0, 500.0), first_seed=0)


@pytest.fixture
def register(store, assembled, cartpole):  # noqa: ARG001  # the store is the current one
    """Return a function of a target return and lineage that registers the assembled bundle in a new run."""

    def register(target_return, **lineage):
        with tracking.run("train") as run_id:
            registration = Registration(TrainConfig(promote=True), cartpole, run_id, target_return, notify=print)
            return registration.register(assembled[0], SOLVED, step=4096, lineage=lineage)

    return register


def test_the_version_has_its_evaluation_provenance_and_card(register):
    trained = register(475.0, trial="7")
    assert (trained.name, trained.version, trained.solved, trained.promote) == ("cartpole-ppo", 1, True, True)
    version = mlflow.MlflowClient().get_model_version("cartpole-ppo", "1")
    assert version.tags["evaluation.return_mean"] == "490"
    assert version.tags["target_return"] == "475"
    assert version.tags["env_id"] == "CartPole-v1"
    assert version.tags["trial"] == "7"
    assert {"sha256.model.onnx", "sha256.policy.json", "git_commit"} <= version.tags.keys()
    assert "4,096 environment steps" in version.description
    assert mlflow.get_run(trained.run_id).data.metrics["evaluation/return_mean"] == 490.0


def test_a_version_without_a_target_return_counts_as_solved(register):
    trained = register(None)
    assert trained.solved
    assert "target_return" not in mlflow.MlflowClient().get_model_version("cartpole-ppo", "1").tags


def test_a_version_below_its_target_return_is_not_solved(register):
    assert not register(491.0).solved
