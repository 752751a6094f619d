"""What experiments decide, simulated: the shares of false and of right decisions, and after how many episodes.

`make test` runs small numbers of experiments, `make test-long` a thousand of each. Each claim that an error has a
probability of at most alpha fails if the 95% interval of Clopper and Pearson for the count lies above alpha.
"""

from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest

from pipeline.experiment.plan import Baseline, plan
from pipeline.experiment.statistics.decision import Decision, first_decision
from pipeline.experiment.statistics.episodes import Assignments, Episodes
from pipeline.experiment.statistics.evidence import Evidence, evidence
from pipeline.experiment.statistics.rules import Rules
from tests.pipeline.experiment.simulation import MEAN, STD, Simulated, cartpole, interval, pendulum

KINDS = [pytest.param(cartpole, id="cartpole"), pytest.param(pendulum, id="pendulum")]
THOUSAND = pytest.param(1000, marks=pytest.mark.long)


def rules_of(returns, margin=0.0, budget=2000, share=0.5, **options) -> Rules:
    return Rules(margin, budget, MEAN[returns], STD[returns], horizon=budget * share * (1 - share), **options)


def assert_at_most(alpha: float, count: int, total: int) -> None:
    low, high = interval(count, total)
    print(f"{count} of {total}: 95% interval {low:.1%} to {high:.1%}")  # noqa: T201 - the figures of the documents
    assert low <= alpha


@pytest.mark.parametrize("experiments", [100, THOUSAND])
@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("returns", KINDS)
def test_equal_arms_are_rarely_told_apart_though_one_looks_after_each_episode(returns, share, experiments):
    budget = 5000 if experiments == 1000 else 1000
    rules = rules_of(returns, budget=budget, share=share)
    found = Simulated(returns, 0.0, share, budget).decisions(rules, experiments)
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)
    assert_at_most(rules.alpha, found[Decision.ROLL_BACK], experiments)
    assert_at_most(rules.ratio_alpha, found[Decision.BLOCKED], experiments)


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
def test_equal_arms_are_rarely_told_apart_while_the_share_rises(returns, experiments):
    share = np.repeat([0.02, 0.1, 0.5], [3000, 1500, 1000])
    rules = rules_of(returns, budget=len(share))
    found = Simulated(returns, 0.0, share, len(share)).decisions(rules, experiments, seed=9)
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)
    assert_at_most(rules.alpha, found[Decision.ROLL_BACK], experiments)
    assert_at_most(rules.ratio_alpha, found[Decision.BLOCKED], experiments)


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
def test_a_challenger_worse_by_the_margin_is_rarely_promoted(returns, experiments):
    margin = 0.1 * abs(MEAN[returns])
    rules = rules_of(returns, margin, budget=1000)
    found = Simulated(returns, -margin, 0.5, 1000).decisions(rules, experiments, seed=1)
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_challenger_that_fails_rarely_is_rarely_promoted(share, experiments):
    """The champion always has 500 and the challenger fails in 2% of its episodes, which costs the margin."""
    rules, size, rng = Rules(10.0, 6000, 500.0, horizon=6000 * share * (1 - share)), 6000, np.random.default_rng(2)
    found = Counter()
    for _ in range(experiments):
        challenger = rng.random(size) < share
        returns = np.where(challenger & (rng.random(size) < 0.02), 0.0, 500.0)
        each = Episodes(challenger, np.full(size, share), returns, np.ones(size, bool))
        found[first_decision(evidence(each, rules), rules)[1]] += 1
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)


@pytest.mark.parametrize("experiments", [5, THOUSAND])
@pytest.mark.parametrize(("returns", "limits"), [(cartpole, (0.0, 500.0)), (pendulum, (-2000.0, 0.0))])
def test_known_bounds_of_the_return_give_few_false_decisions(returns, limits, experiments):
    """Looked at after each 20th episode, because these bounds take longer to compute."""
    rules, rng, found = rules_of(returns, budget=2000, return_bounds=limits), np.random.default_rng(3), Counter()
    for _ in range(experiments):
        sums = evidence(Simulated(returns, 0.0, 0.5, 2000).episodes_of(rng), rules)
        looks = Evidence(*(values[19::20] for values in astuple(sums)))
        found[first_decision(looks, rules)[1]] += 1
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)
    assert_at_most(rules.alpha, found[Decision.ROLL_BACK], experiments)


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
def test_a_challenger_worse_by_half_is_rolled_back_within_200_of_its_episodes(returns, experiments):
    rules = rules_of(returns, 0.02 * abs(MEAN[returns]), budget=3000, share=0.1)
    kind, rng = Simulated(returns, -abs(MEAN[returns]) / 2, 0.1, 3000), np.random.default_rng(4)
    runs = [kind.run(rules, rng) for _ in range(experiments)]
    used = [each.challenger[:count].sum() for decision, count, each in runs if decision == Decision.ROLL_BACK]
    print(f"{len(used)} of {experiments} rolled back, median {np.median(used):.0f}, at most {max(used)}")  # noqa: T201
    assert np.median(used) <= 200
    assert interval(len(used), experiments)[1] >= 0.98


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
@pytest.mark.parametrize("better", [0.0, 2.0])
def test_an_equal_and_a_better_challenger_are_promoted_within_the_budget_of_the_plan(returns, better, experiments):
    baseline = Baseline(MEAN[returns], STD[returns])
    planned = plan(baseline, (0.02 if experiments == 1000 else 0.1) * abs(baseline.mean))
    error = baseline.std / planned.promotion[-1].information ** 0.5
    kind = Simulated(returns, better * error, 0.5, planned.rules.budget)
    found = kind.decisions(planned.rules, experiments, seed=5)
    low, high = interval(found[Decision.PROMOTE], experiments)
    print(f"{found[Decision.PROMOTE]} of {experiments} promoted: 95% interval {low:.1%} to {high:.1%}")  # noqa: T201
    assert high >= 0.8


def traffic(rng, size, duration) -> np.ndarray:
    """Return when episodes begin and are reported, in seconds: two shapes (size,)."""
    began = np.sort(rng.uniform(0, 2000, size))
    return began, began + duration


def test_short_episodes_that_report_first_do_not_bias_the_difference():
    """The arms have equal means, but half of the challenger's episodes are short and have low returns."""
    rng, size = np.random.default_rng(6), 20_000
    challenger = rng.random(size) < 0.5
    returns = np.where(challenger, np.where(rng.random(size) < 0.5, 50.0, 450.0), 250.0) + rng.normal(0, 10, size)
    began, reported = traffic(rng, size, returns)
    assigned = Assignments(began, challenger, np.full(size, 0.5), reported, returns)
    now, rules = 500.0, Rules(25.0, size, 250.0)
    early = reported <= now
    naive = returns[early & challenger].mean() - returns[early & ~challenger].mean()
    settled = evidence(assigned.settled(now, 480.0, 0.0), rules)
    assert naive < -50
    assert abs(settled.difference[-1]) < 3 * (settled.variance[-1] / settled.information[-1]) ** 0.5
    ends = evidence(assigned.settled(2500.0, 480.0, 0.0), rules)
    assert first_decision(ends, rules)[1] == Decision.PROMOTE


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
def test_clients_that_never_report_cause_no_false_decisions(returns, experiments):
    rules, rng, found = rules_of(returns, budget=1000), np.random.default_rng(7), Counter()
    for _ in range(experiments):
        each = Simulated(returns, 0.0, 0.5, 1000).episodes_of(rng)
        reported = rng.random(1000) >= 0.2
        each = Episodes(
            each.challenger, each.share, np.where(reported, each.returns, rules.unreported_return), reported
        )
        found[first_decision(evidence(each, rules), rules)[1]] += 1
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)
    assert_at_most(rules.alpha, found[Decision.ROLL_BACK], experiments)
    assert_at_most(rules.ratio_alpha, found[Decision.BLOCKED], experiments)


@pytest.mark.parametrize("experiments", [20, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
def test_a_challenger_whose_worst_episodes_crash_their_clients_is_not_promoted(returns, experiments):
    """It is worse by a fifth, and the worse half of these losses is not seen because the clients are gone."""
    rules, rng, found = rules_of(returns, 0.02 * abs(MEAN[returns]), 4000), np.random.default_rng(8), Counter()
    for _ in range(experiments):
        each = Simulated(returns, -abs(MEAN[returns]) / 5, 0.5, 4000).episodes_of(rng)
        worst = each.returns < np.quantile(each.returns[each.challenger], 0.2)
        reported = ~(each.challenger & worst)
        each = Episodes(
            each.challenger, each.share, np.where(reported, each.returns, rules.unreported_return), reported
        )
        found[first_decision(evidence(each, rules), rules)[1]] += 1
    assert_at_most(rules.alpha, found[Decision.PROMOTE], experiments)
    assert found[Decision.ROLL_BACK] + found[Decision.BLOCKED] > 0.9 * experiments
