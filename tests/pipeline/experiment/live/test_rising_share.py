"""The controller's rule for the share depends on the returns; simulated, it makes no false decision more likely."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.experiment.live.controller import may_rise
from pipeline.experiment.live.figures import Figures, _judged
from pipeline.experiment.live.settings import Settings
from pipeline.experiment.live.state import Live
from pipeline.experiment.statistics.decision import Decision
from pipeline.experiment.statistics.episodes import Episodes
from serving.experiments.experiment import Experiment, Step
from tests.pipeline.experiment.live.world import TARGET
from tests.pipeline.experiment.simulation import MEAN, cartpole, pendulum
from tests.pipeline.experiment.test_simulated import KINDS, THOUSAND, assert_at_most, rules_of

SHARES, LOOK, BUDGET = (0.05, 0.2, 0.5), 50, 4000


def live_of(rules) -> Live:
    experiment = Experiment("id", "salt", 1, 2, (Step(0.0, SHARES[0]),), 1e12)
    return Live(TARGET, experiment, Settings("uri", rules, SHARES, 0.0, "run", 0.0, "me"))


def simulate(returns, rules, rng, difference=0.0) -> tuple[Decision, float]:
    """Run an experiment as a controller does that looks after each 50 episodes; return the decision and the share."""
    acted = {"served": 1.0, "recently_served": 1.0, "settled_served": 1.0, "champion_served": 1.0}
    live, base = live_of(rules), Figures(1.0, SHARES[0], **acted)
    challenger, share, got, at_share = np.empty(0, bool), np.empty(0), np.empty(0), 0
    while True:
        now = live.experiment.shares[-1].share
        arm = rng.random(LOOK) < now
        challenger, share = np.append(challenger, arm), np.append(share, np.full(LOOK, now))
        got, at_share = np.append(got, returns(rng, LOOK) + difference * arm), at_share + int(arm.sum())
        episodes = Episodes(challenger, share, got, np.ones(len(got), bool))
        found = _judged(replace(base, settled_at_share=at_share), episodes, live)
        if found.decision != Decision.CONTINUE:
            return found.decision, now
        if may_rise(live, found):
            live, at_share = live.raised(1.0), 0


@pytest.mark.parametrize("experiments", [10, THOUSAND])
@pytest.mark.parametrize("returns", KINDS)
def test_equal_arms_are_rarely_told_apart_while_the_controller_raises_the_share(returns, experiments):
    rules, rng = rules_of(returns, budget=BUDGET), np.random.default_rng(11)
    found = Counter(simulate(returns, rules, rng) for _ in range(experiments))
    decided = Counter()
    for (decision, _), count in found.items():
        decided[decision] += count
    assert_at_most(rules.alpha, decided[Decision.PROMOTE], experiments)
    assert_at_most(rules.alpha, decided[Decision.ROLL_BACK], experiments)
    reached = sum(count for (_, share), count in found.items() if share == SHARES[-1])
    assert reached > 0.8 * experiments, "two standard errors are seen by chance only for a while"


@pytest.mark.parametrize("experiments", [10, THOUSAND])
@pytest.mark.parametrize("returns", [cartpole, pendulum])
def test_a_disaster_is_rolled_back_at_the_first_share(returns, experiments):
    rules, rng = rules_of(returns, 0.02 * abs(MEAN[returns]), BUDGET), np.random.default_rng(12)
    found = Counter(simulate(returns, rules, rng, -abs(MEAN[returns]) / 2) for _ in range(experiments))
    assert found[Decision.ROLL_BACK, SHARES[0]] >= 0.98 * experiments
