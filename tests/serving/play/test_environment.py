import io
import json
from typing import Any

import pytest

from serving.play.environment import responses

CARTPOLE = {"environment": {"id": "CartPole-v1", "kwargs": {}}}


def played(*lines: Any) -> list[dict[str, Any]]:
    return list(responses(io.StringIO("".join(json.dumps(line) + "\n" for line in lines))))


def test_each_line_is_answered_with_a_step_of_the_episode() -> None:
    description, first, stepped = played(CARTPOLE, {"seed": 1}, {"action": 1})
    assert (description["scene"]["kind"], description["steps_per_s"]) == ("cartpole", 20.0)
    assert first["observation"][0] == pytest.approx(first["picture"]["position"], abs=1e-6)
    assert (stepped["reward"], stepped["done"]) == (1.0, False)
    assert stepped["observation"] != first["observation"]


def test_an_episode_that_does_not_end_is_cut() -> None:
    environment = {"id": "tests.zoo.endless:Endless-v0", "kwargs": {}, "max_episode_steps": 3}
    *_, second, third = played({"environment": environment}, {"seed": 1}, *[{"action": 1}] * 3)
    assert (second["done"], third["done"]) == (False, True)


def test_an_environment_limits_its_steps_per_second_by_render_fps() -> None:
    (description,) = played({"environment": {"id": "FrozenLake-v1", "kwargs": {"is_slippery": False}}})
    assert (description["scene"]["kind"], description["steps_per_s"]) == ("frames", 4.0)


def test_an_environment_without_render_modes_has_no_picture() -> None:
    description, first = played(
        {"environment": {"id": "tests.serving.counting:Counting-v0", "kwargs": {}}}, {"seed": 0}
    )
    assert (description["scene"]["kind"], first["picture"]) == ("numbers", None)


def test_an_environment_that_renders_nothing_keeps_its_wrappers() -> None:
    counting = "tests.serving.counting"
    described = {"id": f"{counting}:Counting-v0", "kwargs": {}, "wrappers": [f"{counting}:Negated"]}
    _, _, *steps = played({"environment": described}, {"seed": 0}, *({"action": action} for action in (0, 1, 0, 1)))
    assert {step["reward"] for step in steps} == {0, -1}


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (
            [{"environment": {"id": "Nowhere-v0", "kwargs": {}}}],
            "cannot make the environment 'Nowhere-v0': Environment `Nowhere` doesn't exist.",
        ),
        (
            [CARTPOLE, {"seed": 0}, {"action": 7}, {"action": 0}],
            "step 1 of episode 2 (seed 0) raised AssertionError: np.int64(7) (<class 'numpy.int64'>) invalid",
        ),
        (
            [
                {"environment": {"id": "tests.zoo.numbers:NanRewards-v0", "kwargs": {}}},
                {"seed": 4},
                *[{"action": 0}] * 3,
            ],
            "step 3 of episode 2 (seed 4) returned the reward nan, expected a finite number",
        ),
    ],
)
def test_an_exception_is_the_last_response(lines: list[Any], error: str) -> None:
    assert played(*lines)[-1] == {"error": error}


def test_large_observations_are_sent_in_base64() -> None:
    wrappers = ["gymnasium.wrappers:AddRenderObservation"]
    _, first = played({"environment": {"id": "CartPole-v1", "kwargs": {}, "wrappers": wrappers}}, {"seed": 0})
    assert (first["observation"]["dtype"], first["observation"]["shape"]) == ("uint8", [400, 600, 3])


def test_an_environment_receives_arrays_in_the_dtype_of_its_space() -> None:
    described = {"environment": {"id": "tests.zoo.failing:ArrayActions-v0", "kwargs": {}}}
    assert played(described, {"seed": 0}, {"action": [0.5]})[-1]["done"] is False
