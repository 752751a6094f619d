"""Evaluating a registered version, exactly as it will be served."""

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
class Evaluated:
    """An evaluation, and where it is recorded."""

    name: str
    version: int
    run_id: str
    evaluation: Evaluation


def evaluate(model_uri: str, episodes: int, seed: int) -> Evaluated:
    """Play greedy episodes with a registered version and record them in MLflow, linked to the version.

    Args:
        model_uri: `models:/NAME/VERSION`, or a stage, an alias, `latest`.
        episodes: How many.
        seed: Episode i is reset with `seed + i`.

    Raises:
        ServingError: If the version cannot be resolved, fetched, verified or loaded.
        EnvironmentNotFound: If the environment that it was trained on is not installed here.
    """
    check_tracking_server()
    version = resolve(model_uri)
    policy = Policy.load(fetch(version))
    environment = environments.of_policy(policy)
    with tracking.run(f"evaluate {version.name} {version.version}") as run_id:
        tracking.log_params(run_id, {"model_uri": model_uri, "episodes": episodes, "seed": seed})
        result = evaluation.play(Player.served(policy), environment, episodes, seed)
        client = mlflow.MlflowClient()
        tracking.log_evaluation(run_id, result, tracking.model_id_of(version.name, version.version))
        for key, value in tracking.version_tags(result).items():
            client.set_model_version_tag(version.name, str(version.version), key, value)
        return Evaluated(version.name, version.version, run_id, result)
