"""The plan of an experiment: its formulas beside simulated experiments, and the command."""

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.experiment.errors import MarginZero, RulesInvalid
from pipeline.experiment.plan import Baseline, plan
from pipeline.experiment.statistics.decision import Decision
from tests.docs.pages import DOCS, blocks, commands
from tests.pipeline.experiment.simulation import Simulated

THOUSAND = pytest.param(1000, marks=pytest.mark.long)
PENDULUM = Baseline(-160.0, 99.0)


def normal(mean, std):
    return lambda rng, size: rng.normal(mean, std, size)


@pytest.mark.parametrize("experiments", [30, THOUSAND])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_the_planned_episodes_promote_the_planned_share_of_equal_challengers(share, experiments):
    planned = plan(Baseline(100.0, 30.0), 5.0, share)
    kind = Simulated(normal(100.0, 30.0), 0.0, share, planned.rules.budget)
    rng = np.random.default_rng(0)
    runs = [kind.run(planned.rules, rng) for _ in range(experiments)]
    counts = np.sort([count for decision, count, _ in runs if decision == Decision.PROMOTE])
    print(f"{len(counts)} of {experiments} promoted; planned {planned.promotion}")  # noqa: T201
    for need in planned.promotion:
        decided = np.searchsorted(counts, need.episodes, "right") / experiments
        spread = (need.power * (1 - need.power) / experiments) ** 0.5
        assert need.power - 3 * spread <= decided <= need.power + 0.1 + 3 * spread


@pytest.mark.parametrize("experiments", [30, THOUSAND])
@pytest.mark.parametrize("std", [30.0, 150.0])
def test_the_planned_episodes_roll_back_the_planned_share_of_bad_challengers(std, experiments):
    """With the smaller standard deviation, they are those in which the challenger's arm has the minimum."""
    planned = plan(Baseline(100.0, std), 5.0, 0.1)
    kind, rng = Simulated(normal(100.0, std), -50.0, 0.1, 3000), np.random.default_rng(1)
    runs = [kind.run(planned.rules, rng) for _ in range(experiments)]
    counts = np.sort([count for decision, count, _ in runs if decision == Decision.ROLL_BACK])
    for need in planned.rollback:
        decided = np.searchsorted(counts, need.episodes, "right") / experiments
        spread = (need.power * (1 - need.power) / experiments) ** 0.5
        assert need.power - 3 * spread <= decided <= need.power + 0.15 + 3 * spread


def test_half_the_margin_needs_four_times_the_episodes():
    wide, narrow = (plan(PENDULUM, margin).promotion[-1].episodes for margin in (3.2, 1.6))
    assert narrow == pytest.approx(4 * wide, rel=0.01)


def test_a_tenth_of_the_episodes_needs_more_of_them_than_a_half():
    half, tenth = (plan(PENDULUM, 3.2, share).promotion[-1] for share in (0.5, 0.1))
    assert tenth.episodes == pytest.approx(half.episodes * 0.25 / 0.09, rel=0.01)
    assert tenth.challengers < half.challengers


def test_each_arm_has_at_least_the_minimum_of_episodes():
    for share in (0.01, 0.5, 0.9):
        planned = plan(Baseline(-160.0, 1.0), 80.0, share)
        for need in (*planned.promotion, *planned.rollback):
            assert min(need.challengers, need.episodes - need.challengers) >= planned.rules.minimum_episodes


def test_a_larger_minimum_of_episodes_needs_a_larger_budget():
    rules = plan(Baseline(100.0, 1.0), 20.0, share=0.2, minimum_episodes=600).rules
    assert (rules.minimum_episodes, 600 / 0.2 < rules.budget < 700 / 0.2) == (600, True)


def test_returns_without_variance_need_episodes_because_of_the_floor():
    assert plan(Baseline(500.0, 0.0), 10.0).promotion[-1].episodes > 300


def test_a_champion_with_a_mean_of_0_has_no_half_to_lose():
    assert plan(Baseline(0.0, 1.0), 0.1).rollback == ()


def test_days_follow_from_the_rate():
    need = plan(Baseline(-160.0, 99.0, episodes_per_day=1000.0), 3.2).promotion[-1]
    assert need.days == need.episodes / 1000


@pytest.mark.parametrize(
    ("error", "baseline", "margin", "share"),
    [
        (MarginZero, (1.0, 1.0), 0.0, 0.5),
        (RulesInvalid, (1.0, 1.0), 1.0, 1.0),
        (RulesInvalid, (float("nan"), 1.0), 1.0, 0.5),
        (RulesInvalid, (1e200, 1.0), 1.0, 0.5),
        (RulesInvalid, (1.0, -1.0), 1.0, 0.5),
        (RulesInvalid, (1.0, float("inf")), 1.0, 0.5),
    ],
)
def test_a_plan_out_of_its_range_is_rejected(error, baseline, margin, share):
    with pytest.raises(error):
        plan(Baseline(*baseline), margin, share)


def run(*options):
    return CliRunner().invoke(cli, ["experiment", "plan", "4", *options])


def test_the_command_prints_the_episodes_and_the_next_command():
    result = run("--return-mean", "-160", "--return-std", "99", "--model", "pendulum")
    need = plan(PENDULUM, 3.2).promotion[-1]
    assert result.exit_code == 0, result.output
    assert "Return -160.0 +- 99.0, margin 3.2, share 50%, alpha 5%." in result.output
    assert f"80%    {need.episodes:,}        {need.challengers:,}" in result.output
    assert result.output.endswith("Next: python -m pipeline promote 4 --name pendulum\n")


def test_the_documents_show_what_the_command_prints():
    page = DOCS / "explanation" / "experiments.md"
    (command,), (shown, *_) = commands(page, "bash"), blocks(page, "text")
    result = CliRunner().invoke(cli, command.removeprefix("python -m pipeline ").split())
    assert shown.strip() in "\n".join(line.rstrip() for line in result.output.splitlines())


def test_a_margin_is_a_number_or_a_percentage():
    outputs = [run("--return-mean", "-160", "--return-std", "99", "--margin", each).output for each in ("5%", "8")]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("margin", ["-1", "2 percent", "inf", "nan", "%"])
def test_another_margin_is_rejected(margin):
    result = run("--return-mean", "1", "--return-std", "1", "--margin", margin)
    assert result.exit_code == 2
    assert "is neither a number of at least 0 nor a percentage, such as 2%." in result.output


@pytest.mark.parametrize(
    "options",
    [(), ("--return-mean", "1"), ("--return-std", "1"), ("--experience", "x", "--return-mean", "1")],
)
def test_the_returns_come_from_one_source(options):
    result = run(*options)
    assert result.exit_code == 1
    assert "A plan needs the champion's returns from one source" in result.output


def test_a_margin_of_nothing_is_rejected_in_one_line():
    result = run("--return-mean", "0", "--return-std", "1")
    assert result.exit_code == 1
    assert result.output.startswith("Error: The margin is 0")
    assert result.output.count("\n") == 1
