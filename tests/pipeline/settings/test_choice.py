"""Settings that nobody gives come from the shipped file for the environment, or are chosen by what it is like."""

import pytest

from pipeline.config import BY_ENVIRONMENT, BY_MACHINE, TrainConfig
from pipeline.environments.errors import EnvironmentNotFound
from pipeline.errors import InvalidConfig, UnknownSetting
from pipeline.settings import choice, files


def config(*, tuned=True, **given):
    chosen = choice.chosen_for(choice.checked(given), tuned=tuned)
    assert not chosen.settings.keys() & given.keys()
    return TrainConfig(**{**chosen.settings, **choice.checked(given)}), chosen.notes


def test_a_shipped_file_is_taken_and_named():
    found, notes = config(env_id="Pendulum-v1")
    assert found == TrainConfig(env_id="Pendulum-v1", **files.tuned_for("Pendulum-v1").settings)
    assert notes == (
        "Settings: pipeline/tuned/pendulum.yaml, tuned for Pendulum-v1 (--tuned false chooses by its spaces)",
    )


def test_given_settings_override_the_shipped_file():
    found, _ = config(env_id="Pendulum-v1", lr="0.5", target_return="auto", registered_model_name="mine")
    assert (found.lr, found.target_return, found.registered_model_name) == (0.5, None, "mine")
    assert found.gamma == files.tuned_for("Pendulum-v1").settings["gamma"]


@pytest.mark.parametrize("name", BY_MACHINE)
def test_what_is_auto_is_not_given(name):
    assert choice.checked({name: "auto", "seed": "1"}) == {"seed": 1}
    assert choice.checked({name: "2"}) == {name: 2}


def test_a_file_that_changes_nothing_is_not_named():
    shipped = files.tuned_for("Pendulum-v1")
    found, notes = config(env_id="Pendulum-v1", **shipped.settings)
    assert found == TrainConfig(env_id="Pendulum-v1", **shipped.settings)
    assert notes == ()


def test_the_note_tells_that_the_file_was_tuned_without_the_users_wrapper():
    _, notes = config(env_id="Pendulum-v1", wrapper="a:B")
    assert "tuned for Pendulum-v1, without your wrapper " in notes[0]


@pytest.mark.parametrize(
    ("env_id", "tuned"), [("MountainCar-v0", True), ("CartPole-v1", False), ("Pendulum-v1", False)]
)
def test_without_a_shipped_file_every_setting_is_chosen_by_the_environment(env_id, tuned):
    chosen = choice.chosen_for({"env_id": env_id}, tuned=tuned)
    assert set(chosen.settings) == set(BY_ENVIRONMENT)
    printed = "\n".join(chosen.notes)
    assert printed.startswith("Settings by the environment's spaces and horizon")
    assert all(f"{name} " in printed for name in BY_ENVIRONMENT if name != "registered_model_name")


@pytest.mark.parametrize(
    ("env_id", "name"),
    [("MountainCar-v0", "mountaincar-v0-ppo"), ("tests.pipeline.zoo:Images-v0", "images-v0-ppo")],
)
def test_the_model_is_named_after_the_environment(env_id, name):
    assert config(env_id=env_id)[0].registered_model_name == name


def test_the_name_of_the_model_does_not_depend_on_which_settings_are_taken():
    names = {config(env_id="Pendulum-v1", tuned=tuned)[0].registered_model_name for tuned in (True, False)}
    assert names == {"pendulum-ppo"}


def test_given_settings_are_checked_before_an_environment_is_made():
    with pytest.raises(InvalidConfig, match="gamma is 2"):
        choice.checked({"env_id": "None-v0", "gamma": 2})
    with pytest.raises(UnknownSetting, match="the nearest is 'lambda_'"):
        choice.checked({"env_id": "None-v0", "lamda": 2})
    with pytest.raises(EnvironmentNotFound):
        choice.chosen_for({"env_id": "None-v0"})


def test_a_minibatch_larger_than_that_of_cartpole_is_accepted_where_the_batch_is_larger():
    assert config(env_id="Pendulum-v1", minibatch_size=2048)[0].minibatch_size == 2048


def test_what_would_be_chosen_anyway_is_told_from_what_was_changed():
    found, _ = config(env_id="MountainCar-v0", max_env_steps=1000, gamma=0.5)
    assert found.changed(choice.usual(found)) == {"env_id": "MountainCar-v0", "max_env_steps": 1000, "gamma": 0.5}
    unknown = TrainConfig(env_id="None-v0", gamma=0.5)
    assert unknown.changed(choice.usual(unknown)) == {"env_id": "None-v0", "gamma": 0.5}


def test_a_file_of_a_configuration_restores_it_whatever_would_be_chosen():
    found, _ = config(env_id="MountainCar-v0", gamma=0.5, fcnet_hiddens="8")
    assert config(**found.as_file()) == (found, ())
