from typing import Any

import pytest

from serving.policy.environments import make
from serving.policy.errors import EnvironmentUnknown

COUNTING = "tests.serving.counting:Counting-v0"


def test_an_environment_is_made_of_its_id_and_arguments() -> None:
    environment = make(COUNTING, {"steps": 1})
    environment.reset(seed=0)
    assert environment.step(1)[2]


def test_wrappers_are_put_around_it() -> None:
    environment = make(COUNTING, {}, ["tests.serving.counting:Negated"])
    environment.reset(seed=0)
    rewards = {environment.step(action)[1] for action in (0, 1, 0)}
    assert rewards <= {0.0, -1.0}


@pytest.mark.filterwarnings("ignore")
def test_a_legacy_environment_speaks_gymnasiums_interface() -> None:
    environment = make("gym:CartPole-v1", {})
    observation, _ = environment.reset(seed=0)
    assert observation.shape == (4,)
    assert len(environment.step(1)) == 5


@pytest.mark.parametrize(
    ("env_id", "kwargs", "wrappers"),
    [
        ("Nope-v0", {}, []),
        ("nowhere:Nope-v0", {}, []),
        (COUNTING, {"color": 1}, []),
        (COUNTING, {}, ["tests.serving.counting:Nope"]),
        (COUNTING, {}, ["nowhere"]),
    ],
)
def test_what_cannot_be_made_is_named(env_id: str, kwargs: dict[str, Any], wrappers: list[str]) -> None:
    with pytest.raises(EnvironmentUnknown, match=f"cannot make the environment '{env_id}'"):
        make(env_id, kwargs, wrappers)
