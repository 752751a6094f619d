import importlib.metadata
import logging
import shutil
from pathlib import Path

import pytest

import serving
from serving import release as module
from serving.release import release, warn_if_other


def test_the_release_is_the_version_and_a_hash_of_the_code() -> None:
    version, _, hashed = release().rpartition("+")
    assert version == importlib.metadata.version("cartpole-ppo")
    assert len(hashed) == 12


def test_a_change_of_the_code_is_another_release_and_a_change_of_the_configuration_is_not(tmp_path: Path) -> None:
    copy = tmp_path / "serving"
    shutil.copytree(Path(serving.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    same = module._hash(copy)
    assert release().endswith(f"+{same}")
    with (copy / "config.yaml").open("a") as file:
        file.write("# ours\n")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"x")
    assert module._hash(copy) == same
    page = copy / "play" / "web" / "page.css"
    page.write_text(page.read_text().swapcase())
    assert module._hash(copy) != same


def test_a_node_that_lacks_the_deployed_release_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for deployed in (None, release(), "december", "9.9+notahash"):
            warn_if_other(deployed)
        assert caplog.messages == []
        warn_if_other("9.9.0+0123456789ab")
    expected = f"release 9.9.0+0123456789ab was deployed, and this node has {release()}: install it on each node"
    assert caplog.messages == [expected]
