import pytest

from serving.registry.errors import ModelUriInvalid
from serving.registry.model_uri import Reference


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
def test_each_way_to_name_a_version_is_understood(uri: str, expected: dict[str, object]) -> None:
    assert Reference.parse(uri) == Reference(uri, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("uri", ["", "m/3", "models:/m", "models:/m/", "models:/m/Prod", "models:/m/3/x", "runs:/1/m"])
def test_anything_else_is_refused_with_the_forms_there_are(uri: str) -> None:
    with pytest.raises(ModelUriInvalid) as caught:
        Reference.parse(uri)
    assert str(caught.value) == (
        f"'{uri}' names no registered model, expected models:/NAME/STAGE, models:/NAME@ALIAS, "
        "models:/NAME/NUMBER or models:/NAME/latest"
    )
