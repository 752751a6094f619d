"""Every parameter of `mlflow run` that the documents name reaches its command, beside those that MLproject adds."""

import dataclasses
import itertools
import re
import shlex
from types import SimpleNamespace

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.entities import Param
from mlflow.projects._project_spec import load_project

from pipeline.cli import cli
from pipeline.config import SETTINGS, TrainConfig
from pipeline.environments import contract
from pipeline.errors import PipelineError
from pipeline.learning.recorded import Recorded
from pipeline.learning.settings import SETTINGS as LEARNING_SETTINGS
from pipeline.learning.settings import LearningSettings
from pipeline.registry import evaluate_version, promotion
from pipeline.registry.target import Target
from pipeline.settings import by_machine, files
from pipeline.training import run as training_run
from pipeline.tuning import run as tuning_run
from tests.docs.pages import PAGES
from tests.workshop import PROJECT

MLPROJECT = load_project(PROJECT)
CARTPOLE = TrainConfig.of(files.tuned_for("CartPole-v1").settings)


class Reached(PipelineError):
    """A command has parsed its options and called the function that does the work."""


@pytest.fixture(scope="module")
def store(tmp_path_factory, new_database):
    """A directory with an MLflow store."""
    directory = tmp_path_factory.mktemp("mlproject")
    new_database(directory)
    return directory


@pytest.fixture
def reached(monkeypatch, store):
    """Return a function of an entry point and `-P` parameters that returns what the command would have run.

    As `mlflow run` does it, the command finds a run that has all of the parameters.
    """
    calls = []
    monkeypatch.chdir(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    mlflow.set_tracking_uri(None)

    def record(module, name):
        def call(*args, **_):
            calls.append((f"{module.__name__.split('.')[1]}.{name}", args))
            raise Reached

        monkeypatch.setattr(module, name, call)

    for module, names in (
        (training_run, ("train", "resume")),
        (tuning_run, ("tune", "resume")),
        (evaluate_version, ("evaluate",)),
        (promotion, ("promote",)),
    ):
        for name in names:
            record(module, name)
    monkeypatch.setattr("pipeline.training.worker_process.WorkerProcess.start", lambda *_: None)
    monkeypatch.setattr("pipeline.rllib.ray_session.RaySession.start", lambda *_: None)
    monkeypatch.setattr(contract, "described", lambda *_, **__: SimpleNamespace(is_exclusive=False))
    monkeypatch.setattr(by_machine, "chosen", lambda config, *_: (config, []))
    monkeypatch.setattr(Recorded, "read", lambda *_: SimpleNamespace(facts=None))
    client = mlflow.MlflowClient()

    def reached(entry_point="main", **parameters):
        calls.clear()
        declared = MLPROJECT.get_entry_point(entry_point)
        run_id = client.create_run("0").info.run_id
        logged, others = declared.compute_parameters(parameters, None)
        client.log_batch(run_id, params=[Param(name, value) for name, value in (logged | others).items()])
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        exec_, python, *words = shlex.split(declared.compute_command(parameters, None))
        assert (exec_, python, *words[:2]) == ("exec", "python", "-m", "pipeline")
        done = CliRunner().invoke(cli, words[2:])
        assert calls, (done.output, done.exception)
        return calls[0]

    return reached


@pytest.fixture
def interrupted(reached):  # noqa: ARG001  # it selects the store
    """An interrupted run, of a training and of a search."""
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.log_dict(run_id, TrainConfig().as_params(), "config.yaml")
    client.log_dict(run_id, {"num_trials": 2}, "search.yaml")
    client.set_terminated(run_id, "KILLED")
    return run_id


def documented():
    """The entry point and the parameters of each `mlflow run` in the documents, in code blocks and in sentences."""
    found = set()
    for page in PAGES:
        for line in re.findall(r"mlflow run \.[^`\n]*", page.read_text()):
            words = re.split(r"[\s<]+", line)
            options = [*itertools.pairwise(words)]
            entry_point = next((value for name, value in options if name == "-e"), "main")
            parameters = tuple(value for name, value in options if name == "-P" and "=" in value)
            found.add((entry_point, parameters))
    return sorted(found)


@pytest.mark.parametrize(("entry_point", "parameters"), documented())
def test_a_documented_command_is_accepted(reached, interrupted, entry_point, parameters):
    values = dict(each.replace("RUN_ID", interrupted).split("=", 1) for each in parameters)
    called, _ = reached(entry_point, **values)
    assert called.split(".")[1] in {"train", "resume", "tune", "evaluate", "promote"}


def test_without_parameters_the_settings_for_cartpole_are_trained(reached):
    called, (config, *_, model_uri, _) = reached()
    assert (called, config, model_uri) == ("training.train", CARTPOLE, None)


def other_value(setting):
    """A valid value of a setting that is not its default."""
    special = {
        "env_kwargs": '{"gravity": 9.8}',
        "model_config": '{"use_lstm": true}',
        "fcnet_hiddens": "32,32",
        "observation_filter": "mean-std",
        "sampling": "rllib",
        "learning": "rllib",
        "env_id": "Pendulum-v1",
        "wrapper": "zoo:First,zoo:Second",
        "target_return": -200.0,
        "gamma": 0.5,
        "lambda_": 0.5,
        "noise_correlation": 0.5,
        "minibatch_size": 64,
        "vf_clip_param": 10.0,
    }
    if setting.name in special:
        return special[setting.name]
    if isinstance(setting.default, bool):
        return not setting.default
    return "other" if isinstance(setting.default, str) else setting.default + type(setting.default)(1)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_a_parameter(reached, setting):
    value = other_value(setting)
    _, (config, *_) = reached(**{setting.name: str(value)})
    assert getattr(config, setting.name) == value
    if setting.name != "env_id":
        assert config == dataclasses.replace(CARTPOLE, **{setting.name: value})


def test_a_run_is_resumed(reached, interrupted):
    called, (run_id, *_) = reached(resume=interrupted)
    assert (called, run_id) == ("training.resume", interrupted)


def test_a_training_starts_from_a_policy(reached):
    called, (*_, model_uri, _) = reached(**{"from": "models:/cartpole-ppo/1"})
    assert (called, model_uri) == ("training.train", "models:/cartpole-ppo/1")


def other_learning_value(setting):
    """A valid value of a setting of learning that is not its default."""
    if setting.metadata["choices"]:
        return next(choice for choice in setting.metadata["choices"] if choice != setting.default)
    special = {"experience": "/data/experience", "experience_versions": "3,4", "experience_model": "m", "beta": 0.5}
    value = special.get(setting.name, setting.default)
    return not value if isinstance(value, bool) else value + 1 if value == setting.default else value


def test_each_setting_of_learning_is_a_parameter(reached, monkeypatch):
    courses = []
    facts = SimpleNamespace(facts=None)
    monkeypatch.setattr(Recorded, "read", lambda settings, *_: courses.append(settings) or facts)
    values = {setting.name: other_learning_value(setting) for setting in LEARNING_SETTINGS}
    called, _ = reached(**{name: str(value) for name, value in values.items()})
    assert called == "training.train"
    assert courses == [LearningSettings(**values)]


def test_a_settings_file_is_a_parameter(reached, tmp_path):
    (tmp_path / "settings.yaml").write_text("env_id: Pendulum-v1\nlr: 0.5\ngamma: 0.5\n")
    _, (config, *_) = reached(config=str(tmp_path / "settings.yaml"), gamma="0.25")
    assert (config.env_id, config.lr, config.gamma) == ("Pendulum-v1", 0.5, 0.25)


def test_the_settings_for_an_environment_are_chosen_as_train_does(reached):
    _, (tuned, *_) = reached(env_id="Pendulum-v1")
    _, (chosen, *_) = reached(env_id="Pendulum-v1", tuned="false")
    assert (tuned.registered_model_name, chosen.registered_model_name) == ("pendulum-ppo", "pendulum-ppo")
    assert tuned == TrainConfig(env_id="Pendulum-v1", **files.tuned_for("Pendulum-v1").settings)
    assert chosen.target_return is None
    _, (space, *_) = reached("tune", env_id="Pendulum-v1")
    assert space.config(1) == tuned


def test_a_search_is_started_and_resumed(reached, interrupted):
    called, (_, num_trials, limits, *_) = reached("tune", num_trials="3", max_concurrent="2", time_budget_s="60")
    assert (called, num_trials, limits) == ("tuning.tune", 3, tuning_run.SearchLimits(2, 60.0))
    called, (run_id, limits, *_) = reached("tune", resume=interrupted)
    assert (called, run_id, limits) == ("tuning.resume", interrupted, tuning_run.SearchLimits())


def test_a_version_is_evaluated_and_promoted(reached):
    assert reached("evaluate", model_uri="models:/m/1", episodes="5") == ("registry.evaluate", ("models:/m/1", 5, 0))
    _, (target, version, *_) = reached("promote", version="2", stage="Staging", name="m")
    assert (target, version) == (Target("m", "Staging"), 2)
