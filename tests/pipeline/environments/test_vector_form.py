"""Training uses a vectorized form only if it does what single environments do; else a line says why not."""

import pytest

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.rllib.env_runner import ArrayEnvRunner
from pipeline.rllib.trainer import algorithm_config
from tests.zoo import vector_forms


@pytest.mark.parametrize("name", ["Vectorized", "VectorizedTimeLimit"])
def test_a_vectorized_form_that_does_what_single_environments_do_is_used(name):
    environment = environments.describe(f"tests.zoo.vector_forms:{name}-v0")
    assert environment.has_vector_entry_point
    assert environment.notice is None


@pytest.mark.filterwarnings("ignore:.*AutoresetMode")
@pytest.mark.parametrize(("name", "reason"), vector_forms.DIFFERING.items())
def test_single_environments_are_used_if_the_vectorized_form_differs_and_the_notice_says_how(name, reason):
    environment = environments.describe(f"tests.zoo.vector_forms:{name}-v0")
    assert not environment.has_vector_entry_point
    assert environment.notice is not None
    assert environment.notice.startswith(
        f"Environments are stepped one by one, because the vectorized form of {environment.id} "
    )
    assert reason in environment.notice
    assert "\n" not in environment.notice
    assert algorithm_config(TrainConfig(), environment).gym_env_vectorize_mode == "sync"


def test_a_form_whose_constructor_fails_prints_nothing(capfd):
    environments.describe("tests.zoo.vector_forms:WithoutTimeLimit-v0")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "kwargs"), [("NumEnvs", {"num_envs": 3}), ("RegisteredNumEnvs", {})])
def test_an_argument_that_vectorizing_takes_reaches_the_environment(name, kwargs):
    environment = environments.describe(f"tests.zoo.vector_forms:{name}-v0", kwargs)
    config = algorithm_config(TrainConfig(num_envs_per_env_runner=5), environment).copy(copy_frozen=False)
    runner = ArrayEnvRunner(config=config, worker_index=0)
    assert runner.num_envs == 5
    assert len(runner.sample()) >= 5
    runner.stop()


def test_no_episode_loses_its_first_step():
    environment = environments.describe("tests.zoo.vector_forms:SameStep-v0")
    config = algorithm_config(TrainConfig(num_envs_per_env_runner=2), environment).copy(copy_frozen=False)
    runner = ArrayEnvRunner(config=config, worker_index=0)
    lengths = [len(episode) for episode in runner.sample() if episode.is_done]
    assert set(lengths) == {20}
    runner.stop()
