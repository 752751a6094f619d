import gc
from pathlib import Path

import msgpack
import msgpack_numpy
import numpy as np
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces

from pipeline.experience.exports import to_rllib
from pipeline.experience.exports.export import export
from tests.pipeline.experience.exports.recorded import random_episode
from tests.serving.policies import CARTPOLE, ROBOT

DISCRETE = spaces.Discrete(2)


def loaded(directory: Path):
    """The episodes as RLlib's pre-learner unpacks them."""
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    table = pq.read_table(directory / "episodes")
    states = (msgpack.unpackb(each, object_hook=msgpack_numpy.decode) for each in table["item"].to_pylist())
    return {episode.id_: episode for episode in map(SingleAgentEpisode.from_state, states)}


def test_an_episode_is_that_which_the_client_saw(recorded, tmp_path):
    truths = [
        random_episode("one", CARTPOLE, DISCRETE, 5),
        random_episode("two", CARTPOLE, DISCRETE, 1, done="truncated"),
    ]
    export(recorded(truths, CARTPOLE, DISCRETE), "rllib", tmp_path / "out")
    episodes = loaded(tmp_path / "out")
    for truth in truths:
        episode = episodes.pop(truth.id)
        assert np.array_equal(episode.get_observations(), np.stack(truth.observations))
        assert episode.get_observations().dtype == np.float32
        assert episode.get_actions().tolist() == truth.actions
        assert episode.get_rewards().tolist() == truth.rewards
        assert (episode.is_terminated, episode.is_truncated) == (truth.done == "terminated", truth.done == "truncated")
        assert episode.get_extra_model_outputs("action_logp").tolist() == [-0.5 * step for step in range(len(truth))]
    assert not episodes


def test_nested_spaces_are_nested_in_the_episode(recorded, tmp_path):
    action = spaces.Tuple([DISCRETE, spaces.Box(-1, 1, (2,))])
    truth = random_episode("one", ROBOT, action, 4)
    export(recorded([truth], ROBOT, action), "rllib", tmp_path / "out")
    (episode,) = loaded(tmp_path / "out").values()
    for step, observation in enumerate(truth.observations):
        found = episode.get_observations(step)
        assert ROBOT.contains(found)
        assert np.array_equal(found["arm"]["position"], observation["arm"]["position"])
        assert np.array_equal(found["goal"][0], observation["goal"][0])
    assert np.array_equal(episode.get_actions(3)[1], truth.actions[3][1])


def test_a_file_ends_when_it_is_large(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(to_rllib, "FILE_BYTES", 1)
    truths = [random_episode(name, CARTPOLE, DISCRETE, 2) for name in ("one", "two", "three")]
    export(recorded(truths, CARTPOLE, DISCRETE), "rllib", tmp_path / "out")
    assert len(list((tmp_path / "out" / "episodes").iterdir())) == 3
    assert len(loaded(tmp_path / "out")) == 3


@pytest.mark.exports
def test_rllib_trains_on_the_export(recorded, tmp_path):
    import ray
    from ray.rllib.algorithms.marwil import MARWILConfig

    truths = [random_episode(str(number), CARTPOLE, DISCRETE, 20) for number in range(40)]
    export(recorded(truths, CARTPOLE, DISCRETE), "rllib", tmp_path / "out")
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        config = (
            MARWILConfig()
            .environment(observation_space=CARTPOLE, action_space=DISCRETE)
            .training(train_batch_size_per_learner=200)
            .offline_data(
                input_=[str(tmp_path / "out" / "episodes")],
                input_read_episodes=True,
                input_read_batch_size=32,
                map_batches_kwargs={"concurrency": 1},
                iter_batches_kwargs={"prefetch_batches": 0},
                dataset_num_iters_per_learner=1,
            )
        )
        algorithm = config.build_algo()
        result = algorithm.train()["learners"]["default_policy"]
        assert result["num_module_steps_trained"] >= 200
        assert np.isfinite(result["policy_loss"])
        algorithm.stop()
        del algorithm
        gc.collect()  # objects of Ray Data ask Ray for their state when they are deleted
    finally:
        ray.shutdown()
