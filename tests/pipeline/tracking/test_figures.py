"""The figures of a run are drawn from its returns, also before the first evaluation."""

import numpy as np

from pipeline.tracking import figures


def test_the_learning_curve_shows_training_evaluation_and_target():
    figure = figures.learning_curve([(1000, 20.0), (2000, 30.0)], [(2000, 40.0)], 475.0, "PPO")
    training, evaluation, target = figure.axes[0].lines
    assert np.array_equal(training.get_xydata(), [[1000, 20], [2000, 30]])
    assert np.array_equal(evaluation.get_xydata(), [[2000, 40]])
    assert set(target.get_ydata()) == {475.0}


def test_before_the_first_evaluation_the_curve_is_empty():
    figure = figures.learning_curve([], [], None, "PPO")
    assert all(not len(line.get_xydata()) for line in figure.axes[0].lines)


def test_the_distribution_names_mean_minimum_and_maximum():
    (axes,) = figures.distribution([1.0, 2.0, 6.0], None, "returns").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean 3.0, minimum 1.0, maximum 6.0"]
