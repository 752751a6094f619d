from pipeline.experience.online.chart import MAX_VERSIONS, draw
from pipeline.experience.online.windows import Figures, Window


def window(version, start, mean=1.0):
    return Window(version, start, start + 3600, Figures(4, mean, 0.5, 10.0))


def test_each_version_is_a_line_of_means_above_and_of_episodes_below():
    upper, lower = draw([window(3, 0, 5.0), window(3, 3600, 7.0), window(4, 3600)], "cartpole-ppo", 3600).axes
    assert [line.get_label() for line in upper.lines] == ["version 3", "version 4"]
    assert upper.lines[0].get_ydata().tolist() == [5.0, 7.0]
    assert list(lower.lines[0].get_ydata()) == [4, 4]
    assert upper.get_title() == "Online return of cartpole-ppo"
    assert lower.get_ylabel() == "episodes\nin 1 h"


def test_only_the_newest_versions_are_drawn():
    upper, _ = draw([window(version, 0) for version in range(1, 30)], "m", 60).axes
    assert len(upper.lines) == MAX_VERSIONS
    assert upper.lines[-1].get_label() == "version 29"


def test_without_episodes_the_chart_is_empty():
    upper, _ = draw([], "m", 60).axes
    assert not upper.lines
