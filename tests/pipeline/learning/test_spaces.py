"""A policy that imitates one recorded action serves that action, whatever the environment's spaces are."""

import itertools

import numpy as np
import pytest

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.nested_spaces import flatten, stack
from pipeline.learning.course import as_learned
from pipeline.learning.recorded import Recorded
from pipeline.learning.settings import LearningSettings
from pipeline.rllib.offline.learner import OfflineSettings
from pipeline.rllib.offline.trainer import OfflineTrainer
from serving.policy.spaces import leaves
from tests.pipeline.cases import CASES
from tests.pipeline.experience.exports.recorded import random_episode, whole_episodes

pytestmark = [pytest.mark.filterwarnings("ignore")]

#: Policies with a memory are refused.
LEARNING = [case for case, (settings, _) in CASES.items() if "use_lstm" not in settings.get("model_config", "")]

#: The cases of `make test`; `make test-conformance` runs all.
IN_SHORT = ("Pendulum-v1, filtered", "zoo:NestedActions-v0")

_SMALL = {"fcnet_hiddens": "8", "num_envs_per_env_runner": 1, "minibatch_size": 32}


def described(case):
    settings = {"env_id": case, **CASES[case][0]}
    settings["env_id"] = settings["env_id"].replace("zoo:", "tests.pipeline.zoo:")
    config = TrainConfig.of(_SMALL | {name: value for name, value in settings.items() if value != "true"})
    return config, environments.describe(config.env_id, config.environment_kwargs, config.wrappers)


def one_action(environment):
    """An action of the environment."""
    space = environment.action_space
    space.seed(3)
    return space.sample()


@pytest.mark.parametrize(
    "case", [case if case in IN_SHORT else pytest.param(case, marks=pytest.mark.conformance) for case in LEARNING]
)
def test_the_recorded_action_is_imitated(case, tmp_path):
    config, environment = described(case)
    spaces, action = (environment.observation_space, environment.action_space), one_action(environment)
    truths = [random_episode(f"episode-{number}", *spaces, 12, actions=[action] * 12) for number in range(10)]
    for observation in [each for truth in truths for each in truth.observations if "masks" in case]:
        observation["action_mask"][:] = 1
    whole_episodes(tmp_path / "experience", truths, *spaces)
    recorded = Recorded.read(LearningSettings(str(tmp_path / "experience"), algorithm="bc"), environment)
    episodes = [as_learned(each, environment) for each in recorded.episodes]
    with OfflineTrainer(config, environment, episodes, OfflineSettings(0.0, 0.02), tmp_path / "state") as trainer:
        for _ in itertools.islice(trainer.iterations(), 60):
            pass
        observations = stack(spaces[0], [each for truth in truths for each in truth.observations], "observations")
        outputs = trainer.policy.run(observations)
    for leaf, expected in zip(leaves(spaces[1]), flatten(spaces[1], action), strict=True):
        acted = outputs[leaf.tensor("action")]
        if np.issubdtype(acted.dtype, np.floating):
            assert np.abs(acted - expected).max() < 0.25, leaf
        else:
            assert (acted == expected).all(), leaf
