"""The output of a command names the version and the next command."""

import pytest

from pipeline.commands import output
from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry.promotion import Promotion
from pipeline.registry.registration import Trained
from pipeline.registry.target import Target


def trained(**changes):
    values = {"name": "cartpole-ppo", "version": 3, "run_id": "abc", "target_return": 475.0, "promote": False}
    return Trained(**({"evaluation": Evaluation((500.0, 500.0), 0)} | values | changes))


def test_a_trained_version_is_printed_with_the_command_that_promotes_it(capsys):
    output.print_trained(trained())
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Registered models:/cartpole-ppo/3 (run abc): greedy return 500.0 +- 0.0 (minimum 500.0) over 2 episodes",
        "Next: python -m pipeline promote 3",
    ]


def test_a_target_that_was_not_reached_and_another_name_are_printed(capsys):
    output.print_trained(trained(name="reach", target_return=600.0))
    *_, warning, following = capsys.readouterr().out.splitlines()
    assert warning == "It did not reach the target of 600 within the budget."
    assert following == "Next: python -m pipeline promote 3 --name reach"


@pytest.mark.parametrize(
    ("replaced", "first"),
    [
        (None, "The stage 'Production' of 'cartpole-ppo' now has version 3."),
        (2, "The stage 'Production' of 'cartpole-ppo' now has version 3, replacing version 2."),
    ],
)
def test_a_promotion_is_printed_with_the_command_that_serves_it(capsys, replaced, first):
    output.print_promotion(Promotion(Target("cartpole-ppo", "Production"), 3, replaced))
    uri = "models:/cartpole-ppo/Production"
    following = f"Servers of {uri} load it; start one: python -m serving run --model-uri {uri}"
    assert capsys.readouterr().out.splitlines() == [first, following]


def test_a_promotion_that_changes_nothing_is_one_line(capsys):
    output.print_promotion(Promotion(Target("cartpole-ppo", "champion", is_alias=True), 3, 3))
    assert capsys.readouterr().out == "The alias 'champion' of 'cartpole-ppo' already has version 3.\n"
