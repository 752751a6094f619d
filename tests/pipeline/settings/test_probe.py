"""Random actions tell the scale of rewards and observations, and a failing environment is left to its check."""

import pytest

from pipeline.environments import make as environments
from pipeline.settings.probe import Probe, probed


def test_the_discounted_return_and_the_largest_observation_are_found():
    found = probed(environments.describe("Pendulum-v1"), gamma=0.9)
    assert 40 < found.value < 80, "rewards are about -6 a step"
    assert 1 < found.largest <= 8


def test_a_longer_horizon_finds_a_larger_return():
    described = environments.describe("Pendulum-v1")
    assert probed(described, gamma=0.99).value > probed(described, gamma=0.9).value > probed(described, gamma=0).value


@pytest.mark.parametrize("name", ["failing:StepRaises", "failing:StepCallsExit", "contract:FourValues"])
def test_nothing_is_found_in_an_environment_that_fails(name):
    assert probed(environments.describe(f"tests.zoo.{name}-v0"), gamma=0.99) == Probe()
