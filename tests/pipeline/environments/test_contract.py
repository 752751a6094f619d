"""An environment that breaks Gymnasium's contract is rejected in one line; what is converted is reported."""

import contextlib

import pytest

from pipeline.config import TrainConfig
from pipeline.environments import contract
from pipeline.environments import make as environments
from pipeline.environments.errors import EnvironmentExclusive
from serving.policy.environments.errors import ContractBroken, EnvironmentMisbehaved, EnvironmentRaised
from serving.policy.errors import EnvironmentNotMade
from tests.workshop import free_port

STEP = "expected (observation, reward, terminated, truncated, info)"
RESET = "expected reset(*, seed=None, options=None)"

BROKEN = {
    "contract:ResetWithoutInfo": "reset returned [0.27392336",
    "contract:ResetWithoutSeed": f"reset takes no argument 'seed', {RESET}",
    "contract:ResetWithoutOptions": f"reset takes no argument 'options', {RESET}",
    "contract:ResetWithoutArguments": f"reset takes no argument 'seed', {RESET}",
    "contract:ResetInfoNone": "reset returned None as info, expected a dict",
    "contract:FourValues": f"step returned 4 values, {STEP}",
    "contract:StepInfoNone": "step returned None as info, expected a dict",
    "contract:OutsideTheSpace": (
        "reset of episode 1 (seed 0) returned the observation with 5.273923397064209, "
        "expected -1.0 to 1.0, the bounds of its space"
    ),
    "contract:LongObservations": (
        "reset of episode 1 (seed 0) returned the observation of shape (3,) float32, expected shape (2,) float32"
    ),
    "contract:PairReward": "step 1 of episode 1 (seed 0) returned a reward of shape (2,) float32, expected a number",
    "contract:TextReward": "step 1 of episode 1 (seed 0) returned the reward 'good', expected a number",
    "contract:NoneReward": "step 1 of episode 1 (seed 0) returned the reward None, expected a number",
    "contract:TerminatedNone": "step 1 of episode 1 (seed 0) returned None as terminated, expected True or False",
    "numbers:NanRewards": "step 3 of episode 1 (seed 0) returned the reward nan, expected a finite number",
    "numbers:InfiniteRewards": "step 3 of episode 1 (seed 0) returned the reward -inf, expected a finite number",
    "numbers:NanObservations": (
        "step 5 of episode 1 (seed 0) returned the observation with nan at index 0, expected finite numbers"
    ),
    "numbers:InfiniteObservations": (
        "step 5 of episode 1 (seed 0) returned the observation with inf at index 0, expected finite numbers"
    ),
}

CONVERTED = {
    "DoubleObservations": "the observation is float64 instead of float32, and is converted",
    "IntegerObservations": "the observation is int64 instead of float32, and is converted",
    "ListObservations": "the observation is a list instead of an array, and is converted to float32",
    "ArrayReward": "the reward is an array of shape (1,) instead of a number, and is converted",
}


def check(name):
    return contract.check(environments.describe(f"tests.zoo.{name}-v0"))


@pytest.mark.parametrize("name", BROKEN)
def test_the_error_says_what_was_returned_and_what_is_expected(name):
    with pytest.raises(ContractBroken) as caught:
        check(name)
    message = str(caught.value)
    assert message.startswith(f"the environment 'tests.zoo.{name}-v0' is not as Gymnasium specifies: {BROKEN[name]}")
    assert "\n" not in message


@pytest.mark.parametrize("name", CONVERTED)
def test_what_can_be_converted_is_and_is_reported(name):
    assert check(f"contract:{name}") == [f"tests.zoo.contract:{name}-v0: {CONVERTED[name]}"]
    with contextlib.closing(environments.describe(f"tests.zoo.contract:{name}-v0").make()) as made:
        assert made.reset(seed=0)[0] in made.observation_space
        observation, reward, terminated, truncated, _ = made.step(1)
    assert observation in made.observation_space
    assert [type(each) for each in (reward, terminated, truncated)] == [float, bool, bool]


def test_the_scalars_of_numpy_need_no_report():
    assert check("contract:NumpyScalars") == []
    with contextlib.closing(environments.describe("tests.zoo.contract:NumpyScalars-v0").make()) as made:
        made.reset(seed=0)
        assert [type(each) for each in made.step(1)[1:4]] == [float, bool, bool]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("StepRaises", "step 7 of episode 1 (seed 0) raised RuntimeError: the motor is stuck, at "),
        ("StepCallsExit", "step 7 of episode 1 (seed 0) raised SystemExit: 3, at "),
        ("ResetRaises", "reset raised RuntimeError: the door is locked, at "),
    ],
)
def test_an_exception_is_shown_with_its_call_and_its_line(name, message):
    with pytest.raises(EnvironmentRaised) as caught:
        check(f"failing:{name}")
    assert str(caught.value).startswith(f"the environment 'tests.zoo.failing:{name}-v0' failed: {message}")
    assert "failing.py:" in str(caught.value)
    assert 'raise RuntimeError("the' in str(caught.value) or "sys.exit(3)" in str(caught.value)
    assert "gymnasium/" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError | SystemExit)


def test_what_only_check_env_objects_to_is_reported():
    (objection,) = check("contract:OwnRandomNumbers")
    assert objection.startswith("tests.zoo.contract:OwnRandomNumbers-v0: Gymnasium's check_env objects: ")


@pytest.mark.parametrize(("name", "space"), [("WithoutSpaces", "action_space"), ("WithoutActionSpace", "action_space")])
def test_an_environment_without_spaces_is_not_made(name, space):
    with pytest.raises(EnvironmentNotMade, match=f"has no attribute '{space}'"):
        check(f"contract:{name}")


def test_an_environment_that_raises_when_it_is_closed_costs_nothing(caplog):
    assert [check("failing:CloseRaises") for _ in range(2)] == [[], []]
    message = "the environment 'tests.zoo.failing:CloseRaises-v0' failed: close raised RuntimeError: the door is stuck"
    (record,) = caplog.records  # not one per environment of each evaluation
    assert record.getMessage().startswith(message)


def test_a_policy_that_masks_actions_may_have_an_environment_that_forbids_some():
    env_id = "tests.zoo.masking:Masked-v0"
    with pytest.raises(EnvironmentRaised, match=r"step raised ValueError: action \d is forbidden, at \S*masking.py"):
        contract.described(TrainConfig(env_id=env_id), print)
    notes = []
    contract.described(TrainConfig(env_id=env_id, rl_module="tests.zoo.masking:MinusInfinity"), notes.append)
    (note,) = notes
    assert "a random action ended the check, which the policy may not choose: step raised ValueError: action" in note


def test_a_policy_that_masks_actions_excuses_no_failure_of_reset():
    with pytest.raises(EnvironmentRaised, match="reset raised RuntimeError"):
        contract.check(environments.describe("tests.zoo.failing:ResetRaises-v0"), takes_any_action=False)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "tests.pipeline.zoo:Nested-v0"])
def test_gymnasiums_environments_are_as_it_specifies(env_id):
    assert contract.check(environments.describe(env_id)) == []


def test_an_environment_that_binds_a_port_is_exclusive():
    reason = contract.exclusivity(environments.describe("tests.zoo.failing:OneOnly-v0", {"port": free_port()}))
    assert "Address already in use" in reason


def test_an_environment_that_can_be_made_twice_is_not_exclusive():
    assert contract.exclusivity(environments.describe("tests.zoo.base:Behaved-v0")) is None


def test_misbehaviour_after_the_check_is_named_by_seed_episode_and_step():
    with contextlib.closing(environments.describe("tests.zoo.failing:ResetRaisesLater-v0").make()) as made:
        made.reset(seed=3)
        with pytest.raises(EnvironmentMisbehaved, match=r"reset of episode 2 \(seed 4\) raised RuntimeError: the door"):
            made.reset(seed=4)


ONE_ONLY = {"env_id": "tests.zoo.failing:OneOnly-v0", "num_envs_per_env_runner": 1}


@pytest.mark.parametrize(
    ("settings", "is_search", "remedy"),
    [
        ({"num_envs_per_env_runner": 2}, False, "Train it with --num-envs-per-env-runner 1 and --num-env-runners 0:"),
        ({"num_env_runners": 1}, False, "Train it with --num-envs-per-env-runner 1 and --num-env-runners 0:"),
        ({}, True, "A search needs several; train with: python -m pipeline train"),
    ],
)
def test_several_environments_where_one_can_exist_are_refused_before_training(settings, is_search, remedy):
    config = TrainConfig(env_kwargs=f'{{"port": {free_port()}}}', **(ONE_ONLY | settings))
    with pytest.raises(EnvironmentExclusive) as caught:
        contract.described(config, pytest.fail, is_search=is_search)
    assert "can exist once only: making a second one failed ([Errno 98] Address already in use" in str(caught.value)
    assert remedy in str(caught.value)


def test_the_description_says_that_one_environment_can_exist():
    notes = []
    kwargs = f'{{"port": {free_port()}}}'
    assert contract.described(TrainConfig(env_kwargs=kwargs, **ONE_ONLY), notes.append).is_exclusive
    assert not contract.described(TrainConfig(env_id="tests.zoo.contract:ArrayReward-v0"), notes.append).is_exclusive
    assert len(notes) == 1
