import socket

import pytest

from serving.ray import cluster
from serving.ray.errors import PortTaken

SERVES_ACCOUNT = """The deployment failed to start 2 times in a row. See controller logs for details.
\x1b[36mray::ServeReplica:m:policy.initialize_and_get_metadata()\x1b[39m (pid=1, ip=127.0.0.1)
  File "serving/registry.py", line 7, in resolve
serving.errors.VersionMissing: No version of 'm' is in stage 'Production'. Promote one.

The above exception was the direct cause of the following exception:
RuntimeError: Traceback (most recent call last):
"""


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (SERVES_ACCOUNT, "No version of 'm' is in stage 'Production'. Promote one."),
        ("prose\nModuleNotFoundError: No module named 'serving'\n", "ModuleNotFoundError: No module named 'serving'"),
        ("only prose\n", "only prose"),
        ("", "no reason given"),
    ],
)
def test_the_reason_is_found_in_serves_account(account: str, reason: str) -> None:
    assert cluster._reason(account) == reason


def test_a_free_port_passes_and_a_taken_one_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"cannot listen on 127.0.0.1:{port}"):
            cluster.check_port("127.0.0.1", port)
    cluster.check_port("127.0.0.1", port)


def test_a_host_that_is_not_here_is_named() -> None:
    with pytest.raises(PortTaken, match=r"cannot listen on 192\.0\.2\.99:8000"):
        cluster.check_port("192.0.2.99", 8000)
