"""Sampling in arrays gives the same episodes as RLlib's own environment runner."""

import numpy as np
import pytest
import torch
import tree
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.rllib.env_runner import ArrayEnvRunner
from pipeline.rllib.trainer import algorithm_config
from tests.pipeline.zoo import SPACES

UNSUPPORTED = {"Text", "Sequence", "Graph", "DottedKey", "WideIntegers"}
ENV_IDS = ["CartPole-v1", *(f"tests.pipeline.zoo:{name}-v0" for name in sorted(SPACES.keys() - UNSUPPORTED))]
NUM_ENVS = 3


def sampled(runner_class, env_id, model_config="{}"):
    """The episodes of four calls, several of which end."""
    config = TrainConfig(
        env_id=env_id,
        model_config=model_config,
        num_envs_per_env_runner=NUM_ENVS,
        train_batch_size_per_learner=60,
        minibatch_size=60,
    )
    unfrozen = algorithm_config(config, environments.describe(env_id)).copy(copy_frozen=False)
    torch.manual_seed(0)
    runner = runner_class(config=unfrozen, worker_index=0)
    calls = [runner.sample() for _ in range(4)]
    runner.stop()
    return calls


def content(episode):
    """Everything that a learner reads of an episode."""
    return {
        "part": (episode.t_started, episode.t, bool(episode.is_terminated), bool(episode.is_truncated)),
        "observations": episode.get_observations(),
        "actions": episode.get_actions(),
        "rewards": episode.get_rewards(),
        "outputs": {name: episode.get_extra_model_outputs(name) for name in episode.extra_model_outputs},
    }


@pytest.mark.parametrize(
    ("env_id", "model_config"), [*((each, "{}") for each in ENV_IDS), ("CartPole-v1", '{"use_lstm": true}')]
)
def test_episodes_equal_those_of_rllibs_runner(env_id, model_config):
    ours, theirs = (
        [[content(episode) for episode in call] for call in sampled(each, env_id, model_config)]
        for each in (ArrayEnvRunner, SingleAgentEnvRunner)
    )
    tree.assert_same_structure(ours, theirs)
    for one, other in zip(tree.flatten(ours), tree.flatten(theirs), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)
    assert any(terminated for call in ours for *_, terminated, _ in (episode["part"] for episode in call))


def test_an_episode_continues_in_the_next_call():
    """Pendulum's episodes last 200 steps, a call 20."""
    ends = {}
    for episode in (episode for call in sampled(ArrayEnvRunner, "Pendulum-v1") for episode in call):
        before = ends.setdefault(episode.id_, episode)
        if before is not episode:
            assert episode.t_started == before.t
            np.testing.assert_array_equal(episode.get_observations(0), before.get_observations(-1))
        ends[episode.id_] = episode
    assert len(ends) == NUM_ENVS


@pytest.mark.parametrize("runner_class", [ArrayEnvRunner, SingleAgentEnvRunner])
@pytest.mark.parametrize("env_id", ["tests.zoo.in_place:InPlace-v0", "tests.zoo.vector_forms:InPlaceVector-v0"])
def test_observations_that_an_environment_changes_in_place_are_copied(runner_class, env_id):
    episodes = [episode for call in sampled(runner_class, env_id) for episode in call]
    observations = np.concatenate([episode.get_observations()[:-1] for episode in episodes])
    assert len(observations) >= 240
    assert len(np.unique(observations, axis=0)) == len(observations)
