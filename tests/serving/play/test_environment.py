import io
import json
from typing import Any

import numpy as np
import pytest

from serving.play.environment import answers, plain

CARTPOLE = {"environment": {"id": "CartPole-v1", "kwargs": {}}}


def played(*lines: Any) -> list[dict[str, Any]]:
    return list(answers(io.StringIO("".join(json.dumps(line) + "\n" for line in lines))))


def test_an_episode_is_played_line_by_line() -> None:
    stage, begun, stepped = played(CARTPOLE, {"seed": 1}, {"action": 1})
    assert (stage["scene"]["kind"], stage["steps_per_s"]) == ("cartpole", 20.0)
    assert begun["observation"][0] == pytest.approx(begun["picture"]["position"], abs=1e-6)
    assert (stepped["reward"], stepped["done"]) == (1.0, False)
    assert stepped["observation"] != begun["observation"]


def test_a_grid_world_goes_as_slowly_as_it_asks_to() -> None:
    (stage,) = played({"environment": {"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}}})
    assert (stage["scene"]["kind"], stage["steps_per_s"]) == ("frames", 4.0)


def test_an_environment_without_a_render_mode_is_made_without_one() -> None:
    stage, begun = played({"environment": {"id": "tests.serving.counting:Counting-v0", "kwargs": {}}}, {"seed": 0})
    assert (stage["scene"]["kind"], begun["picture"]) == ("numbers", None)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (
            [{"environment": {"id": "Nowhere-v0", "kwargs": {}}}],
            "cannot make the environment 'Nowhere-v0': Environment `Nowhere` doesn't exist.",
        ),
        ([CARTPOLE, {"seed": 0}, {"action": 7}, {"action": 0}], "AssertionError: 7 (<class 'int'>) invalid"),
    ],
)
def test_what_fails_is_told_and_ends_it(lines: list[Any], error: str) -> None:
    assert played(*lines)[-1] == {"error": error}


def test_observations_have_their_json_form_and_large_arrays_go_in_base64() -> None:
    small = {"a": (np.float32(0.5), np.int64(3)), "b": np.zeros((2, 1), np.int8)}
    assert plain(small) == {"a": [0.5, 3], "b": [[0], [0]]}
    assert plain(np.zeros((8, 9), np.uint8))["shape"] == [8, 9]
