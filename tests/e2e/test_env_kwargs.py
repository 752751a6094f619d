"""Every environment of a policy is made with the keyword arguments of its training."""

import json

import pytest
from mlflow.artifacts import load_text

from pipeline.cli import cli

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


def test_training_evaluation_and_the_bundle_have_the_same_env_kwargs(workshop, monkeypatch):
    (workshop.directory / "corridor.py").write_text(CORRIDOR)
    monkeypatch.syspath_prepend(str(workshop.directory))
    options = ("--env-id", "corridor:Corridor-v0", "--env-kwargs", '{"size": 8}', "--max-env-steps", "3000")
    done = workshop.invoke(cli, "train", *options, "--evaluation-interval", "1000")
    assert done.exit_code == 0, done.output
    client = workshop.client()
    version = client.get_model_version("cartpole-ppo", "1")
    run = client.get_run(version.run_id)
    assert run.data.params["env_kwargs"] == version.tags["env_kwargs"] == run.data.tags["env_kwargs"] == '{"size": 8}'
    assert float(version.tags["evaluation.return_min"]) % 8 == 0
    assert run.data.metrics["train/return_mean_100"] > 30, "the training environments have another size"
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert json.loads(load_text(f"{model.artifact_location}/policy.json"))["environment"]["kwargs"] == {"size": 8}
    done = workshop.invoke(cli, "evaluate", "models:/cartpole-ppo/1", "--episodes", "2")
    assert done.exit_code == 0, done.output
