"""Does the work of `python -m pipeline train` with stable-baselines3, as its user would write it.

It logs one MLflow run with parameters and metrics per rollout, evaluates and stops by the same rules, plays 100 final
episodes, and registers the model.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel

from benchmarks.training.peers import StableBaselines
from benchmarks.training.zoo import EPISODES, Zoo
from pipeline.evaluation import evaluation

ENV_ID = "CartPole-v1"
TARGET = 475.0
EVALUATION_EVERY = 4096
PATIENCE = 10
WINDOW = 100


def main(seed: int) -> None:
    """Train, evaluate and register a policy."""
    zoo = Zoo.of(ENV_ID)
    with mlflow.start_run(), TemporaryDirectory() as directory:
        mlflow.log_params({"seed": seed} | {name: str(value) for name, value in zoo.ppo.items()})
        peer = StableBaselines(zoo, seed)
        report("first step")
        best, stale, next_evaluation = -1.0, 0, EVALUATION_EVERY
        file = Path(directory, "model.zip")
        for env_steps in peer.updates():
            returns = [episode["r"] for episode in peer.model.ep_info_buffer or ()]
            if len(returns) == WINDOW:
                mlflow.log_metric("return_mean_100", sum(returns) / len(returns), step=env_steps)
            if env_steps < next_evaluation:
                continue
            next_evaluation += EVALUATION_EVERY
            player = peer.player()
            result = evaluation.play(player, peer.environment, EPISODES, 1_000_000)
            if result.mean >= TARGET:
                confirmation = evaluation.play(player, peer.environment, EPISODES, 1_000_000_000 + env_steps)
                result = min(result, confirmation, key=lambda each: each.mean)
            mlflow.log_metric("greedy_return_mean", result.mean, step=env_steps)
            stale += 1
            if result.mean > best:
                best, stale = result.mean, 0
                peer.model.save(file)
            if best >= TARGET and (result.is_constant or stale >= PATIENCE):
                break
        report("trained")
        peer.model.set_parameters(str(file))
        final = evaluation.play(peer.player(), peer.environment, EPISODES, 2_000_000)
        mlflow.log_metrics({"return_mean": final.mean, "return_std": final.std})
        mlflow.pyfunc.log_model(
            name="policy",
            python_model=_Policy(),
            artifacts={"zip": str(file)},
            pip_requirements=["stable-baselines3"],
            registered_model_name="sb3",
        )
    report(f"final {final.mean} {final.minimum}")


class _Policy(PythonModel):
    def load_context(self, context: Any) -> None:
        from stable_baselines3 import PPO

        self._model = PPO.load(context.artifacts["zip"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        return self._model.predict(model_input, deterministic=True)[0]


def report(what: str) -> None:
    """Print a line with the time, which the benchmark reads."""
    sys.stdout.write(f"{time.time()} {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
