import pickle
from dataclasses import fields
from typing import Any

import pytest

from serving import app  # noqa: F401  # imports every module that defines errors
from serving.errors import RequestError, ServingError, http_errors
from serving.policy.errors import BundleError


def all_errors(base: type[ServingError] = ServingError) -> list[type[ServingError]]:
    return [each for child in base.__subclasses__() for each in (child, *all_errors(child))]


CONCRETE = [each for each in all_errors() if not each.__subclasses__()]
SAMPLES: dict[Any, Any] = {str: "x", int: 1, float: 1.0, "tuple[int, ...] | None": (1,)}


def sample(kind: type[ServingError]) -> ServingError:
    values = {field.name: SAMPLES.get(field.type, ("a", "b")) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**values)


@pytest.mark.parametrize("kind", CONCRETE)
def test_pickling_preserves_the_message_and_the_fields_of_an_error(kind: type[ServingError]) -> None:
    error = sample(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert vars(copy) == vars(error)


def test_every_request_error_declares_a_status_of_4xx_and_a_code() -> None:
    requests = {kind for kind in CONCRETE if issubclass(kind, RequestError)}
    assert requests <= set(http_errors())
    assert all(400 <= kind.status < 500 for kind in requests)


def test_no_two_errors_have_the_same_code() -> None:
    codes = [kind.code for kind in http_errors()]
    assert len(set(codes)) == len(codes)


def test_every_error_has_a_docstring() -> None:
    generated = [kind.__name__ for kind in CONCRETE if str(kind.__doc__).startswith(f"{kind.__name__}(")]
    assert generated == [], "dataclass has generated these docstrings"


def test_every_error_that_rejects_a_version_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in CONCRETE if issubclass(kind, BundleError)]
    assert len(codes) == len(set(codes)) == 17
    assert "digest_mismatch" in codes
