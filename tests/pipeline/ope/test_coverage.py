"""Answers from many sets of recorded episodes, against exact values from the transition tables of Gymnasium.

`make test` has a few sets of some cases, `make test-long` 200 of each. A claim that an error has a probability of at
most alpha fails if the 95% interval of Clopper and Pearson for the count lies above alpha.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from pipeline.ope.judgement import Answer, Judge, Settings
from tests.pipeline.experiment.simulation import interval
from tests.pipeline.ope.tabular import Tabular

ALPHA = 0.05
SEED = 1
pytestmark = pytest.mark.timeout(1800)  # 200 sets on a busy machine
ENVIRONMENTS = {"lake": ("FrozenLake-v1", 100), "taxi": ("Taxi-v3", 200), "cliff": ("CliffWalking-v1", 100)}


@cache
def environment(name):
    return Tabular(ENVIRONMENTS[name][0], ENVIRONMENTS[name][1])


@dataclass(frozen=True)
class Case:
    """A pair of policies, as the arguments of `Tabular.soft`; a greedy one follows from the behaviour."""

    name: str
    behaviour: tuple[float, float]
    target: tuple[float, float] | None
    greedy_share: float = 0.0
    episodes: int = 300

    def __str__(self):
        shares = f"-greedy-{self.greedy_share:g}" if self.greedy_share else ""
        return f"{self.name}-{self.target or 'greedy'}{shares}"

    def policies(self):
        tabular = environment(self.name)
        behaviour = tabular.soft(*self.behaviour)
        return behaviour, tabular.greedy(behaviour) if self.target is None else tabular.soft(*self.target)

    @property
    def difference(self):
        """The exact difference between the target and what was recorded."""
        tabular, (behaviour, target) = environment(self.name), self.policies()
        recorded = (1 - self.greedy_share) * tabular.value(behaviour)
        recorded += self.greedy_share * tabular.value(tabular.greedy(behaviour))
        return tabular.value(target) - recorded

    def judgements(self, sets, seed=SEED):
        """The answers from many sets of recorded episodes."""
        tabular, (behaviour, target) = environment(self.name), self.policies()
        found = []
        for index in range(sets):
            generator = np.random.default_rng([seed, index])
            logs = tabular.record(behaviour, self.episodes, generator, self.greedy_share)
            judge = Judge(logs, tabular.distribution, Settings(alpha=ALPHA))
            found.append(judge.judge(judge.value(tabular.target(target, logs))))
        return found


# The values of the targets: 0.161, 0.078 against 0.134; 1.02, -4.22 against -0.38; -46.5, -85.4 against -56.4.
TOLD = [
    Case("lake", (0.05, 0.2), (0.05, 0.15)),
    Case("lake", (0.05, 0.2), (0.08, 0.2), episodes=400),
    Case("taxi", (0.5, 0.1), (0.5, 0.08)),
    Case("taxi", (0.5, 0.1), (0.5, 0.15)),
    Case("cliff", (0.5, 0.1), (0.5, 0.08)),
    Case("cliff", (0.5, 0.1), (0.5, 0.15)),
    Case("lake", (0.02, 0.05), None, greedy_share=0.5),
    Case("taxi", (0.5, 0.1), None, greedy_share=0.5),
    Case("cliff", (0.5, 0.1), None, greedy_share=0.5),
]
UNTOLD = [
    Case("lake", (0.05, 0.2), None),
    Case("taxi", (0.5, 0.1), None),
    Case("cliff", (0.5, 0.1), None),
    Case("lake", (0.05, 0.2), (0.05, 0.15), greedy_share=1.0),
    Case("taxi", (0.5, 0.1), (0.5, 0.3), greedy_share=1.0),
    Case("cliff", (0.5, 0.1), (0.5, 0.3), greedy_share=1.0),
]


def in_long_runs(cases, quick):
    """200 sets of all cases in `make test-long`, and 3 sets of some in `make test`."""
    few = [pytest.param(case, 3, id=f"{case}-3") for case in cases if cases.index(case) in quick]
    return [*few, *(pytest.param(case, 200, id=f"{case}-200", marks=pytest.mark.long) for case in cases)]


def assert_at_most(alpha, count, total):
    low, high = interval(count, total)
    print(f"{count} of {total}: 95% interval {low:.1%} to {high:.1%}")  # noqa: T201 - the figures of the documents
    assert low <= alpha


@pytest.mark.parametrize(("case", "sets"), in_long_runs(TOLD, (0, 3, 8)))
def test_the_interval_covers_the_exact_difference_and_the_answer_is_seldom_wrong(case, sets):
    found = case.judgements(sets)
    told = [each for each in found if each.value.effective >= 100]
    assert len(told) >= 0.9 * sets
    assert_at_most(ALPHA, sum(each.lower > case.difference for each in told), len(told))
    assert_at_most(ALPHA, sum(each.upper < case.difference for each in told), len(told))
    right, wrong = (Answer.BETTER, Answer.WORSE)[:: 1 if case.difference > 0 else -1]
    answers = [each.answer for each in found]
    print({answer.value: answers.count(answer) for answer in Answer})  # noqa: T201 - the figures of the documents
    assert_at_most(ALPHA, answers.count(wrong), sets)
    assert answers.count(right) >= sets / 2


@pytest.mark.parametrize(("case", "sets"), in_long_runs(UNTOLD, (0, 5)))
def test_without_support_the_answer_is_cannot_tell(case, sets):
    answers = [each.answer for each in case.judgements(sets)]
    assert set(answers) == {Answer.CANNOT_TELL}


@pytest.mark.parametrize(("name", "sets"), in_long_runs(list(ENVIRONMENTS), (1,)))
def test_equal_policies_are_seldom_told_apart(name, sets):
    behaviour = next(case.behaviour for case in TOLD if case.name == name)
    found = Case(name, behaviour, (behaviour[0], behaviour[1] * 1.0001)).judgements(sets)
    assert_at_most(ALPHA, sum(each.answer == Answer.BETTER for each in found), sets)
    assert_at_most(ALPHA, sum(each.answer == Answer.WORSE for each in found), sets)


@pytest.mark.parametrize("sets", [1, pytest.param(50, marks=pytest.mark.long)])
def test_a_disaster_in_a_rare_state_that_was_never_recorded_is_not_called_better(sets):
    """Greedy episodes of a policy that slips; the target agrees, except in a state with 3% of the steps."""
    tabular = environment("lake")
    behaviour = tabular.soft(0.005)
    answers = []
    for index in range(sets):
        logs = tabular.record(behaviour, 1000, np.random.default_rng(index), greedy_share=1.0)
        states = logs.states[0][: logs.steps]
        shares = np.bincount(states, minlength=tabular.states) / logs.steps
        rare = int(np.argmin(np.abs(shares - 0.03)))
        assert 0 < shares[rare] < 0.05
        target = tabular.greedy(behaviour)
        target[rare] = np.roll(target[rare], 2)
        judge = Judge(logs, tabular.distribution, Settings(alpha=ALPHA))
        judged = judge.judge(judge.value(tabular.target(target, logs)))
        assert judged.value.unsupported < 0.05
        answers.append(judged.answer)
    assert answers.count(Answer.BETTER) == 0
