import pytest

from serving.policy.policy import Policy
from serving.registry.model_version import ModelVersion
from tests.serving.asking import served
from tests.serving.policies import EXPLORING_BUNDLE, ROBOT_BUNDLE


def test_the_description_contains_all_that_a_client_needs() -> None:
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
        "explores": False,
        "recurrent": False,
        "evaluation": {"return_mean": 498.5},
        "loaded_at": "2023-11-14T22:13:20+00:00",
    }
    assert served(EXPLORING_BUNDLE).description["explores"]
    assert served(ROBOT_BUNDLE).description["action_space"]["spaces"]["mode"] == {
        "type": "Discrete",
        "n": 3,
        "start": 5,
    }


def test_the_headers_name_the_version_in_ascii() -> None:
    headers = dict(served(name="käse ☃", version=12).headers)
    assert headers[b"x-model-name"] == b"k%C3%A4se %E2%98%83"
    assert headers[b"x-model-version"] == b"12"


def test_a_protocol_prepares_once_for_each_version() -> None:
    calls = []

    def prepare(policy: Policy, version: ModelVersion) -> str:
        calls.append((policy, version.version))
        return f"prepared for {version.version}"

    old, new = served(version=3), served(version=4)
    assert [each.prepared(prepare) for each in (old, new, old, new)] == ["prepared for 3", "prepared for 4"] * 2
    assert calls == [(old.policy, 3), (new.policy, 4)]


def test_a_failure_to_prepare_is_raised_each_time() -> None:
    def prepare(policy: Policy, version: ModelVersion) -> str:
        raise ValueError(f"{policy.environment.id} {version.version}")

    policy = served()
    for _ in range(2):
        with pytest.raises(ValueError, match="CartPole-v1 3"):
            policy.prepared(prepare)
