import json

from gymnasium import spaces

from tests.serving.policies import STEERING_BUNDLE, served


def test_the_model_answer_tells_a_client_all_it_needs() -> None:
    model = served().description
    assert model["observation_space"]["low"][1] == "-inf"
    assert {key: model[key] for key in model if key != "observation_space"} == {
        "name": "cartpole-ppo",
        "version": 3,
        "model_uri": "models:/cartpole-ppo/Production",
        "stage": "Production",
        "run_id": "0123",
        "environment": {"id": "CartPole-v1", "kwargs": {}},
        "action_space": {"type": "Discrete", "n": 2, "start": 0},
        "evaluation": {"return_mean": 498.5},
        "loaded_at": "2023-11-14T22:13:20+00:00",
    }


def test_headers_name_the_version_in_ascii() -> None:
    headers = dict(served(name="käse ☃", version=12).headers)
    assert headers[b"x-model-name"] == b"k%C3%A4se %E2%98%83"
    assert headers[b"x-model-version"] == b"12"


def test_continuous_actions_are_answered_in_the_environments_space() -> None:
    steering = served(STEERING_BUNDLE)
    action = json.loads(steering.answer(b'{"observation": [0.0]}'))["action"]
    assert action == [0.0]
    assert spaces.Box(-2, 2, (1,)).shape == (len(action),)


def test_an_empty_batch_is_answered_without_the_policy() -> None:
    assert served().answer(b'{"observations": []}') == b'{"actions":[]}'
