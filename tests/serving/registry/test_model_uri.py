import pytest

from serving.registry.errors import ModelUriInvalid
from serving.registry.model_uri import ModelUri, is_route_prefix, route_prefix


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


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("cartpole-ppo", "/cartpole-ppo"),
        ("v1.2_a~b", "/v1.2_a~b"),
        ("my ppo", "/my-ppo"),
        ("été", "/-t-"),
        ("50%", "/50-"),
        ("ppo#1", "/ppo-1"),
        ("a?b&c", "/a-b-c"),
        ("{x}\n", "/-x--"),
    ],
)
def test_the_route_of_a_model_has_only_characters_that_mean_the_same_everywhere(name: str, route: str) -> None:
    assert route_prefix(name) == route
    assert is_route_prefix(route)


@pytest.mark.parametrize(
    "prefix", ["", "x", "/x/", "//x", "/a b", "/50%", "/%20", "/x#1", "/é", "/{x}", "/x?y", "/.", "/../x", "/a\n"]
)
def test_other_route_prefixes_are_not_valid(prefix: str) -> None:
    assert not is_route_prefix(prefix)


@pytest.mark.parametrize("prefix", ["/", "/x", "/models/a.b", "/..."])
def test_paths_are_valid_route_prefixes(prefix: str) -> None:
    assert is_route_prefix(prefix)
