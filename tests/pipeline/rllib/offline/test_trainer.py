"""A trainer that learns from recorded episodes repeats itself, is resumed without loss, and hands over to PPO."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.rllib.checkpoint_layout import load_filter, load_module
from pipeline.rllib.errors import LearningDiverged, RecurrentUnsupported
from pipeline.rllib.offline import learner, trainer
from pipeline.rllib.offline.learner import OfflineSettings, RecordedEpisode
from pipeline.rllib.offline.trainer import OfflineTrainer

CONFIG = TrainConfig(fcnet_hiddens="8", minibatch_size=32, num_envs_per_env_runner=1, train_batch_size_per_learner=32)
MARWIL, BC = OfflineSettings(beta=1.0, lr=0.01), OfflineSettings(beta=0.0, lr=0.01)


def episode(seed, *, act=None, reward=lambda _: 1.0, length=20):
    """An episode of random observations, which ends in a terminal state."""
    random = np.random.default_rng(seed)
    observations = random.normal(size=(length + 1, 4)).astype(np.float32)
    actions = random.integers(2, size=length) if act is None else np.full(length, act)
    return RecordedEpisode(observations, actions, np.array([reward(each) for each in actions]), terminated=True)


EPISODES = [episode(seed) for seed in range(8)]


@pytest.fixture
def make(cartpole, tmp_path):
    """Return a function that makes a trainer."""

    def make(config=CONFIG, settings=MARWIL, episodes=EPISODES):
        return OfflineTrainer(config, cartpole, episodes, settings, tmp_path / "learner.pkl")

    return make


def weights(made):
    return {name: each.numpy().copy() for name, each in made.policy.state_dict().items()}


def learned(made, count):
    """The weights after some iterations."""
    with made:
        for _ in itertools.islice(made.iterations(), count):
            pass
        return weights(made)


def are_equal(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def short_iterations(monkeypatch):
    monkeypatch.setattr(trainer, "_STEPS", 40)


@pytest.mark.usefixtures("short_iterations")
def test_equal_seeds_give_equal_weights_and_another_seed_gives_others(make):
    first, second = learned(make(), 5), learned(make(), 5)
    assert are_equal(first, second)
    assert not are_equal(first, learned(make(dataclasses.replace(CONFIG, seed=1)), 5))


@pytest.mark.usefixtures("short_iterations")
def test_a_resumed_training_gives_the_weights_of_one_that_was_not_interrupted(make, tmp_path):
    with make() as made:
        (*_, last) = itertools.islice(made.iterations(), 3)
        made.save(tmp_path / "latest")
    with make() as made:
        made.restore(tmp_path / "latest", last.env_steps, ())
        iterations = list(itertools.islice(made.iterations(), 3))
        resumed = weights(made)
    assert iterations[0].env_steps == last.env_steps + iterations[0].sampled
    assert are_equal(resumed, learned(make(), 6))


def test_value_targets_are_discounted_rewards_and_for_truncated_episodes_the_value_of_what_followed(make, monkeypatch):
    episodes = [episode(0, length=3), dataclasses.replace(episode(1, length=2), terminated=False)]
    config = dataclasses.replace(CONFIG, gamma=0.5, reward_scale=2.0)
    seen = []
    monkeypatch.setattr(learner.ShuffledRows, "__call__", lambda _, *, batch, **__: seen.append(batch) or batch)
    with make(config, episodes=episodes) as made:
        (order,) = itertools.islice(made._lessons(), 1)
        module = made._learners._learner.module["default_policy"].unwrapped()
        following = float(module.compute_values({"obs": torch.from_numpy(episodes[1].observations)})[-1])
        next(made.iterations())
    (columns,) = seen[0].values()
    found = columns["value_targets"][columns["loss_mask"]].tolist()
    expected = {0: [3.5, 3.0, 2.0], 1: [3.0 + following / 4, 2.0 + following / 2]}
    assert found == pytest.approx([target for index in order for target in expected[index]], rel=1e-5)


@pytest.mark.usefixtures("short_iterations")
def test_an_epoch_has_each_episode_once_and_another_order_than_the_one_before(make):
    with make() as made:
        lessons = [*itertools.islice(made._lessons(), 8)]
    first, second = ([*itertools.chain(*lessons[start : start + 4])] for start in (0, 4))
    assert sorted(first) == sorted(second) == [*range(8)]
    assert first != second


def test_marwil_prefers_the_actions_that_were_rewarded_and_cloning_the_more_frequent_ones(make):
    """Two thirds of the episodes take action 0, without a reward; the others take action 1, with one."""
    episodes = [episode(seed, act=int(seed % 3 == 0), reward=float) for seed in range(15)]
    chosen = {}
    for name, settings in (("marwil", MARWIL), ("bc", BC)):
        with make(settings=settings, episodes=episodes) as made:
            for _ in itertools.islice(made.iterations(), 15):
                pass
            observations = np.concatenate([each.observations for each in episodes])
            chosen[name] = made.policy.run({"observations": observations})["action"].mean()
    assert chosen["marwil"] > 0.9
    assert chosen["bc"] < 0.1


@pytest.mark.long
def test_rewards_do_not_matter_to_cloning(make):
    other = [dataclasses.replace(each, rewards=-7 * each.rewards) for each in EPISODES]
    made = [learned(make(settings=BC, episodes=episodes), 2) for episodes in (EPISODES, other)]
    policy = [name for name in made[0] if "pi" in name or "actor" in name]
    assert policy
    assert all(np.array_equal(made[0][name], made[1][name]) for name in policy)


def test_ppo_continues_with_the_weights_and_counts_on(make, tmp_path):
    with make() as made:
        (iteration,) = itertools.islice(made.iterations(), 1)
        made.save(tmp_path / "best")
        found = weights(made)
        made.begin_ppo(iteration.env_steps)
        made.restore(tmp_path / "best", iteration.env_steps, ())
        assert are_equal(found, weights(made))
        later = next(made.iterations())
        assert later.env_steps == iteration.env_steps + later.sampled
        assert later.metrics["train/entropy"] > 0
        assert not are_equal(found, weights(made))


@pytest.mark.long
def test_the_checkpoint_is_that_of_ppo_with_the_learned_weights(make, tmp_path):
    with make() as made:
        next(made.iterations())
        made.save(tmp_path / "best")
        found = weights(made)
    module = load_module(tmp_path / "best")
    stored = {f"_module.{name}": each.numpy() for name, each in module.state_dict().items()}
    assert all(np.array_equal(stored[name], value) for name, value in found.items() if name.startswith("_module"))


FILTERED = dataclasses.replace(CONFIG, observation_filter="mean-std")


def test_the_filter_has_the_statistics_of_the_recorded_observations(make, tmp_path):
    with make(FILTERED) as made:
        next(made.iterations())
        made.save(tmp_path / "best")
    observations = np.concatenate([each.observations for each in EPISODES])
    frozen = load_filter(tmp_path / "best")
    normalized = frozen(torch.from_numpy(observations)).numpy()
    np.testing.assert_allclose(normalized.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std(axis=0, ddof=1), 1, atol=1e-5)


@pytest.mark.long
def test_the_filter_of_another_policy_is_kept(make, tmp_path):
    with make(FILTERED) as made:
        next(made.iterations())
        made.save(tmp_path / "other")
    moved = [dataclasses.replace(each, observations=each.observations + 3) for each in EPISODES]
    with make(FILTERED, episodes=moved) as made:
        assert made.load_filter(tmp_path / "other")
        next(made.iterations())
        made.save(tmp_path / "best")
    first, second = (load_filter(tmp_path / name).state_dict() for name in ("other", "best"))
    assert {name: each.tolist() for name, each in first.items()} == {
        name: each.tolist() for name, each in second.items()
    }


def test_a_loss_that_is_not_finite_ends_the_training(make):
    with make(settings=OfflineSettings(1.0, 1e30)) as made, pytest.raises(LearningDiverged, match="--offline-lr"):
        for _ in itertools.islice(made.iterations(), 20):
            pass


def test_a_gradient_that_is_not_finite_ends_the_training_in_whichever_minibatch_it_is(make):
    """RLlib would apply zeros or the largest float32 in its place, and go on."""
    observations = EPISODES[0].observations.copy()
    observations[0] = np.nan  # one step of 160, in one minibatch of six
    odd = dataclasses.replace(EPISODES[0], observations=observations)
    with make(settings=BC, episodes=[odd, *EPISODES[1:]]) as made, pytest.raises(LearningDiverged, match="a gradient"):
        next(made.iterations())


def test_a_policy_with_a_memory_is_refused(make):
    recurrent = dataclasses.replace(CONFIG, model_config='{"use_lstm": true, "lstm_cell_size": 4}')
    with pytest.raises(RecurrentUnsupported, match="Recurrent policies cannot learn"), make(recurrent):
        pass


def test_discounted_returns_are_scaled_and_of_equal_ones_the_variance_is_one():
    (one,) = [episode(0, length=3)]
    expected = np.var(2 * np.array([1 + 0.5 + 0.25, 1 + 0.5, 1]))
    assert learner.return_variance([one], 0.5, 2.0) == pytest.approx(expected)
    assert learner.return_variance([episode(0, length=1)], 0.5, 2.0) == 1


def test_groups_of_episodes_have_the_steps_at_least_except_for_the_last():
    assert [*learner.chunks([5, 1, 9, 2], [2, 0, 1, 3], 6)] == [[2], [0, 1], [3]]
