"""The output of a command names the version and the next command."""

import dataclasses
import shlex
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands import output
from pipeline.config import TrainConfig
from pipeline.environments import contract
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.trend import Trend
from pipeline.registry.promotion import Promotion
from pipeline.registry.registration import Trained
from pipeline.registry.target import Target
from pipeline.settings import by_machine, files
from pipeline.training import run


def cartpole(**changes):
    return TrainConfig.of({**files.tuned_for("CartPole-v1").settings, **changes})


def trained(**changes):
    values = {"name": "cartpole-ppo", "version": 3, "run_id": "abc", "target_return": 475.0, "promote": False}
    values["config"] = cartpole()
    return Trained(**({"evaluation": Evaluation((500.0, 500.0), 0)} | values | changes))


def test_a_trained_version_is_printed_with_the_command_that_promotes_it(capsys):
    output.print_trained(trained())
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Registered models:/cartpole-ppo/3 (run abc): greedy return 500.0 +- 0.0 (minimum 500.0) over 2 episodes",
        "Next: python -m pipeline promote 3",
    ]


def test_another_name_is_quoted_in_the_command(capsys):
    output.print_trained(trained(name="my reach"))
    assert capsys.readouterr().out.splitlines()[-1] == "Next: python -m pipeline promote 3 --name 'my reach'"


def test_after_a_target_that_was_not_reached_the_commands_that_help_are_printed(capsys):
    """The gate would refuse the promotion; training found the policy near the end, so more steps come first."""
    config = TrainConfig(registered_model_name="reach", env_id="reach:Reach-v0", wrapper="a:B,c:D", max_env_steps=1000)
    returns = Evaluation((400.0, 600.0), 0)
    output.print_trained(trained(name="reach", target_return=600.0, evaluation=returns, best_step=800, config=config))
    settings = "--registered-model-name reach --env-id reach:Reach-v0"
    wrappers = "--wrapper a:B --wrapper c:D"
    train = "python -m pipeline train --from models:/reach/3"
    warning, *following = capsys.readouterr().out.splitlines()[2:]
    assert warning == (
        "It did not reach the target of 600 within the budget of 1,000 environment steps. It is registered, but the "
        "gate rejects it below that threshold."
    )
    assert following == [
        f"It was found near the end of the budget. Next: train on: {train} {settings} --max-env-steps 2000 {wrappers}",
        f"Or search other settings: python -m pipeline tune {settings} --max-env-steps 1000 {wrappers}",
        "Or accept it as it is: python -m pipeline promote 3 --name reach --threshold 358.6",
    ]


def test_if_training_stopped_improving_a_search_comes_first(capsys):
    output.print_trained(trained(target_return=600.0, best_step=100_000, config=cartpole(fcnet_hiddens="8")))
    search = "python -m pipeline tune --fcnet-hiddens 8"
    assert capsys.readouterr().out.splitlines()[3:] == [
        f"Nothing better was found after 100,000 steps. Next: search other settings: {search}",
        "Or train on: python -m pipeline train --from models:/cartpole-ppo/3 --fcnet-hiddens 8 --max-env-steps 600000",
        "Or accept it as it is: python -m pipeline promote 3 --threshold 500",
    ]


def test_a_policy_with_a_filter_is_not_trained_on(capsys):
    """Its statistics cannot be transferred, so a longer training begins anew."""
    config = cartpole(observation_filter="mean-std")
    output.print_trained(trained(target_return=600.0, best_step=300_000, config=config))
    line = capsys.readouterr().out.splitlines()[3]
    assert line.endswith("python -m pipeline train --observation-filter mean-std --max-env-steps 600000")


TRAIN, TUNE = "python -m pipeline train", "python -m pipeline tune"


@pytest.mark.parametrize(
    ("trend", "reason", "remedy"),
    [
        (
            Trend.RISING,
            "The returns were still rising.",
            f"train on: {TRAIN} --from models:/cartpole-ppo/3 --max-env-steps 600000",
        ),
        (Trend.FLAT, "Nothing better was found after 9,000 steps.", f"search other settings: {TUNE}"),
        (
            Trend.FALLING,
            "The returns fell after the best policy, which was found after 9,000 steps.",
            f"learn more slowly: {TRAIN} --lr 0.0017 --lr-final 0.0001",
        ),
        (
            Trend.CONSTANT,
            "Every mean return was 500, so there was nothing to learn from.",
            f"explore more: {TRAIN} --entropy-coeff 0.05",
        ),
    ],
)
def test_the_first_remedy_follows_from_what_the_returns_did(capsys, trend, reason, remedy):
    output.print_trained(trained(target_return=600.0, best_step=9000, trend=trend))
    assert capsys.readouterr().out.splitlines()[3] == f"{reason} Next: {remedy}"


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(lambda_=0.5, promote=True, target_return=-200.0, wrapper="a:B,c:D", env_kwargs='{"a": "it\'s"}'),
        TrainConfig(observation_filter="mean-std", vf_clip_param=3.5),
    ],
)
def test_the_printed_commands_restore_the_settings(capsys, monkeypatch, config):
    output.print_trained(trained(target_return=600.0, best_step=300_000, config=config))
    longer, search, accept = (
        shlex.split(line.split("python -m pipeline ")[1]) for line in capsys.readouterr().out.splitlines()[3:]
    )
    started = []
    monkeypatch.setattr(contract, "described", lambda *_, **__: SimpleNamespace(is_exclusive=False))
    monkeypatch.setattr(by_machine, "chosen", lambda config, *_: (config, []))
    monkeypatch.setattr("pipeline.commands.train._check_mlflow", lambda *_: None)
    monkeypatch.setattr(run, "train", lambda config, *_, **__: started.append(config))
    monkeypatch.setattr("pipeline.commands.train.print_trained", lambda _: sys.exit(0))
    monkeypatch.setattr("pipeline.training.worker_process.WorkerProcess.start", lambda *_: None)
    done = CliRunner().invoke(cli, longer)
    assert started == [dataclasses.replace(config, max_env_steps=600_000)], done.output
    for words in (search, accept):
        command = cli.commands[words[0]]
        command.make_context(words[0], words[1:])


def test_the_printed_commands_name_only_what_the_environment_does_not_choose_itself(capsys):
    config = TrainConfig(env_id="Pendulum-v1", **files.tuned_for("Pendulum-v1").settings)
    output.print_trained(trained(target_return=-100.0, config=config, evaluation=Evaluation((-200.0,), 0)))
    assert capsys.readouterr().out.splitlines()[3].endswith(f"{TUNE} --env-id Pendulum-v1")


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
