import logging
import os
import random
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import ray

from serving.processes import available_cpus
from serving.ray import settings
from serving.ray.errors import HaproxyNotExecutable
from serving.ray.internals import LOOPBACK_ONLY
from serving.replica import limits
from tests.serving.ray.test_haproxy_wrapper import GENERATED

ALL_SETTINGS = (
    settings.cluster_settings(2)
    | settings.local_settings()
    | settings.private_settings(Path("/x"), Path("/x/haproxy"))
    | LOOPBACK_ONLY
    | {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
)


@cache
def source_of_ray() -> bytes:
    """Ray's Python code, and the binary that holds the names of its core settings."""
    package = Path(ray.__file__).parent
    files = [
        *(file for part in ("serve", "_private", "_common") for file in (package / part).rglob("*.py")),
        package / "_raylet.so",
    ]
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.parametrize("name", [name for name in ALL_SETTINGS if name.startswith("RAY_")])
def test_every_setting_still_exists_in_ray(name: str) -> None:
    # Ray's core adds the prefix to the names of its own settings, which are in lower case.
    found = name if name.isupper() else name.removeprefix("RAY_")
    assert found.encode() in source_of_ray(), (
        f"{name} of Ray 2.60 is not in Ray {ray.__version__}: look for its successor in ray/serve/_private/constants.py"
    )


def test_processes_with_the_same_random_seed_find_different_ports() -> None:
    found = []
    for _ in range(2):
        random.seed(0)
        found.append([settings.free_port() for _ in range(5)])
    assert found[0] != found[1]


def test_settings_apply_to_the_ray_that_is_imported_next_and_leave_nothing_behind() -> None:
    code = """if True:
        import os
        from pathlib import Path
        os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] = "7"
        from serving.ray import settings
        settings.configure()
        from ray.serve._private import constants, haproxy
        assert constants.RAY_SERVE_ENABLE_HA_PROXY and constants.RAY_SERVE_THROUGHPUT_OPTIMIZED
        assert constants.RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S == 0
        assert constants.RAY_SERVE_HAPROXY_NBTHREAD == 7, "the user's value stays"
        wrapper = Path(haproxy.get_haproxy_binary())
        assert wrapper.parent.stat().st_mode & 0o077 == 0
        print(wrapper.parent)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of this process, without settings of Ray."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    monkeypatch.setattr(os, "environ", environment)
    return environment


def test_the_users_haproxy_is_run_with_the_hardened_configuration(environment: dict[str, str], tmp_path: Path) -> None:
    chosen = tmp_path / "its haproxy"
    chosen.write_text('#!/bin/sh\necho "$0 $@"\n')
    chosen.chmod(0o700)
    environment[settings.BINARY_PATH] = str(chosen)
    settings.configure()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(GENERATED)
    wrapper = environment[settings.BINARY_PATH]
    assert wrapper != str(chosen)
    done = subprocess.run([wrapper, "-f", str(configuration)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{chosen} -f {configuration}\n"
    assert f"bind unix@{tmp_path}/stats.sock mode 600" in configuration.read_text()


def test_a_binary_that_cannot_be_executed_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    environment[settings.BINARY_PATH] = str(tmp_path)
    with pytest.raises(HaproxyNotExecutable, match=f"RAY_SERVE_HAPROXY_BINARY_PATH={tmp_path} is not an executable"):
        settings.configure()


@pytest.mark.parametrize(
    "name", ["RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
)
def test_a_setting_that_keeps_the_server_private_is_overridden_with_a_warning(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    environment[name] = "/tmp/public"
    with caplog.at_level(logging.WARNING):
        settings.configure()
    assert environment[name] != "/tmp/public"
    assert caplog.messages == [f"{name}=/tmp/public is overridden, because the server must stay private"]


def test_only_a_ray_of_our_own_is_kept_on_loopback(environment: dict[str, str]) -> None:
    settings.configure(own_ray=False)
    assert not environment.keys() & LOOPBACK_ONLY.keys()


def test_a_node_is_set_up_as_a_local_ray_is_but_not_kept_on_loopback(environment: dict[str, str]) -> None:
    environment["RAY_SERVE_HAPROXY_NBTHREAD"] = "7"
    environment["RAY_SERVE_HAPROXY_SOCKET_PATH"] = "/tmp/public"
    settings.configure_node(max_body_bytes=1000)
    directory = Path(environment[settings.BINARY_PATH]).parent
    assert directory.stat().st_mode & 0o077 == 0
    private = settings.private_settings(directory, directory / "haproxy")
    expected = settings.cluster_settings(available_cpus(), 1000) | {"RAY_SERVE_HAPROXY_NBTHREAD": "7"} | private
    assert {name: environment.get(name) for name in expected} == expected
    assert not environment.keys() & (LOOPBACK_ONLY.keys() | settings.local_settings().keys() - expected.keys())
    shutil.rmtree(directory)


def test_a_process_that_joins_a_cluster_needs_no_private_directory(environment: dict[str, str]) -> None:
    settings.configure_driver()
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environment["RAY_gcs_rpc_server_reconnect_timeout_s"] == "600", "it outlives a head that comes back"
    assert settings.BINARY_PATH not in environment


def test_the_longest_socket_path_fits(environment: dict[str, str]) -> None:
    settings.configure()
    node, process = "f" * 56, "4194304"
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        path = Path(environment[name])
        (path.parent / node).mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path.parent / node / f"{path.name}.{process}.tmp"))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, ["RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_BINARY_PATH"]),
        (settings.cluster_settings(2), ["RAY_SERVE_HAPROXY_BINARY_PATH"]),
        (settings.cluster_settings(2) | {"RAY_SERVE_ENABLE_HA_PROXY": "0"}, []),
        (settings.cluster_settings(2) | {"RAY_SERVE_HAPROXY_BINARY_PATH": "/x/haproxy"}, []),
    ],
)
def test_settings_that_a_node_was_started_without_are_named(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture, given: dict[str, str], missing: list[str]
) -> None:
    environment |= given
    before = sys.getswitchinterval()
    try:
        environment[settings.EXPORT_INTERVAL] = "100"  # Serve's own class stays as it is
        with caplog.at_level(logging.WARNING):
            settings.tune_replica()
        assert sys.getswitchinterval() == pytest.approx(settings.SWITCH_INTERVAL_S)
    finally:
        sys.setswitchinterval(before)
    named = [f"Ray was started on this node without {', '.join(missing)}, so " for _ in missing[:1]]
    assert [message[: len(start)] for message, start in zip(caplog.messages, named, strict=True)] == named


@pytest.mark.parametrize("wanted", [False, True])
def test_serves_metrics_of_requests_are_dropped_unless_the_operator_wants_them(
    monkeypatch: pytest.MonkeyPatch,
    wanted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    dropped: list[bool] = []
    monkeypatch.setattr(settings, "drop_request_metrics", lambda: dropped.append(True))
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    monkeypatch.delenv(settings.EXPORT_INTERVAL, raising=False)
    if wanted:
        monkeypatch.setenv(settings.EXPORT_INTERVAL, "100")
    settings.tune_replica()
    assert bool(dropped) is not wanted


def test_without_haproxy_serves_own_proxy_is_used(
    environment: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    monkeypatch.setattr(settings, "haproxy_binary", lambda: None)
    settings.configure()
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert "HAProxy is not available here" in caplog.text


def test_the_replicas_of_two_servers_on_one_machine_use_different_ports() -> None:
    name = "RAY_SERVE_DIRECT_INGRESS_{}_{}_PORT".format
    one, other = settings.local_settings(), settings.local_settings()
    assert one[name("MIN", "HTTP")] != other[name("MIN", "HTTP")]
    assert int(one[name("MAX", "HTTP")]) < int(one[name("MIN", "GRPC")])


def test_a_replica_answers_before_the_proxy_repeats_the_request_and_a_request_can_wait_for_another() -> None:
    proxy_s = int(settings.serve_settings(cpus=2)["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"])
    assert 3 * limits.SLOWEST_S <= limits.ANSWER_WITHIN_S < proxy_s


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (4, 2), (8, 4), (16, 4), (32, 8), (64, 16), (384, 64)])
def test_haproxys_threads_follow_the_cores(cpus: int, threads: int) -> None:
    assert settings.serve_settings(cpus)["RAY_SERVE_HAPROXY_NBTHREAD"] == str(threads)


def test_haproxys_threads_follow_the_cores_that_this_process_may_use(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the machine's cores, a container's quota and an affinity mask leave fewer."""
    monkeypatch.setattr(settings, "available_cpus", lambda: 32)
    settings.configure()
    assert environment["RAY_SERVE_HAPROXY_NBTHREAD"] == "8"
