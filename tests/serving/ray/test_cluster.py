import socket

import pytest
import ray
from ray import serve
from ray.exceptions import RayActorError

from serving.ray import cluster, internals
from serving.ray.errors import DeploymentFailed, GpusMissing, PortTaken, failure_reason

SERVES_MESSAGE = """The deployment failed to start 2 times in a row. See controller logs for details.
\x1b[36mray::ServeReplica:m:policy.initialize_and_get_metadata()\x1b[39m (pid=1, ip=127.0.0.1)
  File "serving/registry.py", line 7, in resolve
serving.registry.errors.VersionMissing: No version of 'm' is in stage 'Production'. Promote one.

The above exception was the direct cause of the following exception:
RuntimeError: Traceback (most recent call last):
"""


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (SERVES_MESSAGE, "No version of 'm' is in stage 'Production'. Promote one."),
        ("prose\nModuleNotFoundError: No module named 'serving'\n", "ModuleNotFoundError: No module named 'serving'"),
        ("only prose\n", "only prose"),
        ("", "Ray Serve gave no reason"),
    ],
)
def test_the_cause_is_found_in_serves_message(message: str, reason: str) -> None:
    assert failure_reason(message) == reason


def test_a_free_port_passes_and_a_taken_one_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"cannot listen on 127.0.0.1:{port}"):
            cluster.check_port("127.0.0.1", port)
    cluster.check_port("127.0.0.1", port)


def test_a_host_of_another_machine_is_named() -> None:
    with pytest.raises(PortTaken, match=r"cannot listen on 192\.0\.2\.99:8000"):
        cluster.check_port("192.0.2.99", 8000)


@pytest.mark.parametrize(
    ("host", "address", "listened_on", "asked"),
    [
        (None, None, "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", None, "0.0.0.0", "127.0.0.1"),
        ("::", None, "::", "::1"),
        (None, "10.0.0.1:6379", "0.0.0.0", "10.0.0.9"),
        ("10.0.0.2", "10.0.0.1:6379", "10.0.0.2", "10.0.0.2"),
    ],
)
def test_a_local_server_is_private_and_that_of_a_cluster_is_reached_at_its_head(
    monkeypatch: pytest.MonkeyPatch, host: str | None, address: str | None, listened_on: str, asked: str
) -> None:
    monkeypatch.setattr(internals, "head_address", lambda: "10.0.0.9")
    found = cluster.Cluster(host, 8000, address=address)
    assert (found.host, found.client_host) == (listened_on, asked)


def test_replicas_that_need_more_gpus_than_ray_has_found_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, Serve would wait for a GPU until the start times out."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    local = cluster.Cluster("127.0.0.1", 8000)
    local.require_gpus(0)
    local.require_gpus(2 * 0.5)
    with pytest.raises(GpusMissing, match=r"^the replicas need 1\.5 GPUs, and Ray found 1 on this machine\. Lower"):
        local.require_gpus(3 * 0.5)
    cluster.Cluster("127.0.0.1", 8000, address="10.0.0.1:6379").require_gpus(3)


def test_a_serve_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an overloaded machine, Serve's proxies are not ready in time."""

    def start(**_: object) -> None:
        raise RayActorError

    monkeypatch.setattr(serve, "start", start)
    with pytest.raises(DeploymentFailed, match=r"^the policy could not be deployed: Ray Serve did not start: \w.*$"):
        cluster.Cluster("127.0.0.1", 8000, address="127.0.0.1:6379")._start_serve()
