import errno
import os
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.registry import access, registry
from serving.registry.access import DirectRegistry, SubprocessRegistry, open_registry
from serving.registry.errors import CacheUnwritable, VersionMissing
from serving.registry.registry import fetch, resolve
from tests.serving.store import Store


def test_the_subprocess_returns_what_the_functions_return_and_is_restarted(store: Store, tmp_path: Path) -> None:
    store.register("remote", stage="Production")
    remote = SubprocessRegistry(store.uri)
    version = remote.poll("models:/remote/Production")
    assert version == remote.resolve("models:/remote/Production") == resolve("models:/remote/Production")
    assert remote.fetch(version, tmp_path) == fetch(version, tmp_path)
    with pytest.raises(VersionMissing, match="is in stage 'Staging'"):
        remote.poll("models:/remote/Staging")
    process = remote._process
    assert process is not None
    process.kill()
    process.wait()
    with pytest.raises(ServingError, match="the subprocess that calls it failed"):
        remote.poll("models:/remote/Production")
    assert remote.poll("models:/remote/Production").version == 1
    remote.close()


def test_only_a_replica_that_polls_keeps_a_subprocess(store: Store, tmp_path: Path) -> None:
    store.register("kept", stage="Production")
    polls, follows = SubprocessRegistry(store.uri), SubprocessRegistry(store.uri)
    version = polls.poll("models:/kept/Production")
    bundle = follows.fetch(version, tmp_path)
    assert follows._process is None, "the download is over"
    assert polls.fetch(version, tmp_path) == bundle
    assert polls._process is not None
    polls.close()
    polls._connect = follows._connect = lambda: pytest.fail("the bundle is in the cache")  # type: ignore[method-assign]
    assert polls.fetch(version, tmp_path) == follows.fetch(version, tmp_path) == bundle


def test_a_full_disk_under_the_subprocess_is_an_error_of_the_cache(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = resolve(f"models:/large/{store.register('large')}")

    def download(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(registry, "download", download)
    with pytest.raises(CacheUnwritable, match=r"/caches: No space left on device\. Choose another directory"):
        access._download(version, tmp_path, Path("/caches"))


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
