"""Scores, the evidence in both forms, the bounds, the sample-ratio test, and the decision."""

from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import betaln

from pipeline.experiment.errors import EpisodeInvalid, RulesInvalid
from pipeline.experiment.statistics.decision import (
    LOST_EPISODES,
    Decision,
    bounds,
    decide,
    decisions,
    first_decision,
    variance,
)
from pipeline.experiment.statistics.episodes import Assignments, Episodes
from pipeline.experiment.statistics.evidence import evidence, predictions, weighted_scores
from pipeline.experiment.statistics.rules import Rules
from pipeline.experiment.statistics.sample_ratio import CONCENTRATION, log_e_values
from pipeline.experiment.statistics.stream import EvidenceStream
from tests.pipeline.experiment.simulation import MEAN, Simulated, pendulum

SHARES = np.repeat([0.01, 0.1, 0.5], 400)
RULES = Rules(margin=3.2, budget=1200, expected_return=-160.0)


def episodes(seed=0, share=SHARES, unreported=0.2) -> Episodes:
    rng = np.random.default_rng(seed)
    found = Simulated(pendulum, -20.0, share, len(share)).episodes_of(rng)
    return replace(found, reported=rng.random(len(share)) >= unreported)


def constant(champion, challenger, count, share=0.5) -> Episodes:
    arm = np.arange(count) % round(1 / share) == 0
    return Episodes(arm, np.full(count, share), np.where(arm, challenger, champion).astype(float), np.ones(count, bool))


def test_a_weighted_score_is_the_score_of_aipw_times_p_times_1_minus_p():
    each = episodes()
    f0, f1 = predictions(each, -160.0)
    a, p, r = each.challenger, each.share, each.returns
    xi = f1 - f0 + a * (r - f1) / p - (1 - a) * (r - f0) / (1 - p)
    assert weighted_scores(each, f0, f1) == pytest.approx(p * (1 - p) * xi)


def test_a_prediction_depends_on_earlier_episodes_only():
    each = episodes()
    later = np.arange(len(each)) >= 700
    changed = replace(each, returns=np.where(later, 1e6, each.returns), challenger=each.challenger ^ later)
    for before, after in zip(predictions(each, 0.0), predictions(changed, 0.0), strict=True):
        assert (before[:701] == after[:701]).all()
        assert (before[702:] != after[702:]).all()


def test_predictions_approach_the_mean_returns_of_the_arms():
    each = Simulated(pendulum, -80.0, 0.5, 4000).episodes_of(np.random.default_rng(1))
    f0, f1 = predictions(each, 0.0)
    assert f0[-1] == pytest.approx(MEAN[pendulum], abs=8)
    assert f1[-1] == pytest.approx(MEAN[pendulum] - 80, abs=8)


def test_the_estimated_difference_is_unbiased_under_shares_that_rise():
    rng = np.random.default_rng(2)
    found = [
        evidence(Simulated(pendulum, -20.0, SHARES, len(SHARES)).episodes_of(rng), RULES).difference[-1]
        for _ in range(200)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(-20, abs=3 * error)


def test_the_estimated_variance_is_that_of_the_difference_times_the_information():
    rng = np.random.default_rng(3)
    found = [evidence(Simulated(pendulum, 0.0, 0.3, 500).episodes_of(rng), RULES) for _ in range(300)]
    spread = np.var([each.difference[-1] for each in found]) * found[0].information[-1]
    assert np.mean([each.variance[-1] for each in found]) == pytest.approx(spread, rel=0.2)
    assert spread == pytest.approx(99**2, rel=0.25)


def test_the_estimated_variance_is_the_mean_square_about_the_weighted_difference():
    each = episodes()
    found, f = evidence(each, RULES), predictions(each, RULES.expected_return)
    weight, score = each.share * (1 - each.share), weighted_scores(each, *f)
    about = score - weight * (score.sum() / weight.sum())
    assert found.variance[-1] == pytest.approx((about**2).sum() / weight.sum())


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_no_arm_is_believed_to_vary_less_than_the_other(arm):
    rng = np.random.default_rng(9)
    each = Simulated(pendulum, 0.0, 0.1, 2000).episodes_of(rng)
    constant_arm = each.challenger if arm == "challenger" else ~each.challenger
    found = evidence(replace(each, returns=np.where(constant_arm, MEAN[pendulum], each.returns)), RULES)
    assert variance(found, RULES)[-1] >= 0.8 * 99**2 + LOST_EPISODES * 160**2 / found.challengers[-1]


def test_the_stream_has_the_evidence_of_the_batch_after_each_episode():
    each, stream = episodes(), EvidenceStream(RULES)
    batch = evidence(each, RULES)
    found = []
    for row in zip(*(values.tolist() for values in astuple(each)), strict=True):
        stream.add(**dict(zip(("challenger", "share", "returned", "reported"), row, strict=True)))
        found.append(astuple(stream.evidence))
    assert np.transpose(found) == pytest.approx(np.array(astuple(batch)), rel=1e-9, abs=1e-9)
    assert decide(stream.evidence, RULES) == decisions(batch, RULES)[-1]


def test_only_episodes_count_that_were_assigned_before_the_wait():
    times = np.array([30.0, 10.0, 20.0])
    assigned = Assignments(times, np.array([True, False, True]), np.full(3, 0.5), times + 5, np.array([3.0, 1.0, 2.0]))
    assert list(assigned.settled(31, 10, -1.0).returns) == [1.0, 2.0]
    assert list(assigned.settled(41, 10, -1.0).returns) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("reported_s", [np.inf, 10.1])
def test_an_episode_that_is_not_reported_in_time_has_the_default_return(reported_s):
    assigned = Assignments(np.zeros(1), np.array([True]), np.array([0.5]), np.array([reported_s]), np.array([7.0]))
    settled = assigned.settled(20, 10, -1.0)
    assert settled.returns == [-1.0]
    assert not settled.reported[0]


def test_a_later_look_adds_episodes_and_changes_none():
    rng = np.random.default_rng(4)
    times = rng.uniform(0, 1000, 500)
    reported = np.where(rng.random(500) < 0.8, times + rng.exponential(50, 500), np.inf)
    assigned = Assignments(times, rng.random(500) < 0.5, np.full(500, 0.5), reported, rng.normal(size=500))
    looks = [assigned.settled(now, 60, 0.0) for now in (200, 500, 1100)]
    for earlier, later in pairwise(looks):
        assert len(earlier) < len(later)
        for name in ("challenger", "share", "returns", "reported"):
            assert (getattr(earlier, name) == getattr(later, name)[: len(earlier)]).all()


def test_there_are_no_bounds_before_each_arm_has_the_minimum_of_episodes():
    found = evidence(constant(500.0, 0.0, 400, share=0.1), replace(RULES, expected_return=500.0))
    enough = np.minimum(found.champions, found.challengers) >= RULES.minimum_episodes
    low, high = bounds(found, RULES)
    assert (np.isfinite(low) == enough).all()
    assert (np.isfinite(high) == enough).all()


@pytest.mark.parametrize(("challenger", "decision"), [(500.0, Decision.PROMOTE), (499.0, Decision.PROMOTE)])
def test_arms_without_any_variance_are_not_decided_at_once(challenger, decision):
    rules = Rules(margin=10.0, budget=1000, expected_return=500.0)
    count, found = first_decision(evidence(constant(500.0, challenger, 1000), rules), rules)
    assert found == decision
    assert count > 300


def test_returns_that_are_all_0_are_never_decided():
    rules = Rules(margin=1.0, budget=400)
    found = evidence(constant(0.0, 0.0, 500), rules)
    assert first_decision(found, rules) == (400, Decision.INCONCLUSIVE)


def test_with_known_bounds_of_the_return_the_bounds_are_wider_and_valid():
    each = Simulated(pendulum, -20.0, 0.5, 3000).episodes_of(np.random.default_rng(5))
    each = replace(each, returns=np.maximum(each.returns, -1000.0))
    exact = replace(RULES, return_bounds=(-1000.0, 0.0), expected_std=99.0, budget=3000)
    found = evidence(each, exact)
    (low, high), (asymptotic_low, asymptotic_high) = bounds(found, exact), bounds(found, replace(RULES, budget=3000))
    assert low[-1] < asymptotic_low[-1] < -20 < asymptotic_high[-1] < high[-1]
    assert high[-1] - low[-1] < 2.5 * (asymptotic_high[-1] - asymptotic_low[-1])


def test_the_e_value_is_the_bayes_factor_of_lindon_and_malek():
    each = episodes(share=np.full(500, 0.3))
    k, n = (each.challenger & each.reported).sum(), each.reported.sum()
    prior = CONCENTRATION * 0.3, CONCENTRATION * 0.7
    expected = betaln(prior[0] + k, prior[1] + n - k) - betaln(*prior) - k * np.log(0.3) - (n - k) * np.log(0.7)
    assert log_e_values(each)[-1] == pytest.approx(expected)


def test_the_sample_ratio_test_multiplies_the_e_values_of_the_shares():
    each = episodes()
    parts = [Episodes(*(values[each.share == share] for values in astuple(each))) for share in (0.01, 0.1, 0.5)]
    assert log_e_values(each)[-1] == pytest.approx(sum(log_e_values(part)[-1] for part in parts))


def test_unreported_episodes_of_one_arm_block_a_promotion():
    each = Simulated(pendulum, 200.0, 0.5, 3000).episodes_of(np.random.default_rng(6))
    missing = each.challenger & (np.arange(3000) % 4 == 0)
    found = evidence(replace(each, reported=~missing), RULES)
    assert decisions(found, RULES)[-1] == Decision.BLOCKED


def test_a_worse_challenger_is_rolled_back_although_its_arm_reports_less():
    each = Simulated(pendulum, -200.0, 0.5, 3000).episodes_of(np.random.default_rng(7))
    missing = each.challenger & (np.arange(3000) % 4 == 0)
    found = evidence(replace(each, reported=~missing), RULES)
    assert decisions(found, RULES)[-1] == Decision.ROLL_BACK


def test_an_undecided_experiment_ends_with_its_budget():
    rules = replace(RULES, margin=0.0, budget=200)
    found = evidence(Simulated(pendulum, 0.0, 0.5, 300).episodes_of(np.random.default_rng(8)), rules)
    assert first_decision(found, rules) == (200, Decision.INCONCLUSIVE)
    assert decisions(found, rules)[198] == Decision.CONTINUE


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("share", 1.0, "Episode 2 of the experiment cannot be counted: its share is 1, expected one between 0 and 1."),
        (
            "returns",
            np.nan,
            "Episode 2 of the experiment cannot be counted: its return is nan, expected a finite number.",
        ),
    ],
)
def test_an_episode_that_says_nothing_is_rejected(name, value, message):
    each = constant(1.0, 1.0, 4)
    values = getattr(each, name).copy()
    values[2] = value
    with pytest.raises(EpisodeInvalid) as raised:
        replace(each, **{name: values})
    assert str(raised.value) == message
    stream = EvidenceStream(RULES)
    for row in zip(*(getattr(replace(each), part) for part in ("challenger", "share", "returns")), strict=True):
        stream.add(challenger=bool(row[0]), share=row[1], returned=row[2])
    with pytest.raises(EpisodeInvalid):
        stream.add(challenger=True, **{"share": 0.5, "returned": 1.0, {"returns": "returned"}.get(name, name): value})


def test_a_return_outside_its_known_bounds_is_rejected_in_both_forms():
    rules = Rules(margin=1.0, budget=10, expected_return=1.0, return_bounds=(0.0, 1.0))
    with pytest.raises(EpisodeInvalid, match=r"its return is 2, and the rules say that returns are from 0 to 1"):
        evidence(constant(1.0, 2.0, 4), rules)
    with pytest.raises(EpisodeInvalid, match=r"its return is 2, and the rules say that returns are from 0 to 1"):
        EvidenceStream(rules).add(challenger=True, share=0.5, returned=2.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"margin": -1.0},
        {"budget": 0},
        {"alpha": 0.5},
        {"ratio_alpha": 0.0},
        {"minimum_episodes": 1},
        {"default_return": -159.0},
        {"return_bounds": (1.0, 0.0)},
        {"return_bounds": (-200.0, 0.0)},
    ],
)
def test_rules_out_of_their_range_are_rejected(changes):
    with pytest.raises(RulesInvalid, match=next(iter(changes))):
        replace(RULES, **changes)
