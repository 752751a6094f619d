"""Every environment of a policy is made with the keyword arguments of its training."""

import json
import sys

import pytest
from mlflow import MlflowClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: An environment whose rewards are its keyword argument.
CORRIDOR = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv


class Corridor(CartPoleEnv):
    def __init__(self, size=3, render_mode=None):
        super().__init__(render_mode=render_mode)
        self.size = size

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.size), terminated, truncated, info


gymnasium.register("Corridor-v0", Corridor, max_episode_steps=10)
"""


def test_training_evaluation_and_the_bundle_have_the_same_env_kwargs(workshop):
    (workshop.directory / "corridor.py").write_text(CORRIDOR)
    workshop.environment["PYTHONPATH"] = f"{workshop.directory}:{workshop.variables()['PYTHONPATH']}"
    options = ("--env-id", "corridor:Corridor-v0", "--env-kwargs", '{"size": 8}', "--max-env-steps", "3000")
    done = workshop.python("pipeline", "train", *options, "--evaluation-interval", "1000")
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(f"sqlite:///{workshop.directory}/mlflow.db")
    version = client.get_model_version("cartpole-ppo", "1")
    run = client.get_run(version.run_id)
    assert run.data.params["env_kwargs"] == version.tags["env_kwargs"] == run.data.tags["env_kwargs"] == '{"size": 8}'
    assert float(version.tags["evaluation.return_min"]) % 8 == 0
    assert run.data.metrics["train/return_mean_100"] > 30, "the training environments have another size"
    script = "import mlflow, sys; print(mlflow.artifacts.load_text(sys.argv[1]))"
    text = workshop.run(sys.executable, "-c", script, "models:/cartpole-ppo/1/policy.json").stdout
    assert json.loads(text)["environment"]["kwargs"] == {"size": 8}
    assert workshop.python("pipeline", "evaluate", "models:/cartpole-ppo/1", "--episodes", "2").returncode == 0
