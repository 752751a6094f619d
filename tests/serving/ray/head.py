"""A Ray cluster of one node, set up as the documents describe it, with the code that its replicas run."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from serving.ray import private_directory
from serving.ray.cluster import SERVICER_FUNCTION
from serving.ray.settings import haproxy_binary, local_settings, private_settings, serve_settings
from tests.workshop import PROJECT, Workshop, answers, await_true, free_port

SCRIPTS = Path(sys.executable).parent


class Head:
    """The head node. Use it as a context manager.

    Args:
        tracking_uri: The registry of its replicas.
        cpus: How many replicas it has room for.
    """

    def __init__(self, tracking_uri: str, cpus: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # Ray's socket paths are limited in length
        self.port, self.grpc_port, self.metrics_port = free_port(), free_port(), free_port()
        self.gcs, self.dashboard = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        self.code = self.directory / "code"
        shutil.copytree(PROJECT / "serving", self.code / "serving", ignore=shutil.ignore_patterns("__pycache__"))
        binary = haproxy_binary()
        assert binary is not None
        private = private_settings(self.directory, private_directory.write_script(self.directory, binary))
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 3}
        addresses = {"RAY_TMPDIR": str(self.directory), "RAY_DASHBOARD_ADDRESS": self.dashboard}
        self.shop = Workshop(
            self.directory,
            {**serve_settings(2), **local_settings(), **private, **token, **addresses}
            | {"MLFLOW_TRACKING_URI": tracking_uri, "PYTHONPATH": str(self.code)},
        )
        self._tracking_uri, self._cpus = tracking_uri, cpus

    def __enter__(self) -> Self:
        self.shop.start(
            *(str(SCRIPTS / "ray"), "start", "--head", "--block", "--port", self.gcs.rpartition(":")[2]),
            *("--dashboard-port", self.dashboard.rpartition(":")[2], "--num-cpus", str(self._cpus)),
            *("--metrics-export-port", str(self.metrics_port)),
            *("--temp-dir", str(self.directory), "--disable-usage-stats"),
        )
        grpc = {"port": self.grpc_port, "grpc_servicer_functions": [SERVICER_FUNCTION]}
        serve = {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": self.port}}
        (self.directory / "serve.yaml").write_text(yaml.safe_dump({**serve, "grpc_options": grpc, "applications": []}))
        await_true(lambda: self.deploy("serve.yaml").returncode == 0, "the dashboard answers", 120)
        return self

    def __exit__(self, *exception: object) -> None:
        self.shop.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def write(self, file: str, *applications: dict[str, Any]) -> str:
        """Write a config file. Each application gets a route of its name and a cache here; return the file's name."""
        written = []
        for each in applications:
            args = {"cache_dir": str(self.directory / "cache"), "tracking_uri": self._tracking_uri, **each["args"]}
            route = {"route_prefix": f"/{each['name']}", "import_path": "serving.app:build"}
            written.append({**route, **each, "args": args})
        (self.directory / file).write_text(yaml.safe_dump({"applications": written}))
        return file

    def deploy(self, file: str) -> Any:
        """Run `python -m serving deploy` with the code of this node to its end."""
        return self.shop.python("serving", "deploy", file)

    def url(self, application: str) -> str:
        return f"http://127.0.0.1:{self.port}/{application}"

    def replicas(self, application: str) -> dict[str, dict[str, Any]]:
        """Return `/model` of each replica by its id, as far as a few new connections reach them."""
        models = [requests.get(f"{self.url(application)}/model", timeout=10).json() for _ in range(12)]
        return {model["replica"]["id"]: model for model in models}

    def await_up(self, application: str) -> None:
        await_true(lambda: answers(f"{self.url(application)}/health"), f"{application} answers", 90)
