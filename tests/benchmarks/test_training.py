"""What the comparison with stable-baselines3 reads, measures, keeps and reports."""

from itertools import count

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from benchmarks.training import report, results
from benchmarks.training.__main__ import plan
from benchmarks.training.peers import _sampled
from benchmarks.training.yardstick import measure
from benchmarks.training.zoo import ENV_IDS, Zoo
from pipeline.evaluation.player import Player
from serving.policy.noise import NoisePart

ZOO = Zoo("Any-v0", published=90.0, published_std=20.0, max_steps=1000, n_envs=1, wrapper=None, normalize=False, ppo={})


class _Peer:
    """A peer whose policy has the returns of a list, one for each evaluation."""

    max_steps = 560

    def __init__(self, steps, *returns):
        self.steps, self._returns = steps, iter(returns)

    def updates(self):
        return count(self.steps, self.steps)

    def mean_return(self):
        return next(self._returns)


def measured(steps, *returns):
    return measure(_Peer(steps, *returns), ZOO, _Peer.mean_return)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_settings_of_every_environment_are_arguments_of_ppo_with_schedules_as_functions(env_id):
    zoo = Zoo.of(env_id)

    assert {"policy", "n_steps"} <= set(zoo.ppo)
    assert not {"n_envs", "n_timesteps", "normalize", "env_wrapper", "published"} & set(zoo.ppo)
    assert all(not isinstance(value, str) for name, value in zoo.ppo.items() if name != "policy")


def test_a_linear_schedule_falls_to_zero():
    schedule = Zoo.of("CartPole-v1").ppo["learning_rate"]

    assert (schedule(1.0), schedule(0.5), schedule(0.0)) == (1e-3, 5e-4, 0.0)


def test_an_environment_of_minigrid_is_made_with_its_package_and_the_zoos_wrapper():
    zoo = Zoo.of("MiniGrid-DoorKey-5x5-v0")

    assert (zoo.gymnasium_id, zoo.wrapper) == (
        "minigrid:MiniGrid-DoorKey-5x5-v0",
        "minigrid.wrappers:FlatObsWrapper",
    )


def test_a_run_ends_at_the_first_evaluation_that_reaches_the_return():
    run = measured(40, 0.0, 87.9, 88.0, 89.9, 90.0)

    assert [(steps, mean) for _, steps, mean in run.curve] == [
        (0, 0.0),
        (40, 87.9),
        (80, 88.0),
        (120, 89.9),
        (160, 90.0),
    ]
    assert (run.env_steps, run.seconds) == (160, run.curve[-1][0])


def test_a_run_that_misses_the_return_ends_with_the_steps_of_its_settings_and_an_evaluation():
    run = measured(300, 0.0, 1.0, 2.0)

    assert run.env_steps == 600
    assert [steps for _, steps, _ in run.curve] == [0, 300, 600]


def test_contenders_with_updates_of_different_sizes_are_evaluated_equally_often():
    small, large = measured(8, *[0.0] * 15), measured(40, *[0.0] * 15)

    assert [steps for _, steps, _ in small.curve] == [steps for _, steps, _ in large.curve]


def test_runs_go_seed_by_seed_and_the_first_contender_alternates():
    runs = [(run["seed"], run["env_id"], run["peer"]) for run in plan(["yardstick"], ["Acrobot-v1", "Pendulum-v1"], 2)]

    assert runs == [
        (0, "Acrobot-v1", "ours"),
        (0, "Acrobot-v1", "stable-baselines3"),
        (0, "Pendulum-v1", "ours"),
        (0, "Pendulum-v1", "stable-baselines3"),
        (1, "Acrobot-v1", "stable-baselines3"),
        (1, "Acrobot-v1", "ours"),
        (1, "Pendulum-v1", "stable-baselines3"),
        (1, "Pendulum-v1", "ours"),
    ]


def test_a_run_is_added_to_the_file_or_replaces_itself(tmp_path):
    file = tmp_path / "results/training.json"
    first = next(plan(["yardstick"], ["Acrobot-v1"], 1))
    other = first | {"seed": 1}

    results.merge(file, "machine", first | {"seconds": 1.0})
    results.merge(file, "machine", other | {"seconds": 2.0})
    results.merge(file, "machine", first | {"seconds": 3.0})

    assert {(run["seed"], run["seconds"]) for run in results.read(file)} == {(0, 3.0), (1, 2.0)}


def _runs(ours, theirs):
    """Return runs of Acrobot-v1 by the seconds in which they reach -75 and -70; None for a run that ends at 50."""
    return [
        {
            "kind": report.YARDSTICK,
            "env_id": "Acrobot-v1",
            "peer": peer,
            "seed": seed,
            "steps_per_second": 40.0,
            "curve": [[0.0, 0, -500.0], [seconds / 2, 100, -75.0], [seconds, 200, -70.0]]
            if seconds
            else [[0.0, 0, -500.0], [50.0, 2000, -76.0]],
        }
        for peer, each in zip(report.PEERS, (ours, theirs), strict=True)
        for seed, seconds in enumerate(each)
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "row"),
    [
        ([2.0, 4.0, 3.0], [6.0, 5.0, 7.0], "2, 4, 3 | 6, 5, 7 | 0.50"),
        ([2.0, None, 3.0], [6.0, 5.0, None], "2, never, 3 | 6, 5, never | 0.50"),
        ([2.0, 4.0, 3.0], [6.0, None, None], "2, 4, 3 | 6, never, never | below 0.06"),
        ([None, None, 3.0], [6.0, 5.0, 7.0], "never, never, 3 | 6, 5, 7 | not reached"),
        ([None, None, 3.0], [None, None, 7.0], "never, never, 3 | never, never, 7 | neither reached it"),
    ],
)
def test_a_missed_return_counts_as_infinite_in_the_ratio_of_medians(ours, theirs, row):
    assert f"| Acrobot-v1 | seconds to -73.506 | {row} | at most 0.7 |" in report.tables(_runs(ours, theirs))


def test_the_table_leaves_out_a_seed_that_only_one_contender_has_run():
    assert "| Acrobot-v1 | seconds to -73.506 | 4 | 6 | 0.67 |" in report.tables(_runs([4.0, 1.0], [6.0]))


def test_the_table_has_the_seconds_to_a_return_within_the_error_of_an_evaluation():
    row = "| Acrobot-v1 | seconds to -75.33, one standard error less | 2 | 3 | 0.67 |"

    assert row in report.tables(_runs([4.0], [6.0]))


def test_the_picture_has_a_panel_for_each_environment():
    figure = report.picture(_runs([2.0], [None]))

    assert [axes.get_title() for axes in figure.axes] == list(ENV_IDS)


def test_the_policy_of_stable_baselines3_is_evaluated_with_the_statistics_of_training():
    pytest.importorskip("stable_baselines3", reason="make bench-training installs it")
    from benchmarks.training.peers import StableBaselines

    peer = StableBaselines(Zoo.of("Acrobot-v1"), seed=0)
    next(peer.updates())
    statistics = peer.model.get_vec_normalize_env().obs_rms
    mean, scale, episodes = statistics.mean.copy(), (statistics.var + 1e-8) ** 0.5, 200
    observations = [peer.environment.observation_space.sample() for _ in range(episodes)]
    actions, _ = peer.player().act(observations, [{}] * episodes)
    normalized = np.clip((np.array(observations) - mean) / scale, -10, 10).astype(np.float32)

    assert statistics.mean.tolist() == mean.tolist()
    assert actions == peer.model.policy.predict(normalized, deterministic=True)[0].tolist()
    peer.close()


def test_an_evaluation_with_sampled_actions_repeats_itself_and_leaves_the_random_numbers_of_training_alone():
    pytest.importorskip("stable_baselines3", reason="make bench-training installs it")
    from benchmarks.training.peers import StableBaselines

    class Sampled(Zoo):
        is_sampled = True

    peer = StableBaselines(Sampled.of("CartPole-v1"), seed=0)
    before, observations = torch.random.get_rng_state(), [np.zeros(4, np.float32)] * 200
    first, second = (peer.player().act(observations, [{}] * 200)[0] for _ in range(2))
    player = peer.player()
    steps = [player.act(observations, [{}] * 200)[0] for _ in range(2)]

    assert set(first) == {0, 1}
    assert first == second == steps[0] != steps[1]
    assert torch.equal(before, torch.random.get_rng_state())
    peer.close()


def test_our_policy_samples_its_actions_in_evaluations_where_the_zoo_does():
    player = Player(Box(-1, 1, (4,)), Discrete(2), lambda feeds: {"action": feeds["noise"].argmax(axis=1)})
    sampled = _sampled(player, [NoisePart("gumbel", 2)])
    steps = [sampled.act([np.zeros(4, np.float32)] * 200, [{}] * 200)[0] for _ in range(2)]

    assert set(steps[0]) == {0, 1}
    assert steps[0] != steps[1]
