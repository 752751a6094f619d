import pytest

from serving.registry.node.scope import scope

URI = "models:/scoped/Production"


def test_applications_models_registries_and_workspaces_never_share_a_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    scopes = [
        scope("http://one", URI, "a"),
        scope("http://one", URI, "b"),
        scope("http://one", URI, None),
        scope("http://one", "models:/scoped/Staging", "a"),
        scope("http://two", URI, "a"),
    ]
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    scopes.append(scope("http://one", URI, "a"))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://registry")
    scopes.append(scope("http://one", URI, "a"))
    assert len(set(scopes)) == len(scopes)
    assert scope("http://two", URI, "a") == scopes[-1], "MLFLOW_REGISTRY_URI names the registry"


def test_a_scope_outlives_a_new_password() -> None:
    assert scope("http://user:old@one", URI, "a") == scope("http://user:new@one", URI, "a")
