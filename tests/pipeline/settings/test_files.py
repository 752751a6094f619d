"""Files of settings are shipped for environments, and found by their ids."""

import pytest
import yaml

from pipeline.config import BY_ENVIRONMENT
from pipeline.settings import files
from tests.workshop import PROJECT

SHIPPED = sorted((PROJECT / "pipeline" / "tuned").glob("*.yaml"))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "gym:Pendulum-v1", "some.module:Pendulum-v1"])
def test_the_file_for_an_environment_is_found_by_its_id(env_id):
    found = files.tuned_for(env_id)
    assert (found.name, found.env_id) == ("pipeline/tuned/pendulum.yaml", "Pendulum-v1")
    assert found.settings["registered_model_name"] == "pendulum-ppo"
    assert "env_id" not in found.settings


def test_a_file_whose_environment_is_in_a_module_is_found_without_it_too():
    found = files.tuned_for("other:MiniGrid-DoorKey-5x5-v0")
    assert (found.name, found.env_id) == ("pipeline/tuned/minigrid_door_key.yaml", "minigrid:MiniGrid-DoorKey-5x5-v0")


@pytest.mark.parametrize("env_id", ["Pendulum-v0", "Pendulum", "pendulum-v1", "other/Pendulum-v1"])
def test_another_version_of_an_environment_has_no_file(env_id):
    assert files.tuned_for(env_id) is None


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_file_names_every_setting_that_depends_on_the_environment(file):
    """Whatever it left out would depend on `TrainConfig`, whose defaults are made for CartPole."""
    content = yaml.safe_load(file.read_text())
    assert [name for name in BY_ENVIRONMENT if name not in content] == []
    assert files.tuned_for(content["env_id"]).name == str(file.relative_to(PROJECT))


def test_two_shipped_files_have_neither_the_same_environment_nor_the_same_model():
    contents = [yaml.safe_load(file.read_text()) for file in SHIPPED]
    for name in ("env_id", "registered_model_name"):
        assert len({content[name] for content in contents}) == len(SHIPPED)
