"""A run that learns from experience is told from others, and a policy whose filter does not fit is refused."""

import mlflow
import pytest
from gymnasium import spaces

from pipeline.config import TrainConfig
from pipeline.learning.course import LearningCourse, course_of
from pipeline.learning.errors import SettingsUnknown
from pipeline.learning.origin import settings_of
from pipeline.learning.recorded import Facts
from pipeline.learning.settings import LearningSettings
from pipeline.rllib.offline.learner import OfflineSettings
from pipeline.rllib.offline.trainer import OfflineTrainer
from pipeline.tracking.errors import NotResumable
from pipeline.training.errors import CannotContinueFrom
from pipeline.training.warm_start import InitialPolicy
from tests.pipeline.experience.exports.recorded import bundle_of
from tests.serving.store import Store

FACTS = Facts("cartpole-ppo", "0123", "3, 4", 12, 300, 25.0)
SETTINGS = LearningSettings("/data", algorithm="bc", then="ppo")


@pytest.fixture
def run_id(store):  # noqa: ARG001  # it is the current one
    with mlflow.start_run() as run:
        return run.info.run_id


def test_a_run_without_experience_has_no_course(run_id):
    assert LearningCourse.of_run(run_id) is None
    assert course_of(run_id, None, None) is None
    assert course_of(None, None, None) is None


def test_a_run_with_experience_has_the_course_that_it_began_with(run_id):
    mlflow.MlflowClient().set_tag(run_id, "algorithm", "bc")
    with pytest.raises(NotResumable, match=r"its learning\.yaml cannot be read"):
        LearningCourse.of_run(run_id)
    mlflow.log_dict({"settings": SETTINGS.as_params(), "facts": vars(FACTS)}, "learning.yaml", run_id)
    found = course_of(run_id, None, None)
    assert found.params == SETTINGS.as_params()
    assert found.method.tags == {
        "experience.digest": "0123",
        "experience.versions": "3, 4",
        "algorithm": "bc+ppo",
    }
    assert found.method.name == "Behavior cloning, then PPO"
    assert found.method.learned_from == (
        "on 12 recorded episodes (300 steps) of versions 3, 4 of `cartpole-ppo`, mean return 25.0, digest `0123`, "
        "then by PPO in the environment"
    )


def test_a_policy_without_the_filter_of_the_training_is_refused(cartpole, tmp_path):
    (tmp_path / "env_runner" / "env_to_module_connector").mkdir(parents=True)  # of a policy without a filter
    initial = InitialPolicy("models:/cartpole-ppo/3", None, tmp_path)
    filtered = TrainConfig(observation_filter="mean-std")
    trainer = OfflineTrainer(filtered, cartpole, (), OfflineSettings(0.0, 0.1), tmp_path / "state")
    with pytest.raises(CannotContinueFrom, match=r"filters observations, and the other does not\. Omit"):
        LearningCourse(SETTINGS, FACTS).load(initial, trainer)


@pytest.mark.usefixtures("store")
def test_a_version_that_no_training_registered_gives_no_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry = Store(mlflow.get_tracking_uri(), tmp_path)
    registry.register("cartpole-ppo", bundle_of(spaces.Box(-1, 1, (4,)), spaces.Discrete(2)))
    with pytest.raises(SettingsUnknown, match="The settings of models:/cartpole-ppo/1 cannot be read"):
        settings_of("models:/cartpole-ppo/1")
