"""Evaluates a registered version with the graph that is served."""

from dataclasses import dataclass

import mlflow

from pipeline.environments import make as environments
from pipeline.evaluation import evaluation
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from pipeline.tracking import run as tracking
from serving.policy.policy import Policy
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server


@dataclass(frozen=True)
class RecordedEvaluation:
    """An evaluation of a version, and the MLflow run that records it."""

    name: str
    version: int
    run_id: str
    evaluation: Evaluation


def evaluate(model_uri: str, episodes: int, seed: int) -> RecordedEvaluation:
    """Play greedy episodes with a registered version, and record the returns in a run and in tags of the version.

    Args:
        model_uri: `models:/NAME/VERSION`, or a stage, an alias or `latest` instead of the number.
        episodes: The number of episodes.
        seed: Episode i is reset with `seed + i`.

    Raises:
        ServingError: If the version cannot be resolved, fetched, verified or loaded.
        EnvironmentNotFound: If the environment that it was trained in is not installed.
    """
    check_tracking_server()
    version = resolve(model_uri)
    policy = Policy.load(fetch(version))
    environment = environments.of_policy(policy)
    params = {"model_uri": model_uri, "episodes": episodes, "seed": seed}
    with tracking.run(f"evaluate {version.name} {version.version}", params) as run_id:
        result = evaluation.play(Player.served(policy), environment, episodes, seed)
        client = mlflow.MlflowClient()
        tracking.log_evaluation(run_id, result, tracking.model_id_of(version.name, version.version))
        for key, value in tracking.version_tags(result).items():
            client.set_model_version_tag(version.name, str(version.version), key, value)
        return RecordedEvaluation(version.name, version.version, run_id, result)
