from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.registry.access import DirectRegistry, SubprocessRegistry, open_registry
from serving.registry.errors import VersionMissing
from serving.registry.registry import fetch, resolve
from tests.serving.store import Store


def test_the_subprocess_returns_what_the_functions_return_and_is_restarted(store: Store, tmp_path: Path) -> None:
    store.register("remote", stage="Production")
    registry = SubprocessRegistry(store.uri)
    version = registry.poll("models:/remote/Production")
    assert version == registry.resolve("models:/remote/Production") == resolve("models:/remote/Production")
    assert registry.fetch(version, tmp_path) == fetch(version, tmp_path)
    with pytest.raises(VersionMissing, match="is in stage 'Staging'"):
        registry.poll("models:/remote/Staging")
    process = registry._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(ServingError, match="the subprocess that calls it failed"):
        registry.poll("models:/remote/Production")
    assert registry.poll("models:/remote/Production").version == 1
    registry.close()


@pytest.mark.parametrize(
    ("uri", "kind"),
    [("http://127.0.0.1:1", DirectRegistry), ("sqlite:////tmp/mlflow.db", SubprocessRegistry)],
)
@pytest.mark.parametrize("registry_uri", [None, ""])
@pytest.mark.usefixtures("store")
def test_only_a_server_is_called_in_the_process(
    uri: str, kind: type, registry_uri: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if registry_uri is not None:
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry_uri)
    assert isinstance(open_registry(uri), kind)


@pytest.mark.parametrize(
    ("registry_uri", "kind"),
    [("http://127.0.0.1:1", DirectRegistry), ("sqlite:////tmp/registry.db", SubprocessRegistry)],
)
@pytest.mark.usefixtures("store")
def test_the_registry_of_its_own_variable_decides(
    registry_uri: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry_uri)
    assert isinstance(open_registry("http://127.0.0.1:2"), kind)
