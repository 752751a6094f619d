"""Training is shown as lines where there is no terminal."""

import math
import re
import time

from pipeline.evaluation.evaluation import Evaluation
from pipeline.rllib.trainer import Iteration
from pipeline.training.progress import TrainingProgress


def lines(capsys):
    return [re.sub(r"^\[ *[\d.]+ s\] *", "", line) for line in capsys.readouterr().out.splitlines()]


def test_stages_and_evaluations_are_lines_and_iterations_are_not(capsys):
    with TrainingProgress() as progress:
        progress.budget(10_000, 0)
        progress.stage("Training CartPole-v1")
        progress.iteration(Iteration(1000, 1000, 0, 21.5, {"train/env_steps_per_second": 4000.0}))
        progress.evaluated(1000, Evaluation((20.0, 30.0), 0))
        progress.note("Something happened")
    first, second, third = lines(capsys)
    assert first == "Training CartPole-v1"
    assert re.fullmatch(
        r"1,000 steps, return   21\.5 \(last 100\), 4,000 steps/s, at most \d+ s left; "
        r"greedy return 25\.0 \+- 5\.0 \(minimum 20\.0\) over 2 episodes",
        second,
    )
    assert third == "Something happened"


def test_before_the_first_episode_ends_the_return_is_a_dash(capsys):
    with TrainingProgress() as progress:
        progress.budget(10_000, 0)
        progress.iteration(Iteration(1000, 1000, 0, math.nan, {"train/env_steps_per_second": 1.0}))
        progress.evaluated(1000, Evaluation((1.0,), 0))
    assert "return    - (last 100)" in lines(capsys)[0]


def test_the_time_left_follows_from_the_steps_since_the_last_stage(capsys, monkeypatch):
    clock = iter([0, 0, 10, 20, 30, 40])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with TrainingProgress() as progress:
        progress.budget(10_000, 0)
        progress.iteration(Iteration(5000, 5000, 0, 1.0, {"train/env_steps_per_second": 500.0}))
        progress.stage("The policy is not confirmed")
        progress.iteration(Iteration(5500, 500, 0, 1.0, {"train/env_steps_per_second": 50.0}))
        progress.evaluated(6000, Evaluation((1.0,), 0))
    assert "at most 40 s left" in lines(capsys)[1]
