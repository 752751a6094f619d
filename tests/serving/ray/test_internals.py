import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.serve._private import default_impl

from serving.ray.internals import setup_hook

WORKER = "import pickle, sys; hook = pickle.load(sys.stdin.buffer); assert 'serving' not in sys.modules; print(hook())"


class Listening:
    def add_insecure_port(self, address: str) -> None:
        self.address = address


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1:40000"), ("::1", "[::1]:40000")])
def test_serves_grpc_servers_listen_where_they_are_asked(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    monkeypatch.setattr(default_impl, "add_grpc_address", default_impl.add_grpc_address)
    setup_hook(host)()
    server = Listening()
    default_impl.add_grpc_address(server, "[::]:40000")
    assert server.address == address


def test_a_worker_that_knows_no_module_of_ours_can_run_it(tmp_path: Path) -> None:
    hook = cloudpickle.dumps(setup_hook("127.0.0.1"))
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    done = subprocess.run(command, cwd=tmp_path, input=hook, capture_output=True, check=False)
    assert done.stdout == b"None\n", done.stderr
