import base64
import io
import sys

import gymnasium
import pytest
from PIL import Image

from serving.play.environment import SteppedEnvironment
from serving.play.scenes import MAX_FRAME, scene_of
from serving.policy import environments
from tests.serving.counting import Counting
from tests.zoo import drawing


@pytest.mark.parametrize("env_id", ["CartPole-v1", "gym:CartPole-v1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_cartpole_is_drawn_from_its_state(env_id: str) -> None:
    environment = environments.make(env_id, {})
    observation, _ = environment.reset(seed=3)
    scene = scene_of(environment)
    described = scene.describe()
    assert (described["kind"], described["max_position"], described["pole_length"]) == ("cartpole", 2.4, 1.0)
    assert scene.picture() == pytest.approx({"position": observation[0], "angle": observation[2]}, abs=1e-6)


def test_cartpole_is_drawn_even_if_a_wrapper_hides_its_state() -> None:
    inner = gymnasium.make("CartPole-v1")
    blind = gymnasium.wrappers.TransformObservation(inner, lambda _: 0, gymnasium.spaces.Discrete(1))
    blind.reset(seed=0)
    assert scene_of(blind).describe()["kind"] == "cartpole"


def test_other_environments_are_shown_as_reduced_frames() -> None:
    environment = environments.make("Pendulum-v1", {"render_mode": "rgb_array"})
    environment.reset(seed=0)
    scene = scene_of(environment)
    assert scene.describe() == {"kind": "frames", "width": 500, "height": 500}
    image = Image.open(io.BytesIO(base64.b64decode(scene.picture()["jpeg"])))
    assert (image.format, image.size) == ("JPEG", (MAX_FRAME[1], MAX_FRAME[1]))


def test_an_environment_whose_library_for_drawing_is_missing_shows_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    environment = environments.make("Pendulum-v1", {"render_mode": "rgb_array"})
    environment.reset(seed=0)
    assert scene_of(environment).describe() == {"kind": "numbers"}


def test_an_environment_that_renders_nothing_has_no_picture() -> None:
    environment = Counting()
    environment.reset(seed=0)
    scene = scene_of(environment)
    assert (scene.describe(), scene.picture()) == ({"kind": "numbers"}, None)


@pytest.mark.parametrize("name", [*drawing.OTHER_FORMS, "ChangingSize"])
def test_frames_of_any_form_are_shown(name: str) -> None:
    environment = environments.make(f"tests.zoo.drawing:{name}-v0", {"render_mode": "rgb_array"})
    environment.reset(seed=0)
    scene = scene_of(environment)
    assert scene.describe() == {"kind": "frames", "width": 40, "height": 30}
    image = Image.open(io.BytesIO(base64.b64decode(scene.picture()["jpeg"])))
    assert image.getpixel((2, 2)) == (0, 0, 0)
    assert image.getpixel((20, 2)) == (255, 255, 255)


@pytest.mark.parametrize("name", drawing.NOT_DRAWN)
def test_an_environment_that_fails_to_draw_is_shown_in_numbers(name: str) -> None:
    described = {"id": f"tests.zoo.drawing:{name}-v0", "kwargs": {}}
    environment = SteppedEnvironment(described)
    picture = environment.reset(0)["picture"]
    for _ in range(6):
        picture = environment.step(1)["picture"]
    assert picture is None
    kind = "frames" if name == "RenderRaisesLater" else "numbers"
    assert environment.describe()["scene"]["kind"] == kind
