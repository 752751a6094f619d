"""The estimates, against examples computed by hand and exact values."""

import numpy as np
import pytest
from gymnasium import spaces

from pipeline.ope.judgement import Answer, Judge
from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.estimators import (
    Estimate,
    Values,
    combined,
    mean_return,
    per_decision,
    weighted_doubly_robust,
)
from pipeline.ope.statistics.fitted_q import fit
from pipeline.ope.statistics.logs import NOTHING, UNKNOWN, Logs
from pipeline.ope.statistics.weights import TargetActions, weigh
from tests.pipeline.ope.tabular import Tabular

TWO = ActionDistribution(spaces.Discrete(2))


def logs_of(actions, rewards, probability=0.5, explored=(True,), versions=3):
    """Episodes in which the first action has a probability; all steps have the same state."""
    lengths = np.array([len(each) for each in actions])
    steps = int(lengths.sum())
    following = np.arange(1, steps + 1)
    following[np.cumsum(lengths) - 1] = NOTHING
    return Logs(
        states=(np.zeros(steps, np.int64),),
        actions=np.concatenate(actions).astype(np.float64)[:, np.newaxis],
        rewards=np.concatenate(rewards).astype(np.float64),
        inputs=np.tile(np.log([probability, 1 - probability]), (steps, 1)),
        next_state=following,
        lengths=lengths,
        explored=np.resize(explored, len(lengths)),
        versions=np.resize(versions, len(lengths)),
    )


def target_of(logs, probability):
    """A target that takes the first action with a probability."""
    with np.errstate(divide="ignore"):
        log_prob = np.log([probability, 1 - probability])
    actions = np.broadcast_to(np.array([[0.0], [1.0]]), (logs.steps, 2, 1))
    weights = np.tile([probability, 1 - probability], (logs.steps, 1))
    taken = log_prob[logs.actions[:, 0].astype(int)]
    return TargetActions(actions, weights, np.tile(log_prob, (logs.steps, 1)), taken)


def test_per_decision_importance_sampling_is_the_weighted_mean_reward_of_each_step():
    logs = logs_of([[0, 1], [1], [0, 0]], [[1, 2], [3], [4, 5]])
    weights = weigh(logs, target_of(logs, 0.8), TWO)
    # 0.8 / 0.5 and 0.2 / 0.5, multiplied along each episode. The second one is over after a step, and keeps its weight.
    assert weights.after.tolist() == pytest.approx([1.6, 0.64, 0.4, 1.6, 2.56])
    assert weights.before.tolist() == pytest.approx([1, 1.6, 1, 1, 1.6])
    first = (1.6 * 1 + 0.4 * 3 + 1.6 * 4) / (1.6 + 0.4 + 1.6)
    second = (0.64 * 2 + 0.4 * 0 + 2.56 * 5) / (0.64 + 0.4 + 2.56)
    assert per_decision(logs, weights, 1.0).value == pytest.approx(first + second)
    assert per_decision(logs, weights, 0.5).value == pytest.approx(first + 0.5 * second)
    assert weights.effective_episodes(logs) == pytest.approx(3.6**2 / (0.64**2 + 0.4**2 + 2.56**2))


def test_the_doubly_robust_estimate_adds_the_weighted_errors_of_the_model():
    logs = logs_of([[0, 1], [1], [0, 0]], [[1, 2], [3], [4, 5]])
    weights = weigh(logs, target_of(logs, 0.8), TWO)
    q, v = np.array([3.0, 2, 1, 6, 4]), np.array([4.0, 3, 4, 4, 3])
    first = 4 + (1.6 * (1 - 3) + 0.4 * (3 - 1) + 1.6 * (4 - 6)) / 3.6
    second = (1.6 * 3 + 1.6 * 3) / 3.6 + (0.64 * (2 - 2) + 2.56 * (5 - 4)) / 3.6
    estimate = weighted_doubly_robust(logs, weights, Values(q, v), 1.0, 0.0)
    assert estimate.value == pytest.approx(first + second)
    without = weighted_doubly_robust(logs, weights, Values(np.zeros(5), np.zeros(5)), 1.0, 0.0)
    assert without.value == pytest.approx(per_decision(logs, weights, 1.0).value)


def test_greedy_and_sampled_episodes_of_a_version_are_one_mixture():
    logs = logs_of([[0, 0], [0, 0], [0, 1], [1, 0]], [[1, 1]] * 4, 0.75, explored=[False, False, True, True])
    weights = weigh(logs, target_of(logs, 0.6), TWO)
    first, both = 0.5 * 0.75 + 0.5, 0.5 * 0.75**2 + 0.5
    mixture = [first, both, first, both, first, 0.5 * 0.75 * 0.25, 0.5 * 0.25, 0.5 * 0.25 * 0.75]
    wanted = [0.6, 0.36, 0.6, 0.36, 0.6, 0.24, 0.4, 0.24]
    assert weights.after.tolist() == pytest.approx(np.divide(wanted, mixture))


def test_an_action_that_is_never_taken_leaves_the_support():
    logs = logs_of([[0, 0], [0]], [[1, 2], [5]], 0.9999)
    weights = weigh(logs, target_of(logs, 0.9), TWO)
    # The second action has the probability 0.0001, and the target takes it with 0.1.
    assert weights.lost.tolist() == [[False, True]] * 3
    assert weights.lost_share.tolist() == pytest.approx([0.1] * 3)
    assert weights.unsupported(logs, weights.active) == pytest.approx(0.1)
    assert not weigh(logs, target_of(logs, 0.9999), TWO).lost.any(), "it takes the action as seldom"
    exact = Values(np.array([3.0, 2, 5]), np.array([2.7, 1.8, 4.5]))
    low, high = (weighted_doubly_robust(logs, weights, exact, 1.0, beyond).value for beyond in (0.0, 10.0))
    assert high - low == pytest.approx(0.1 * 10 + (0.9 * 0.1) * 10 / 2, rel=0.01)


def test_greedy_episodes_of_a_version_that_disagrees_do_not_count_beside_sampled_ones():
    logs = logs_of([[0], [0], [1], [0]], [[1], [1], [0], [1]], 0.6, [False, False, True, True], [1, 1, 2, 2])
    weights = weigh(logs, target_of(logs, 0.0), TWO)
    assert weights.active.tolist() == [False, False, True, True]
    assert weights.after.tolist() == pytest.approx([0, 0, 2.5, 0])


def test_influences_are_the_first_order_effects_of_leaving_an_episode_out():
    tabular = Tabular("FrozenLake-v1", 100)
    logs = tabular.record(tabular.soft(0.05, 0.2), 200, np.random.default_rng(0))
    target = tabular.target(tabular.soft(0.05, 0.15), logs)

    def estimated(kept):
        part = logs.of(kept)
        weights = weigh(part, tabular.target(tabular.soft(0.05, 0.15), part), tabular.distribution)
        return per_decision(part, weights, 1.0)

    everything = estimated(np.ones(200, np.bool_))
    assert everything.influence.mean() == pytest.approx(0, abs=1e-12)
    for index in range(0, 200, 20):
        effect = everything.value - estimated(np.arange(200) != index).value
        assert effect * 199 == pytest.approx(everything.influence[index], rel=0.1, abs=0.002)
    assert len(target.taken) == logs.steps


def test_with_exact_values_the_estimate_of_a_deterministic_environment_is_exact():
    tabular = Tabular("CliffWalking-v1", 30)
    behaviour, policy = tabular.soft(0.5, 0.2), tabular.soft(0.5, 0.3)
    logs = tabular.record(behaviour, 100, np.random.default_rng(0))
    q, states = tabular.q(policy), logs.states[0][: logs.steps]
    values = Values(q[logs.t, states, logs.actions[:, 0].astype(int)], (policy[states] * q[logs.t, states]).sum(axis=1))
    weights = weigh(logs, tabular.target(policy, logs), tabular.distribution)
    estimate = weighted_doubly_robust(logs, weights, values, 1.0, 0.0)
    assert estimate.value == pytest.approx(tabular.value(policy))
    assert estimate.standard_error == pytest.approx(0, abs=1e-9)


def test_fitted_q_evaluation_finds_the_value_of_the_time_that_remains():
    tabular = Tabular("CliffWalking-v1", 15)
    policy = tabular.soft(0.5, 0.3)
    logs = tabular.record(tabular.soft(0.5, 0.5), 2000, np.random.default_rng(0))
    target = tabular.target(policy, logs)
    fitted = fit(logs, target, np.zeros((logs.steps, 4), np.bool_), [4], 1.0)
    assert fitted.estimates == pytest.approx([tabular.value(policy)] * 5, rel=0.03)
    exact = (policy * tabular.q(policy)).sum(axis=2)[logs.t, logs.states[0][: logs.steps]]
    late = logs.t > 10
    assert np.median(np.abs(fitted.values[0].v - exact)[late]) < 0.05 * np.abs(exact[late]).mean()
    discounted = fit(logs, target, np.zeros((logs.steps, 4), np.bool_), [4], 0.9)
    assert discounted.estimates == pytest.approx([tabular.value(policy, gamma=0.9)] * 5, rel=0.03)


def test_fitted_q_evaluation_of_observations_and_actions_of_numbers():
    """Two steps; the reward is 1 - (action - observation)^2, so following the observation returns 2."""
    generator = np.random.default_rng(0)
    episodes = 500
    states = generator.uniform(-1, 1, (2 * episodes, 1)).astype(np.float32)
    actions = generator.normal(0, 1, (2 * episodes, 1))
    following = np.arange(1, 2 * episodes + 1)
    following[1::2] = UNKNOWN  # the time ended, which no state shows
    logs = Logs(
        (states,),
        actions,
        1 - (actions - states)[:, 0] ** 2,
        np.zeros((2 * episodes, 2)),
        following,
        np.full(episodes, 2),
        np.ones(episodes, np.bool_),
        np.full(episodes, 3),
    )
    ones = np.ones((2 * episodes, 1))
    target = TargetActions(states[:, np.newaxis].astype(np.float64), ones, 0 * ones, np.full(2 * episodes, -np.inf))
    fitted = fit(logs, target, np.zeros((2 * episodes, 1), np.bool_), [None], 1.0)
    assert fitted.estimates == pytest.approx([2] * 5, abs=0.1)
    judge = Judge(logs, ActionDistribution(spaces.Box(-np.inf, np.inf, (1,))))
    judged = judge.judge(judge.value(target, has_weights=False))
    assert (judged.answer, judged.lower) == (Answer.CANNOT_TELL, None)
    (reason,) = judged.reasons
    assert reason.startswith("it takes greedy actions from a continuous space, which no recorded action equals: only ")


def test_the_variance_over_seeds_is_part_of_the_uncertainty():
    influences = np.array([1.0, -1, 2, -2])
    one, two = Estimate(3.0, influences), Estimate(5.0, influences)
    both = combined([one, two])
    assert both.value == 4
    assert both.variance == pytest.approx(one.variance + 1)


def test_the_recorded_value_is_the_mean_discounted_return():
    logs = logs_of([[0, 1], [1]], [[1, 2], [3]])
    assert mean_return(logs, 0.5).value == 2.5
    assert logs.returns_to_go(0.5).tolist() == [2, 2, 3]
