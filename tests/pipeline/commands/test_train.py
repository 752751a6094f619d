"""`train` and `tune` reject invalid options and files before anything heavy starts."""

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands.train import _split
from pipeline.errors import InvalidConfig
from pipeline.rllib.ray_session import RaySession
from pipeline.settings import by_machine
from pipeline.tracking import preconditions
from pipeline.training.worker_process import WorkerProcess
from tests.workshop import PROJECT, free_port


def train(*arguments):
    return CliRunner().invoke(cli, ["train", *map(str, arguments)])


def test_resume_excludes_other_settings():
    done = train("--resume", "0" * 32, "--lr", "1")
    assert done.exit_code == 2
    assert "--resume takes all settings from the run; omit the other options." in done.output


def test_settings_of_learning_need_the_experience():
    done = train("--algorithm", "bc")
    assert done.exit_code == 2
    assert "--algorithm needs --experience, the URI that a server records to." in done.output


def test_experience_that_is_not_there_is_refused_before_rllib_is_loaded(tmp_path):
    done = train("--experience", tmp_path / "none")
    assert done.exit_code == 1
    assert f"There is no experience at {tmp_path}/none: there is no such directory." in done.output
    assert "Loading RLlib" not in done.output


def test_an_s3_server_that_does_not_answer_is_named_with_what_to_check(monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    done = train("--experience", "s3://policies/served")
    assert done.exit_code == 1
    assert "s3://policies/served cannot be used: " in done.output
    assert "Check the bucket, the network, and the variables AWS_ACCESS_KEY_ID" in done.output


def test_without_experience_its_empty_parameter_is_none():
    """`mlflow run . -P experience=` passes it."""
    assert _split({"experience": "", "lr": 1.0}, None) == (None, {"lr": 1.0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lamda: 0.9", "There is no setting 'lamda'; the nearest is 'lambda_'."),
        ("lr: fast", "lr is 'fast', expected a number."),
        ("lr: -1", "lr is -1.0, expected more than 0."),
        ("- lr", "cannot be read as YAML settings: expected one NAME: VALUE per line."),
        ("lr: [", "cannot be read as YAML settings: while parsing"),
    ],
)
def test_an_invalid_file_of_settings_is_rejected(tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    done = train("--config", file)
    assert done.exit_code == 1
    assert message in done.output


def test_options_override_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 3e-3\ngamma: 0.9\n")
    done = train("--config", file, "--gamma", "2")
    assert "gamma is 2.0, expected between 0 and 1." in done.output


MISBEHAVING = (
    *("ResetWithoutInfo", "ResetWithoutSeed", "ResetWithoutOptions", "ResetInfoNone", "FourValues", "StepInfoNone"),
    *(
        "OutsideTheSpace",
        "LongObservations",
        "PairReward",
        "TextReward",
        "NoneReward",
        "TerminatedNone",
        "WithoutSpaces",
    ),
)
BROKEN = (
    *(f"contract:{name}" for name in MISBEHAVING),
    *(f"numbers:{name}" for name in ("NanRewards", "InfiniteRewards", "NanObservations", "InfiniteObservations")),
    *("failing:StepRaises", "failing:StepCallsExit", "failing:ResetRaises"),
)


@pytest.mark.parametrize("name", BROKEN)
def test_an_environment_that_misbehaves_ends_the_command_in_one_line(name):
    done = train("--env-id", f"tests.zoo.{name}-v0")
    assert done.exit_code == 1
    progress = rf"\[ +[\d.]+ s\] Checking tests\.zoo\.{name}-v0\n"
    assert re.fullmatch(rf"{progress}Error: .*the environment 'tests\.zoo\.{name}-v0'.*\n", done.output)


def test_a_search_checks_its_environment_too():
    done = tune("--env-id", "tests.zoo.numbers:NanRewards-v0")
    assert done.exit_code == 1
    assert "step 3 of episode 1 (seed 0) returned the reward nan, expected a finite number" in done.output


def test_the_environment_is_checked_before_anything_heavy_is_imported():
    script = (
        "import sys; from click.testing import CliRunner; from pipeline.cli import cli\n"
        "for command in ('train', 'tune'):\n"
        "    done = CliRunner().invoke(cli, [command, '--env-id', 'tests.zoo.contract:FourValues-v0'])\n"
        "    print(done.output, {'torch', 'mlflow', 'ray.rllib'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.count("step returned 4 values") == 2, done.stdout
    assert done.stdout.count("set()") == 2, done.stdout


def tune(*arguments):
    return CliRunner().invoke(cli, ["tune", *map(str, arguments)])


@pytest.mark.parametrize("options", [("--lr", "1"), ("--num-trials", "3"), ("--config", __file__)])
def test_a_resumed_search_excludes_other_settings(options):
    done = tune("--resume", "0" * 32, *options)
    assert done.exit_code == 2
    assert "--resume takes the search from the run" in done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("search: {lamda: [0.9]}", "There is no setting 'lamda'; the nearest is 'lambda_'."),
        ("search: {lr: [-1]}", "lr is -1.0, expected more than 0."),
        ("settings: {gamma: 2}", "gamma is 2.0, expected between 0 and 1."),
        ("settings: [gamma]", "settings is ['gamma'], expected one NAME: VALUE per line."),
        ("- lr", "expected one NAME: VALUE per line."),
    ],
)
def test_an_invalid_search_space_is_rejected(tmp_path, content, message):
    file = tmp_path / "space.yaml"
    file.write_text(content)
    done = tune("--search", file)
    assert done.exit_code == 1
    assert message in done.output


def test_the_defaults_that_mlproject_passes_do_not_conflict_with_resume():
    """`mlflow run` passes every parameter; only a value that differs from the default conflicts with --resume."""
    done = train("--resume", "0" * 32, "--from", "", "--lr", "0.003", "--env-kwargs", "{}", "--gamma", "2")
    assert done.exit_code == 2
    assert train("--resume", "", "--from", "", "--gamma", "2").exit_code == 1


@pytest.mark.parametrize(
    ("options", "expected"), [([], 4), (["--num-env-runners", "auto"], 4), (["--num-env-runners", "1"], 1)]
)
def test_processes_are_chosen_for_the_machine_unless_they_are_given(options, expected, monkeypatch):
    started = []
    monkeypatch.setattr(by_machine, "available_cpus", lambda: 4)
    monkeypatch.setattr(by_machine, "step_seconds", lambda _: 0.002)
    monkeypatch.setattr(WorkerProcess, "start", lambda *_: None)
    monkeypatch.setattr(RaySession, "start", lambda _, config: started.append(config.num_env_runners))
    monkeypatch.setattr(preconditions, "check", lambda *_: fail_here())
    done = train("--env-id", "tests.zoo.slow:Slow-v0", *options)
    assert started == [expected]
    assert ("Environments step in 4 processes, 4 in each: a step takes 2.0 ms" in done.output) is (expected == 4)


def fail_here():
    raise InvalidConfig("lr", 0, "anything")


def test_the_model_of_from_is_the_one_whose_experience_is_read():
    learning, others = _split({"experience": "/data", "lr": 0.1}, "models:/pendulum-ppo/3")
    assert (learning.experience_model, others) == ("pendulum-ppo", {"lr": 0.1})
    assert _split({"lr": 0.1}, None) == (None, {"lr": 0.1})
