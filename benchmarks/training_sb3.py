"""stable-baselines3 doing the work of `python -m pipeline train`, as its user would write it.

One MLflow run with parameters, metrics per rollout, the same greedy evaluations by the same rule of when to stop, 100
fresh episodes at the end, and a registered model.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel

from benchmarks.training_peers import ENV_ID, ZOO_SETTINGS, StableBaselines, greedy
from pipeline.environments import make as environments
from pipeline.evaluation import evaluation

TARGET = 475.0
EVALUATION_EVERY = 4096
EPISODES = 100
PATIENCE = 10


def main(seed: int) -> None:
    """Train, evaluate, register."""
    environment = environments.describe(ENV_ID)
    with mlflow.start_run(), TemporaryDirectory() as directory:
        mlflow.log_params({"seed": seed} | {name: str(value) for name, value in ZOO_SETTINGS.items()})
        peer = StableBaselines(seed)
        say("first step")
        best, stale, next_evaluation = -1.0, 0, EVALUATION_EVERY
        file = Path(directory, "model.zip")
        for moment in peer.moments():
            if moment.return_mean_100 == moment.return_mean_100:  # not NaN
                mlflow.log_metric("return_mean_100", moment.return_mean_100, step=moment.env_steps)
            if moment.env_steps < next_evaluation:
                continue
            next_evaluation += EVALUATION_EVERY
            judged = evaluation.play(greedy(peer, environment), environment, EPISODES, 1_000_000)
            if judged.mean >= TARGET:
                fresh = evaluation.play(
                    greedy(peer, environment), environment, EPISODES, 1_000_000_000 + moment.env_steps
                )
                judged = min(judged, fresh, key=lambda each: each.mean)
            mlflow.log_metric("greedy_return_mean", judged.mean, step=moment.env_steps)
            stale += 1
            if judged.mean > best:
                best, stale = judged.mean, 0
                peer.model.save(file)
            if best >= TARGET and (judged.minimum == judged.maximum or stale >= PATIENCE):
                break
        say("trained")
        peer.model.set_parameters(str(file))
        final = evaluation.play(greedy(peer, environment), environment, EPISODES, 2_000_000)
        mlflow.log_metrics({"return_mean": final.mean, "return_std": final.std})
        mlflow.pyfunc.log_model(
            name="policy",
            python_model=_Policy(),
            artifacts={"zip": str(file)},
            pip_requirements=["stable-baselines3"],
            registered_model_name="sb3",
        )
    say(f"final {final.mean} {final.minimum}")


class _Policy(PythonModel):
    def load_context(self, context: Any) -> None:
        from stable_baselines3 import PPO

        self._model = PPO.load(context.artifacts["zip"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        return self._model.predict(model_input, deterministic=True)[0]


def say(what: str) -> None:
    """For the clock of the one who started this."""
    sys.stdout.write(f"{time.time()} {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
