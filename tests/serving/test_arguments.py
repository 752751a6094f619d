import pytest
from pydantic import ValidationError

from serving.app import Arguments
from serving.arguments import Autoscaling


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "min_replicas 3 is above max_replicas 2"),
        (
            {"autoscaling": {}, "num_replicas": 2},
            "num_replicas and autoscaling contradict each other: give one of them",
        ),
        (
            {"autoscaling": {"target_ongoing_requests": 9}, "max_ongoing_requests": 8},
            "target_ongoing_requests above max_ongoing_requests is never reached: lower it",
        ),
        (
            {"batch_wait_timeout_s": 0.01, "max_batch_size": 1},
            "batch_wait_timeout_s with a max_batch_size of 1 would only add latency: raise it",
        ),
        ({"autoscaling": {"minimum": 1}}, "Extra inputs are not permitted"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Arguments.model_validate(arguments)
    assert [error["msg"].removeprefix("Value error, ") for error in refused.value.errors()] == [line]


def test_every_argument_is_described() -> None:
    assert all(field.description for field in Autoscaling.model_fields.values())
