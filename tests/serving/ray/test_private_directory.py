"""Directories of servers that were killed are removed by a later start, and no others."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.ray import private_directory
from serving.ray.errors import NoExecutableDirectory
from tests.workshop import PROJECT

CODE = """if True:
    import sys
    from pathlib import Path
    from serving.ray import private_directory
    private_directory.ROOT = Path(sys.argv[1])
    print(private_directory.create(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that stands for /tmp."""
    monkeypatch.setattr(private_directory, "ROOT", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_later_start_removes_the_directory_of_a_killed_server_but_not_of_a_living_one(root: Path) -> None:
    command = [sys.executable, "-c", CODE, str(root)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        directory = Path(owner.stdout.readline().strip())
        assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IRWXU
        private_directory.create()
        assert directory.exists(), "its owner lives"
        owner.send_signal(signal.SIGKILL)
    assert directory.exists(), "a killed process cannot remove it"
    private_directory.create()
    assert not directory.exists()


def test_directories_of_other_programs_stay(root: Path) -> None:
    foreign, link = root / "serving-else", root / "serving-link"
    (foreign / "content").mkdir(parents=True)
    (target := root / "target").mkdir()
    (target / private_directory.LOCK).touch()
    link.symlink_to(target)
    private_directory.create()
    assert (foreign / "content").exists()
    assert (target / private_directory.LOCK).exists()


NODE_CODE = """if True:
    import os, sys
    from pathlib import Path
    from serving.ray import private_directory
    private_directory.ROOT = Path(sys.argv[1])
    directory = private_directory.create_for_node()
    os.environ[private_directory.VARIABLE] = str(directory / "haproxy.cfg")
    os.execv("/bin/sh", ["sh", "-c", f"echo {directory}; read line"])
"""


@pytest.fixture
def node(root: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process like those of a node, which prints its directory and ends with its input."""
    command = [sys.executable, "-c", NODE_CODE, str(root)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def directory_of(node: "subprocess.Popen[str]") -> Path:
    assert node.stdout
    return Path(node.stdout.readline().strip())


def test_the_directory_of_a_node_stays_until_the_nodes_processes_have_ended(node: "subprocess.Popen[str]") -> None:
    directory = directory_of(node)
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IRWXU
    private_directory.create()
    assert directory.exists(), "a process of the node has it in its environment"
    node.kill()
    node.wait()
    assert directory.exists()
    private_directory.create_for_node()
    assert not directory.exists()


def test_the_directory_of_a_node_in_another_container_stays(
    node: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    """Its processes cannot be seen from here."""
    directory = directory_of(node)
    node.kill()
    node.wait()
    (other := root / "namespace").touch()
    monkeypatch.setattr(private_directory, "PID_NAMESPACE", other)
    private_directory.create()
    assert directory.exists()


def test_the_directory_that_serve_makes_on_a_node_stays_until_its_proxy_has_ended(root: Path) -> None:
    code = "import sys, pathlib as p; from serving.ray import haproxy_wrapper as w; w.note_proxy(p.Path(sys.argv[1]))"
    directory = root / "serving-of-the-head"
    (directory / "id-of-the-node").mkdir(parents=True)
    proxy = f"{sys.executable} -c '{code}' {directory}; echo noted; read line"
    command = ["/bin/sh", "-c", proxy]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "noted\n"
        private_directory.create()
        assert directory.exists(), "its proxy runs"
        process.kill()
    noted = (directory / "proxy.pid").rename(root / "proxy.pid")
    private_directory.create()
    (directory / "proxy.pid").write_text("1")
    private_directory.create()
    assert directory.exists(), "it may be another program's"
    noted.rename(directory / "proxy.pid")
    private_directory.create()
    assert not directory.exists()


def mounted_noexec(*directories: Path) -> Any:
    """Return a replacement of os.statvfs for a system on which some directories are mounted noexec."""

    def statvfs(path: Path) -> Any:
        found = os.statvfs_result(original(path))
        is_noexec = any(path.is_relative_to(each) for each in directories)
        return os.statvfs_result([*found[:8], os.ST_NOEXEC if is_noexec else 0, *found[9:]])

    original = os.statvfs
    return statvfs


def test_a_script_in_a_directory_without_execution_is_put_into_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = private_directory.create()
    assert private_directory.write_script(directory, "/bin/true").parent == directory
    monkeypatch.setattr(os, "statvfs", mounted_noexec(directory))
    script = private_directory.write_script(directory, "/bin/true")
    assert script.parent == root / "cache" / "policy-bundles"
    assert private_directory.write_script(directory, "/bin/true") == script, "servers share it"
    assert os.access(script, os.X_OK)


def test_without_any_directory_for_the_script_the_error_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = private_directory.create()
    monkeypatch.setattr(os, "statvfs", mounted_noexec(root))
    with pytest.raises(NoExecutableDirectory, match="XDG_CACHE_HOME"):
        private_directory.write_script(directory, "/bin/true")
