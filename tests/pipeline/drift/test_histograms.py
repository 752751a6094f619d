import numpy as np
import pytest
from scipy import stats

from pipeline.drift.histograms import FLOOR, Histogram
from pipeline.reference.dimensions import Dimension

NUMBER, GEAR = Dimension("0"), Dimension("gear", 3, 1)
HALVES = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], np.float64)


def test_the_distance_of_numbers_is_the_wasserstein_distance():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(size=(2, 500)), generator.normal(1, 2, (2, 500))]).astype(np.float32)
    histogram = Histogram.of_all_steps(values, np.array([500] * 4), NUMBER, 2.0)
    _, distance = histogram.distances(HALVES)
    expected = stats.wasserstein_distance(values[:2].ravel(), values[2:].ravel()) / 2
    assert distance == pytest.approx([expected] * 2, rel=0.03)


def test_episodes_count_by_their_length():
    values = np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.float32)
    histogram = Histogram.of_all_steps(values, np.array([30, 10, 5, 5]), NUMBER, 1.0)
    _, distance = histogram.distances(HALVES[:1])
    assert distance == pytest.approx([0.25])


def test_the_distance_of_categories_is_the_share_that_differs():
    values = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    histogram = Histogram.of_all_steps(values, np.array([10] * 4), GEAR, 1.0)
    psi, distance = histogram.distances(HALVES[:1])
    assert distance == pytest.approx([0.5])
    assert psi == pytest.approx([2 * 0.5 * np.log((0.5 + FLOOR) / FLOOR)])


def test_the_first_step_of_each_episode_counts_once():
    histogram = Histogram.of_first_steps(np.array([1, 1, 1, 3], np.float32), GEAR, 1.0)
    _, distance = histogram.distances(HALVES[:1])
    assert distance == pytest.approx([0.5])
    numbers = Histogram.of_first_steps(np.array([0, 0, 0, 8], np.float32), NUMBER, 2.0)
    assert numbers.distances(HALVES[:1])[1] == pytest.approx([2.0])


def test_the_stability_index_of_equal_groups_of_many_values_is_small_and_of_disjoint_ones_large():
    generator = np.random.default_rng(1)
    same = generator.normal(size=(4, 2000)).astype(np.float32)
    apart = same + np.array([0, 0, 9, 9], np.float32)[:, None]
    for values, low, high in ((same, 0, 0.02), (apart, 5, 20)):
        psi, _ = Histogram.of_all_steps(values, np.array([2000] * 4), NUMBER, 1.0).distances(HALVES[:1])
        assert low <= psi[0] <= high


def test_a_constant_has_no_distance():
    histogram = Histogram.of_all_steps(np.full((4, 3), 7, np.float32), np.array([5, 9, 2, 1]), NUMBER, 1.0)
    assert [each.tolist() for each in histogram.distances(HALVES)] == [[0, 0], [0, 0]]
