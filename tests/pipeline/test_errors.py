"""Errors keep their facts when they cross a process boundary."""

import pickle

import pytest

from pipeline import errors

ERRORS = [
    errors.InvalidConfig("lr", 0.0, "more than 0"),
    errors.UnknownSetting("lambda", "lambda_"),
    errors.NotSearchable("env_id"),
    errors.NothingFound("0" * 32, 4, 4),
    errors.NothingFound("0" * 32, 4, 0),
    errors.UnreadableConfig("settings.yaml", "expected settings, one NAME: VALUE per line."),
    errors.NoCheckpoint("0" * 32),
    errors.NotResumable("0" * 32, "it finished."),
    errors.CannotContinueFrom("models:/cartpole-ppo/1", "its action space is Discrete(2)."),
    errors.EnvironmentNotFound("Cart", "Environment `Cart` doesn't exist."),
    errors.EnvKwargsRefused("Cart", {"size": 8}, "got an unexpected keyword argument 'size'"),
    errors.UnsupportedSpace("action", "Text(1, 2)", "there is no network for text", "a Discrete space"),
    errors.NoSuchObject("envs:Stack", "No module named 'envs'."),
    errors.UnknownModelSetting("fcnet_hidden", "is none of RLlib's."),
    errors.ServerAnswered("http://127.0.0.1:1", 422, "observation_shape"),
    errors.ServesAnother("http://127.0.0.1:1", "cartpole-ppo version 2", "cartpole-ppo version 1"),
    errors.VerificationFailed("models:/cartpole-ppo/1", ["actions differ"]),
    errors.ExportFailed("it needs the operators x::y"),
    errors.ExportDiffers("actions", 1.0, 0.0),
    errors.RelativeStore("sqlite:///a.db", "here"),
    errors.NotEnoughResources("GPU", 4, 0, "num_learners x num_gpus_per_learner"),
    errors.Interrupted("SIGTERM"),
    errors.PromotionRefused(3, "stage 'Production'", ["it is worse"]),
    errors.NothingToRollBack("cartpole-ppo", "stage 'Production'", 1),
    errors.PortTaken(5000, "MLFLOW_PORT"),
    errors.CommandFailed("python -m pipeline train", 1),
    errors.NotReady("http://127.0.0.1:1", 3.0),
]


def test_every_error_is_in_this_table():
    assert {type(error) for error in ERRORS} == {*errors.PipelineError.__subclasses__(), errors.Interrupted}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_is_one_line(error):
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert "\n" not in str(error)
