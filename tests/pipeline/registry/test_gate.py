"""The gate lets a challenger pass that is good enough and not worse, and says why when it doesn't."""

import numpy as np
import pytest

from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry.gate import Verdict


def evaluation(*returns):
    return Evaluation(tuple(map(float, returns)), first_seed=0)


SOLID = evaluation(*[500] * 20)
NOISY = evaluation(*np.random.default_rng(0).normal(480, 30, 20))


def test_an_equal_challenger_passes():
    assert Verdict(SOLID, SOLID, threshold=475, tolerance=0.0).objections == []


def test_without_a_champion_the_threshold_alone_decides():
    assert Verdict(SOLID, None, threshold=475, tolerance=0.02).objections == []
    assert Verdict(SOLID, None, threshold=501, tolerance=0.02).objections == [
        "its mean return 500.0 is below the threshold 501"
    ]


def test_without_a_threshold_the_champion_alone_decides():
    assert Verdict(NOISY, NOISY, threshold=None, tolerance=0.0).objections == []


def test_a_worse_challenger_is_refused_with_the_bound_and_what_was_allowed():
    verdict = Verdict(evaluation(*[450] * 20), SOLID, threshold=400, tolerance=0.02)
    assert verdict.objections == [
        (
            "it may be worse than the champion: the lower 95% bound of the mean difference is -50.0, "
            "below -10.0 (2% of the champion's mean)"
        )
    ]


def test_a_challenger_that_is_worse_by_chance_alone_needs_more_episodes_or_tolerance():
    assert NOISY.mean > 470
    assert Verdict(NOISY, SOLID, threshold=None, tolerance=0.02).objections
    assert not Verdict(NOISY, SOLID, threshold=None, tolerance=0.1).objections


def test_pairing_cancels_what_both_meet():
    """Returns vary by episode, the difference does not: so the bound is the difference."""
    base = np.random.default_rng(1).normal(-150, 80, 50)
    verdict = Verdict(evaluation(*base + 1), evaluation(*base), threshold=None, tolerance=0.0)
    assert verdict.difference_bound == pytest.approx(1.0)
    assert verdict.objections == []


def test_the_bound_is_students():
    """By hand: mean 1, standard deviation 1 of three differences, t(0.95, 2) = 2.919986."""
    verdict = Verdict(evaluation(0, 1, 2), evaluation(0, 0, 0), threshold=None, tolerance=0.0)
    assert verdict.difference_bound == pytest.approx(1 - 2.919986 / np.sqrt(3), abs=1e-6)


def test_negative_returns_have_a_tolerance_too():
    champion, challenger = evaluation(*[-100] * 5), evaluation(*[-101] * 5)
    assert Verdict(challenger, champion, threshold=None, tolerance=0.02).objections == []
    assert Verdict(challenger, champion, threshold=None, tolerance=0.005).objections
