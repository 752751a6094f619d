import pickle

import pytest
from pydantic import ValidationError

from serving.arguments import Arguments, Autoscaling


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "min_replicas 3 is above max_replicas 2"),
        (
            {"autoscaling": {}, "num_replicas": 2},
            "num_replicas and autoscaling contradict each other: give one of them",
        ),
        (
            {"autoscaling": {"target_ongoing_requests": 9}, "max_ongoing_requests": 8},
            "target_ongoing_requests is above max_ongoing_requests and can never be reached: lower it",
        ),
        (
            {"batch_wait_timeout_s": 0.01, "max_batch_size": 1},
            "batch_wait_timeout_s only adds latency if max_batch_size is 1: give one of them",
        ),
        (
            {"cors_origin": ["https://a.example.com", "https://b.example.com/"]},
            "'https://b.example.com/' is no origin, expected one like https://robots.example.com, without path",
        ),
        (
            {"cors_origin": "robots.example.com"},
            "'robots.example.com' is no origin, expected one like https://robots.example.com, without path",
        ),
        (
            {"environment_modules": "reach:Reach-v0"},
            "'reach:Reach-v0' is no module, expected the part of an environment's id before the colon",
        ),
        (
            {"gpus_per_replica": 0.5},
            "gpus_per_replica applies to execution_provider cuda only: give both, or neither",
        ),
        ({"execution_provider": "cuda", "gpus_per_replica": 2}, "Input should be less than or equal to 1"),
        ({"execution_provider": "tpu"}, "Input should be 'cpu' or 'cuda'"),
        ({"autoscaling": {"minimum": 1}}, "Extra inputs are not permitted"),
        ({"model_url": "models:/m/1"}, "Extra inputs are not permitted"),
    ],
)
def test_contradictions_and_unknown_names_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Arguments.model_validate(arguments)
    assert [error["msg"].removeprefix("Value error, ") for error in refused.value.errors()] == [message]


@pytest.mark.parametrize(
    "arguments",
    [
        {"tracking_uri": "http://robot:s3cret@h:5000"},
        {"tracking_uri": "postgresql+psycopg2://robot:s3cret@h/db"},
        {"tracking_url": "http://robot:s3cret@h:5000"},
        {"autoscaling": "http://robot:s3cret@h:5000"},
    ],
)
def test_a_password_in_the_arguments_is_refused_and_not_repeated(arguments: dict[str, object]) -> None:
    """Serve shows the message on Ray's dashboard."""
    with pytest.raises(ValidationError) as refused:
        Arguments.model_validate(arguments)
    assert "s3cret" not in str(refused.value)


def test_a_user_without_password_is_accepted_in_the_uri_of_a_database() -> None:
    uri = "postgresql+psycopg2://robot@h/db"
    assert Arguments(tracking_uri=uri).tracking_uri == uri


def test_text_becomes_the_type_of_the_argument() -> None:
    arguments = Arguments.model_validate({"num_threads": "2", "autoscaling": '{"max_replicas": 4}'})
    assert arguments.num_threads == 2
    assert arguments.autoscaling == Autoscaling(max_replicas=4)
    assert arguments.largest_num_replicas == 4


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ((), ()),
        ("*", ("*",)),
        ("https://a.example.com, http://localhost:3000", ("https://a.example.com", "http://localhost:3000")),
        (["https://a.example.com,capacitor://localhost", "*"], ("https://a.example.com", "capacitor://localhost", "*")),
    ],
)
def test_origins_are_a_list_or_a_text_with_commas(given: object, origins: tuple[str, ...]) -> None:
    assert Arguments.model_validate({"cors_origin": given}).cors_origin == origins


def test_files_of_trusted_keys_are_a_list_or_a_text_with_commas() -> None:
    assert Arguments.model_validate({"trusted_key": "a.pem, b.pem"}).trusted_key == ("a.pem", "b.pem")


def test_modules_are_a_list_or_a_text_with_commas() -> None:
    for given in ("reach, minigrid.envs", ["reach", "minigrid.envs"]):
        arguments = Arguments.model_validate({"environment_modules": given})
        assert arguments.environment_modules == ("reach", "minigrid.envs")


@pytest.mark.parametrize("model", [Arguments, Autoscaling])
def test_every_argument_is_described(model: type[Arguments] | type[Autoscaling]) -> None:
    assert all(field.description for field in model.model_fields.values())


def test_arguments_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(Arguments(num_threads=2))) == Arguments(num_threads=2)
