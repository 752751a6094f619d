import json

import numpy as np
import pytest
from gymnasium import spaces

from pipeline.evaluation import evaluation
from pipeline.reference.errors import ReferenceUnreadable
from pipeline.reference.reference import Reference, ReferenceRecorder, quantiles_of

SPACE = spaces.Dict(position=spaces.Box(-9, 9, (1,)), grip=spaces.Discrete(3))


@pytest.fixture
def recorded():
    """Two episodes, of three steps and of one."""
    recorder = ReferenceRecorder(SPACE)
    recorder([0, 1], [{"position": [1.0], "grip": 0}, {"position": [-4.0], "grip": 2}])
    recorder([0], [{"position": [2.0], "grip": 0}])
    recorder([0], [{"position": [3.0], "grip": 1}])
    return recorder


def test_the_file_has_quantiles_of_numbers_and_counts_of_categories(recorded, tmp_path):
    recorded.write(tmp_path)
    content = json.loads((tmp_path / "reference.json").read_text())
    grip, position = content.pop("dimensions")
    assert content == {"format": 1, "episodes": 2, "steps": 4, "quantiles_per_episode": 16, "lengths": [3, 1]}
    assert (grip["name"], grip["start"], grip["counts"]) == ("grip", 0, [2, 1, 1])
    assert position["name"] == "position[0]"
    assert len(position["quantiles"]) == 64
    assert position["quantiles"] == sorted(position["quantiles"])
    assert (position["quantiles"][0], position["quantiles"][-1]) == (-4, 3)


def test_what_is_read_is_what_was_written(recorded):
    written = recorded.reference()
    read = Reference.from_bytes(written.to_bytes())
    assert (read.dimensions, read.episodes, read.quantiles_per_episode) == (written.dimensions, 2, 16)
    np.testing.assert_array_equal(read.sketches.first, written.sketches.first)
    for one, other in zip(read.sketches.values, written.sketches.values, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_evaluation_shows_all_its_observations(cartpole):
    from pipeline.evaluation.player import Player

    spaces_of = cartpole.observation_space, cartpole.action_space
    player = Player(*spaces_of, lambda feeds: {"action": np.zeros(len(feeds["observations"]), np.int64)})
    recorder = ReferenceRecorder(cartpole.observation_space)
    result = evaluation.play(player, cartpole, 5, 100, recorder)
    reference = recorder.reference()
    assert reference.sketches.lengths.tolist() == list(result.returns)
    with_seed = cartpole.make().reset(seed=103)[0]
    np.testing.assert_array_equal(reference.sketches.first[3], with_seed)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "lengths": [1], "dimensions": [{"name": "0"}]}'],
)
def test_a_file_with_other_content_is_refused(content):
    with pytest.raises(ReferenceUnreadable, match=r"^reference\.json cannot be read: "):
        Reference.from_bytes(content)


def test_long_episodes_count_more_in_the_quantiles():
    values = np.array([[0, 0], [1, 1]], np.float32)
    assert quantiles_of(values, np.array([3, 1]), 5).tolist() == [0, 0, 0, 0, 1]
