"""Sampling in arrays gives the same episodes as RLlib's own environment runner."""

import numpy as np
import pytest
import torch
import tree
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.filter import RunningStat

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.rllib.env_runner import ArrayEnvRunner
from pipeline.rllib.trainer import algorithm_config
from tests.pipeline.zoo import SPACES

UNSUPPORTED = {"Text", "Sequence", "Graph", "DottedKey", "WideIntegers"}
ENV_IDS = ["CartPole-v1", *(f"tests.pipeline.zoo:{name}-v0" for name in sorted(SPACES.keys() - UNSUPPORTED))]
NUM_ENVS = 3


def made(env_id, runner_class=None, **settings):
    """An environment runner, of the class that the settings select by default."""
    steps = {"train_batch_size_per_learner": 60, "minibatch_size": 60}
    config = TrainConfig(**{"env_id": env_id, "num_envs_per_env_runner": NUM_ENVS, **steps, **settings})
    unfrozen = algorithm_config(config, environments.describe(env_id)).copy(copy_frozen=False)
    return (runner_class or unfrozen.env_runner_cls)(config=unfrozen, worker_index=0)


def sampled(runner_class, env_id, **settings):
    """The episodes of four calls, several of which end."""
    torch.manual_seed(0)
    runner = made(env_id, runner_class, **settings)
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
        [[content(episode) for episode in call] for call in sampled(each, env_id, model_config=model_config)]
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


def noise_of(episodes):
    """The noise of each step, from the actions and their distributions."""
    inputs = np.concatenate([episode.get_extra_model_outputs("action_dist_inputs") for episode in episodes])
    actions = np.concatenate([episode.get_actions() for episode in episodes])
    means, log_stds = np.split(inputs, 2, axis=-1)
    return (actions - means) / np.exp(log_stds)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_noise_has_variance_1_and_the_correlation_that_is_set(correlation):
    torch.manual_seed(0)
    runner = made("Pendulum-v1", noise_correlation=correlation, num_envs_per_env_runner=30)
    noise = np.stack([noise_of([each]) for each in runner.sample(num_timesteps=190 * 30)])
    runner.stop()
    assert noise.shape == (30, 190, 1)
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert noise.std() == pytest.approx(1, abs=0.09)
    for steps in (1, 5):
        measured = np.corrcoef(noise[:, :-steps].ravel(), noise[:, steps:].ravel())[0, 1]
        assert measured == pytest.approx(correlation**steps, abs=0.08)


def test_log_probabilities_of_correlated_actions_are_those_of_the_policy():
    torch.manual_seed(0)
    runner = made("Pendulum-v1", noise_correlation=0.9)
    episodes = runner.sample()
    runner.stop()
    inputs = np.concatenate([episode.get_extra_model_outputs("action_dist_inputs") for episode in episodes])
    logps = np.concatenate([episode.get_extra_model_outputs("action_logp") for episode in episodes])
    noise, log_stds = noise_of(episodes)[:, 0], inputs[:, 1]
    np.testing.assert_allclose(logps, -(noise**2) / 2 - log_stds - np.log(2 * np.pi) / 2, rtol=1e-4, atol=1e-4)


def test_equal_seeds_give_equal_correlated_noise_and_greedy_actions_have_none():
    calls = []
    for explore in (True, True, False):
        torch.manual_seed(0)
        runner = made("Pendulum-v1", noise_correlation=0.9)
        calls.append(noise_of(runner.sample(explore=explore)))
        runner.stop()
    np.testing.assert_array_equal(calls[0], calls[1])
    assert np.abs(calls[0]).max() > 0.1
    np.testing.assert_allclose(calls[2], 0, atol=1e-6)


def test_filtered_observations_are_those_that_rllibs_filter_gives_and_counts():
    """The filters see equal observations, because the environment ignores actions; only their first results differ."""
    ours, theirs = (made("Pendulum-v1", each, observation_filter="mean-std") for each in (None, SingleAgentEnvRunner))
    raw = made("Pendulum-v1")
    for runner in (ours, theirs, raw):
        runner.module._forward_exploration = zero_actions  # which the public method calls
    for _ in range(3):
        mine, other, plain = (runner.sample(num_timesteps=201 * NUM_ENVS) for runner in (ours, theirs, raw))
    for runner in (ours, theirs, raw):
        runner.stop()
    assert len(mine) == len(other) == len(plain)
    for one, two, three in zip(mine, other, plain, strict=True):
        np.testing.assert_allclose(one.get_observations(), two.get_observations(), atol=0.02)
        assert not np.allclose(one.get_observations(), three.get_observations(), atol=0.02)
    (state, expected) = (
        RunningStat.from_state(runner.get_state()["env_to_module_connector"]["MeanStdFilter"][None]["running_stats"][0])
        for runner in (ours, theirs)
    )
    assert state.n == expected.n
    np.testing.assert_allclose(state.mean, expected.mean, rtol=1e-9)
    np.testing.assert_allclose(state.std, expected.std, rtol=1e-6)


def zero_actions(batch, **_):
    """The outputs of a policy that always acts with 0 and has almost no noise."""
    return {"action_dist_inputs": torch.tensor([[0.0, -30.0]]).repeat(len(batch["obs"]), 1)}


@pytest.mark.parametrize("runner_class", [ArrayEnvRunner, SingleAgentEnvRunner])
@pytest.mark.parametrize("env_id", ["tests.zoo.in_place:InPlace-v0", "tests.zoo.vector_forms:InPlaceVector-v0"])
def test_observations_that_an_environment_changes_in_place_are_copied(runner_class, env_id):
    episodes = [episode for call in sampled(runner_class, env_id) for episode in call]
    observations = np.concatenate([episode.get_observations()[:-1] for episode in episodes])
    assert len(observations) >= 240
    assert len(np.unique(observations, axis=0)) == len(observations)
