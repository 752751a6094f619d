"""Applications on a real Ray cluster that requires a token: by `serve deploy`, and by a server that joins it."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests
import yaml

from serving.protocols.open_inference.protos import inference_pb2 as pb
from serving.ray import private_directory
from serving.ray.cluster import SERVICER_FUNCTION
from serving.registry.node.scope import scope
from tests.serving.grpc_stub import Stub
from tests.serving.store import Store
from tests.workshop import PROJECT, Workshop, answers, await_true, free_port

pytestmark = pytest.mark.e2e

SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def shop(store: Store) -> Iterator[Workshop]:
    directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # Ray's socket paths are limited in length
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 3}
    # Other Rays of this machine have the default ports.
    ports = {f"RAY_SERVE_FALLBACK_PROXY_{protocol}_PORT": str(free_port()) for protocol in ("HTTP", "GRPC")}
    workshop = Workshop(directory, {**ports, **token, "MLFLOW_TRACKING_URI": store.uri, "RAY_TMPDIR": str(directory)})
    yield workshop
    workshop.end()
    private_directory._remove_abandoned()  # as the next start on this machine would
    shutil.rmtree(directory, ignore_errors=True)


def test_serve_deploy_starts_the_application_of_the_config_file(shop: Workshop, store: Store) -> None:
    store.register("cartpole-ppo", stage="Production")
    dashboard, port, grpc_port = free_port(), free_port(), free_port()
    shop.start(
        *(
            sys.executable,
            "-m",
            "serving",
            "ray",
            "start",
            "--head",
            "--block",
            "--port",
            str(free_port()),
            "--num-cpus",
            "2",
        ),
        *("--dashboard-port", str(dashboard), "--temp-dir", str(shop.directory), "--disable-usage-stats"),
    )
    shop.environment["RAY_DASHBOARD_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    config = yaml.safe_load((PROJECT / "serving" / "config.yaml").read_text())
    config["http_options"]["port"] = port
    config["grpc_options"] = {"port": grpc_port, "grpc_servicer_functions": [SERVICER_FUNCTION]}
    config["applications"][0]["args"]["cache_dir"] = str(shop.directory / "cache")
    (shop.directory / "config.yaml").write_text(yaml.safe_dump(config))

    def deployed() -> bool:
        return shop.run(str(SCRIPTS / "serve"), "deploy", "config.yaml").returncode == 0

    await_true(deployed, "serve deploy succeeds", 90)
    url = f"http://127.0.0.1:{port}/cartpole-ppo"
    await_true(lambda: answers(f"{url}/model"), "the application answers", 90)
    assert requests.post(url, json={"observation": [0, 0, 1, 0]}, timeout=5).json() == {"action": 1}
    state = scope(store.uri, "models:/cartpole-ppo/Production", "cartpole-ppo")
    assert (shop.directory / "cache" / "good" / f"{state}.json").exists()
    wanted = shop.directory / "cache" / "wanted" / f"{state}.json"
    await_true(wanted.exists, "the replica polls for the replicas of its node")
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = Stub(channel)
        assert stub.ModelReady(pb.ModelReadyRequest(name="cartpole-ppo"), timeout=5, wait_for_ready=True).ready
    assert "target_ongoing_requests: 8" in shop.run(str(SCRIPTS / "serve"), "config").stdout


@pytest.mark.long
def test_a_server_that_joins_a_cluster_leaves_the_application_of_another_server_in_service(
    shop: Workshop, store: Store
) -> None:
    store.register("joined", stage="Production")
    gcs_port, port = free_port(), free_port()
    shop.start(
        *(
            sys.executable,
            "-m",
            "serving",
            "ray",
            "start",
            "--head",
            "--block",
            "--port",
            str(gcs_port),
            "--num-cpus",
            "2",
        ),
        *("--include-dashboard", "false", "--temp-dir", str(shop.directory), "--disable-usage-stats"),
    )
    await_true(lambda: "Ray runtime started" in shop.output(), "Ray runs", 60)
    run = (
        *(sys.executable, "-m", "serving", "run", "--model-uri", "models:/joined/Production"),
        *("--address", f"127.0.0.1:{gcs_port}", "--port", str(port), "--cache-dir", str(shop.directory / "cache")),
    )
    url = f"http://127.0.0.1:{port}/joined"
    first = shop.start(*run, log="first")
    await_true(lambda: answers(f"{url}/health") or first.poll() is not None, "the first server answers", 180)
    assert answers(f"{url}/health"), shop.output("first")
    replica = requests.get(f"{url}/model", timeout=5).json()["replica"]["id"]
    second = shop.run(*run)
    assert second.returncode == 1
    assert "the cluster already runs an application 'joined'" in second.stderr.splitlines()[-1]
    assert requests.get(f"{url}/model", timeout=5).json()["replica"]["id"] == replica
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 0
    assert not answers(f"{url}/health")
