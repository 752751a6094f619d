"""Files of settings are shipped for environments, and found by their ids."""

import pytest
import yaml

from pipeline.config import BY_ENVIRONMENT, TrainConfig
from pipeline.settings import files
from tests.workshop import PROJECT

SHIPPED = sorted((PROJECT / "pipeline" / "tuned").glob("*.yaml"))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gym:Pendulum-v1", "some.module:Pendulum-v1"])
def test_the_file_for_an_environment_is_found_by_its_id(env_id):
    found = files.tuned_for(env_id)
    assert (found.name, found.env_id) == ("pipeline/tuned/pendulum.yaml", "Pendulum-v1")
    assert found.settings["target_return"] == -200.0
    assert "env_id" not in found.settings


@pytest.mark.parametrize("env_id", ["Pendulum-v0", "Pendulum", "pendulum-v1", "other/Pendulum-v1"])
def test_another_version_of_an_environment_has_no_file(env_id):
    assert files.tuned_for(env_id) is None


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_file_names_every_setting_that_depends_on_the_environment(file):
    """What it left out would be CartPole's."""
    content = yaml.safe_load(file.read_text())
    assert [name for name in BY_ENVIRONMENT if name not in content] == []
    assert files.tuned_for(content["env_id"]).name == str(file.relative_to(PROJECT))


def test_two_shipped_files_have_neither_the_same_environment_nor_the_same_model():
    contents = [yaml.safe_load(file.read_text()) for file in SHIPPED]
    for name in ("env_id", "registered_model_name"):
        assert len({content[name] for content in contents}) == len(SHIPPED)


def test_the_defaults_are_the_settings_that_are_shipped_for_cartpole():
    assert TrainConfig.of(files.tuned_for("CartPole-v1").settings) == TrainConfig()
