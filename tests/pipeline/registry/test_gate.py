"""A challenger passes if it reaches the threshold and is not worse than the champion; else the gate has objections."""

import numpy as np
import pytest

from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry.gate import Gate, Verdict


def evaluation(*returns):
    return Evaluation(tuple(map(float, returns)), first_seed=0)


SOLID = evaluation(*[500] * 20)
NOISY = evaluation(*np.random.default_rng(0).normal(480, 30, 20))


def test_an_equal_challenger_passes():
    assert Verdict(SOLID, SOLID, threshold=475, tolerance=0.0).objections == []


def test_without_a_champion_only_the_threshold_decides():
    assert Verdict(SOLID, None, threshold=475, tolerance=0.02).objections == []
    assert Verdict(SOLID, None, threshold=501, tolerance=0.02).objections == [
        "its mean return 500.0 is below the threshold 501"
    ]


def test_without_a_threshold_only_the_champion_decides():
    assert Verdict(NOISY, NOISY, threshold=None, tolerance=0.0).objections == []


def test_the_objection_to_a_worse_challenger_states_the_bound_and_the_allowed_loss():
    verdict = Verdict(evaluation(*[450] * 20), SOLID, threshold=400, tolerance=0.02)
    assert verdict.objections == [
        (
            "it may be worse than the champion: the lower 95% bound of the mean difference is -50.0, "
            "below -10.0 (2% of the champion's mean)"
        )
    ]


def test_a_noisy_challenger_passes_with_a_higher_tolerance():
    assert NOISY.mean > 470
    assert Verdict(NOISY, SOLID, threshold=None, tolerance=0.02).objections
    assert not Verdict(NOISY, SOLID, threshold=None, tolerance=0.1).objections


def test_pairing_cancels_the_variance_of_the_episodes():
    base = np.random.default_rng(1).normal(-150, 80, 50)
    verdict = Verdict(evaluation(*base + 1), evaluation(*base), threshold=None, tolerance=0.0)
    assert verdict.difference_bound == pytest.approx(1.0)
    assert verdict.objections == []


def test_the_bound_is_that_of_students_t_distribution():
    # The three differences have mean 1 and standard deviation 1; t(0.95, 2) = 2.919986.
    verdict = Verdict(evaluation(0, 1, 2), evaluation(0, 0, 0), threshold=None, tolerance=0.0)
    assert verdict.difference_bound == pytest.approx(1 - 2.919986 / np.sqrt(3), abs=1e-6)


def test_the_tolerance_applies_to_negative_returns():
    champion, challenger = evaluation(*[-100] * 5), evaluation(*[-101] * 5)
    assert Verdict(challenger, champion, threshold=None, tolerance=0.02).objections == []
    assert Verdict(challenger, champion, threshold=None, tolerance=0.005).objections


def test_one_episode_is_not_enough_to_compare_with_a_champion():
    verdict = Verdict(evaluation(500), evaluation(400), threshold=None, tolerance=0.5)
    assert verdict.difference_bound == -np.inf
    assert len(verdict.objections) == 1


@pytest.mark.parametrize(("mean", "passes"), [(491, True), (489, False), (450, False)])
def test_the_default_gate_allows_a_loss_of_2_percent(mean, passes):
    verdict = Verdict(evaluation(*[mean] * 20), SOLID, threshold=None, tolerance=Gate().tolerance)
    assert (verdict.objections == []) == passes


@pytest.mark.parametrize("threshold", [None, 475])
@pytest.mark.parametrize("champion", [None, SOLID])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_challenger_without_a_finite_mean_never_passes(bad, champion, threshold):
    verdict = Verdict(evaluation(500, bad, 500), champion, threshold, tolerance=0.02)
    assert verdict.objections == [f"its mean return is {bad}, expected a finite number"]


def test_a_champion_without_a_finite_mean_cannot_be_compared_with():
    verdict = Verdict(SOLID, evaluation(500, np.nan), threshold=475, tolerance=0.02)
    assert verdict.objections == ["it cannot be compared: the champion's mean return is nan"]


@pytest.mark.parametrize("threshold", [np.nan, 501])
def test_a_threshold_that_is_not_reached_is_an_objection(threshold):
    assert len(Verdict(SOLID, None, threshold, tolerance=0.02).objections) == 1
