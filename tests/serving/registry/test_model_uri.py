import pytest

from serving.registry.errors import ModelUriInvalid
from serving.registry.model_uri import ModelUri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/m/3", {"name": "m", "number": 3}),
        ("models:/m/Production", {"name": "m", "stage": "Production"}),
        ("models:/m/staging", {"name": "m", "stage": "Staging"}),
        ("models:/m/latest", {"name": "m"}),
        ("models:/a b.c-d@champion", {"name": "a b.c-d", "alias": "champion"}),
    ],
)
def test_each_form_of_a_uri_is_parsed(uri: str, expected: dict[str, object]) -> None:
    assert ModelUri.parse(uri) == ModelUri(**expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("uri", ["", "m/3", "models:/m", "models:/m/", "models:/m/Prod", "models:/m/3/x", "runs:/1/m"])
def test_the_error_of_any_other_uri_names_the_valid_forms(uri: str) -> None:
    with pytest.raises(ModelUriInvalid) as caught:
        ModelUri.parse(uri)
    assert str(caught.value) == (
        f"'{uri}' is not the URI of a registered model, expected models:/NAME/STAGE, models:/NAME@ALIAS, "
        "models:/NAME/NUMBER or models:/NAME/latest"
    )
