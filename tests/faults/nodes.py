"""A Ray cluster of three nodes that serves the policies of a registry, set up as docs/how-to/run-on-a-cluster.md says.

MLflow is in the hub behind a gateway that requires an account; the nodes have its password in a file only. Each node
has one CPU, and so one replica. Ray keeps the state of its head in Redis.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from serving.ray.settings import haproxy_binary
from tests.faults.arena import NAME, Load, Registry
from tests.faults.network import HUB, Machine, Network
from tests.workshop import PROJECT, Workshop, answers, await_true

PORT, RAY_PORT, DASHBOARD_PORT, REDIS_PORT, GATEWAY_PORT = 8000, 6379, 8265, 6390, 5400
NODES = 3
USER, PASSWORD = "robot", "marker-0f3c9a71-of-mlflow"
TOKEN = "0123456789abcdef" * 3
SCRIPTS = Path(sys.executable).parent

GATEWAY = """global
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
userlist people
    user {user} insecure-password {password}
frontend gateway
    bind {host}:{port}
    http-request auth unless {{ http_auth(people) }}
    http-request set-header Host 127.0.0.1:{mlflow}
    default_backend mlflow
backend mlflow
    server mlflow 127.0.0.1:{mlflow}
"""


class Cluster:
    """The nodes, the processes of the hub beside MLflow, and the application's URL on each node."""

    def __init__(self, network: Network, registry: Registry, directory: Path) -> None:
        self.registry = registry
        self._redis: subprocess.Popen[str] | None = None
        self.hub = Workshop(directory, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN})
        self.hub.environment["RAY_DASHBOARD_ADDRESS"] = f"http://10.53.0.1:{DASHBOARD_PORT}"
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
        self.machines = [Machine(network, index, directory / f"node{index}", ray) for index in range(1, NODES + 1)]
        self.head, *self.workers = self.machines
        self.head.shop.environment["RAY_REDIS_ADDRESS"] = f"{HUB}:{REDIS_PORT}"
        for machine in self.machines:
            file = machine.directory / "credentials"
            file.touch(0o600)
            file.write_text(f"MLFLOW_TRACKING_USERNAME={USER}\nMLFLOW_TRACKING_PASSWORD={PASSWORD}\n")

    def start(self) -> None:
        self._start_hub()
        for machine in self.machines:
            self.start_ray(machine)
        await_true(lambda: len(self.node_ids()) == NODES, "Ray has all nodes", 300)
        self._deploy()
        self.wait_whole()

    def _start_hub(self) -> None:
        directory = self.hub.directory
        values = {"host": HUB, "port": GATEWAY_PORT, "mlflow": self.registry.port, "user": USER, "password": PASSWORD}
        (directory / "gateway.cfg").write_text(GATEWAY.format(**values))
        self.hub.start(str(haproxy_binary()), "-db", "-f", str(directory / "gateway.cfg"), log="gateway.log")
        redis = shutil.which("redis-server") or "redis-server"
        self._redis = self.hub.start(
            redis, "--bind", HUB, "--port", str(REDIS_PORT), "--protected-mode", "no", log="redis.log"
        )
        await_true(lambda: connects(HUB, REDIS_PORT) and connects(HUB, GATEWAY_PORT), "Redis and the gateway listen")

    def start_ray(self, machine: Machine) -> None:
        """Start Ray on a node, and on the head wait until others can join."""
        place = (
            ("--head", "--port", str(RAY_PORT), "--dashboard-host", "0.0.0.0")
            if machine is self.head
            else ("--address", f"{self.head.address}:{RAY_PORT}")
        )
        size = ("--num-cpus", "1", "--object-store-memory", "100000000")
        command = ("-m", "serving", "ray", "start", "--block", "--node-ip-address", machine.address, *place, *size)
        machine.start(sys.executable, *command, log=f"ray-{time.time():.0f}.log")
        if machine is self.head:
            await_true(lambda: connects(machine.address, DASHBOARD_PORT), "the head's dashboard listens", 300)

    def _deploy(self) -> None:
        config = yaml.safe_load((PROJECT / "serving" / "config.yaml").read_text())
        (application,) = config["applications"]
        application |= {"name": NAME, "route_prefix": f"/{NAME}"}
        del application["args"]["autoscaling"]
        application["args"] |= {
            "model_uri": f"models:/{NAME}/Production",
            "tracking_uri": self.tracking_uri,
            "credentials_file": "/tmp/credentials",
            "num_replicas": NODES,
        }
        (self.hub.directory / "config.yaml").write_text(yaml.safe_dump(config))

        def deployed() -> bool:
            return self.hub.run(str(SCRIPTS / "serve"), "deploy", "config.yaml").returncode == 0

        await_true(deployed, "serve deploy succeeds", 300)

    def delete(self) -> None:
        """Delete the application that was deployed."""
        done = self.hub.run(str(SCRIPTS / "serve"), "shutdown", "-y")
        assert done.returncode == 0, done.stderr
        await_true(lambda: not self.models(), "nothing answers", 60)

    @property
    def tracking_uri(self) -> str:
        """MLflow as the nodes reach it."""
        return f"http://{HUB}:{GATEWAY_PORT}"

    def url(self, machine: Machine) -> str:
        return f"http://{machine.address}:{PORT}/{NAME}"

    def models(self, *machines: Machine) -> dict[str, dict[str, Any]]:
        """What each replica says of itself through these nodes, by its id."""
        found = {}
        for machine in machines or self.machines:
            for _ in range(4 * NODES):
                with contextlib.suppress(requests.RequestException, KeyError, ValueError):
                    model = requests.get(f"{self.url(machine)}/model", timeout=5).json()
                    found[model["replica"]["id"]] = model
        return found

    def await_models(self, holds: Callable[[dict[str, Any]], object], what: str, timeout_s: float = 60) -> float:
        """Wait until it holds of a replica on each node, and return how long that took."""
        start = time.monotonic()

        def all_do() -> bool:
            models = self.models()
            return len(models) == NODES and all(holds(model) for model in models.values())

        await_true(all_do, what, timeout_s)
        return time.monotonic() - start

    def wait_whole(self, timeout_s: float = 300) -> float:
        """Wait until each node's own port answers, and each node has a replica; return how long that took."""
        start = time.monotonic()
        for machine in self.machines:
            health = partial(answers, f"{self.url(machine)}/health")
            await_true(health, f"{machine.address} answers", timeout_s)
        self.await_models(lambda _: True, "a replica on each node answers", timeout_s)
        return time.monotonic() - start

    def replica(self, machine: Machine) -> int:
        """The pid of a node's replica."""
        own = {process.pid for process in machine.shop.processes()}
        return next(int(m["replica"]["pid"]) for m in self.models().values() if m["replica"]["pid"] in own)

    def haproxies(self, machine: Machine) -> list[psutil.Process]:
        return machine.processes("haproxy")

    def get(self, path: str) -> str:
        """What the dashboard's API answers."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = requests.get(f"http://{self.head.address}:{DASHBOARD_PORT}{path}", headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.text

    def node_ids(self) -> list[str]:
        """Ray's ids of the nodes that are alive."""
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            found = json.loads(self.get("/nodes?view=summary"))["data"]["summary"]
            return [node["raylet"]["nodeId"] for node in found if node["raylet"]["state"] == "ALIVE"]
        return []

    def load(self, machine: Machine, *options: str) -> Load:
        """Load from a node through its own port."""
        return Load(f"http://127.0.0.1:{PORT}/{NAME}", *options, prefix=machine.inside())

    def end(self) -> None:
        for machine in self.machines:
            machine.power_off()
        if self._redis is not None:
            self._redis.kill()  # its title overwrites the environment by which the workshop would find it
        self.hub.end()


@contextlib.contextmanager
def cluster(network: Network, registry: Registry, directory: Path) -> Iterator[Cluster]:
    """A cluster that serves version 1 of the registry."""
    found = Cluster(network, registry, directory)
    try:
        found.start()
        yield found
    finally:
        found.end()


def connects(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False
