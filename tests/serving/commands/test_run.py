"""`python -m serving run` and `serve run` with a real Ray, HAProxy, HTTP and signals."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from serving.replica.metrics import DESCRIPTIONS, Metrics
from tests.serving.policies import STEERING_BUNDLE, Store
from tests.workshop import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
UP_WITHIN_S, DOWN_WITHIN_S = 90, 60


class Server:
    """A command that serves, started in its own session, as in a terminal."""

    def __init__(self, command: list[str], environment: dict[str, str], port: int, prefix: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}{prefix}"
        self.grpc_address = ""
        self.directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # short, for Ray's sockets
        self.log = self.directory / "output"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(self.directory), **environment},
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.seen: dict[int, psutil.Process] = {}

    def wait_up(self) -> "Server":
        await_true(lambda: self._answers() or self.process.poll() is not None, UP_WITHIN_S)
        assert self._answers(), self.output()
        if "serving" in self.process.args:  # `python -m serving run` polls the server before it prints its URL
            await_true(lambda: "Stop it:" in self.output(), UP_WITHIN_S, self.output)
        self.children()
        return self

    def children(self) -> list[psutil.Process]:
        """Return the processes below the command, and remember them: orphans cannot be found later."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.seen.update({child.pid: child for child in found})
        return found

    def stop(self, *signals: signal.Signals, group: bool = False) -> int:
        """Send the signals, wait until the process ends, and return its exit status."""
        self.children()
        for signum in signals:
            os.killpg(self.process.pid, signum) if group else self.process.send_signal(signum)
            time.sleep(0.2)  # the system merges equal signals that are pending
        return self.process.wait(DOWN_WITHIN_S)

    def assert_nothing_left(self, but: str = "") -> None:
        """Wait until all processes have ended, except those whose name contains `but`."""

        def left() -> list[str]:
            return [name for name in self.alive() if not but or but not in name]

        await_true(lambda: not left(), DOWN_WITHIN_S, lambda: f"still running: {left()}")
        assert not self._listening()

    def alive(self) -> list[str]:
        return [" ".join(each.cmdline())[:80] for each in self.seen.values() if running(each)]

    def private_directory(self) -> Path:
        """The directory of HAProxy's configuration and sockets."""
        haproxy = next(child for child in self.children() if child.name() == "haproxy")
        return Path(haproxy.cmdline()[haproxy.cmdline().index("-f") + 1]).parents[1]

    def output(self) -> str:
        return self.log.read_text()

    def clean(self) -> None:
        """Kill the processes that a failed test has left."""
        for each in (self.process, *self.seen.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=1).status_code == 200
        except requests.RequestException:
            return False

    def _listening(self) -> bool:
        try:
            requests.get(self.url, timeout=1)
        except requests.ConnectionError:
            return False
        return True


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_true(condition: Callable[[], Any], timeout_s: float, otherwise: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def start_run(store: Store, model_uri: str, *options: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "serving", "run", "--model-uri", model_uri, "--port", str(port)]
    directory = ["--cache-dir", str(store.directory / "cache")]
    name = model_uri.removeprefix("models:/").split("/")[0]
    environment = {"MLFLOW_TRACKING_URI": store.uri}
    return Server([*command, *directory, *options], environment, port, f"/{name}")


@pytest.fixture(scope="module")
def server(shared_store: Store) -> Iterator[Server]:
    shared_store.register("running", stage="Production")
    grpc_port = free_port()
    options = ("--num-replicas", "2", "--grpc-port", str(grpc_port))
    server = start_run(shared_store, "models:/running/Production", *options)
    server.grpc_address = f"127.0.0.1:{grpc_port}"
    try:
        yield server.wait_up()
    finally:
        server.clean()


def test_the_client_of_the_tutorial_is_answered_on_localhost(server: Server) -> None:
    observation = np.array([0, 0, 1, 0], np.float32)
    url = server.url.replace("127.0.0.1", "localhost")
    answer = requests.get(url, json={"observation": observation.tolist()}, timeout=5)
    assert answer.json() == {"action": 1}
    assert (answer.headers["X-Model-Name"], answer.headers["X-Model-Version"]) == ("running", "1")


INVALID_REQUESTS = [
    ("POST", "/", b"hello", 400, "body_not_json"),
    ("POST", "/", b'{"observation": [1]}', 422, "observation_shape"),
    ("POST", "/", b'{"observation": "1"}', 422, "observation_type"),
    ("POST", "/", b'{"observation": [NaN, 1, 1, 1]}', 422, "observation_not_finite"),
    ("POST", "/", b'{"observations": [[1, 1, 1, 1], [[1], 1, 1, 1]]}', 422, "observation_shape"),
    ("POST", "", b" " * 5_000_000, 413, "body_too_large"),
    ("GET", "/nowhere", b"", 404, "path_unknown"),
    ("PATCH", "/", b"", 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "content", "status", "code"), INVALID_REQUESTS)
def test_invalid_requests_are_answered_with_json_through_the_proxy(
    server: Server, method: str, path: str, content: bytes, status: int, code: str
) -> None:
    answer = requests.request(method, server.url + path, data=content, timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["X-Model-Version"] == "1"


def test_invalid_requests_under_load_do_not_affect_valid_ones(server: Server) -> None:
    def ask(index: int) -> tuple[Any, Any]:
        if index % 2:
            good = requests.post(server.url, json={"observation": [0, 0, 1, 0]}, timeout=10)
            return good.json(), {"action": 1}
        method, path, content, status, code = INVALID_REQUESTS[index // 2 % len(INVALID_REQUESTS)]
        bad = requests.request(method, server.url + path, data=content, timeout=10)
        return (bad.status_code, bad.json()["error"]["code"]), (status, code)

    with ThreadPoolExecutor(16) as pool:
        for answer, expected in pool.map(ask, range(20 * len(INVALID_REQUESTS))):
            assert answer == expected


def test_the_command_prints_what_it_serves_and_where(server: Server) -> None:
    await_true(lambda: "Stop it:" in server.output(), 10)
    lines = server.output().splitlines()
    assert lines[0] == "Starting to serve running version 1 ..."
    assert lines[1] == f"gRPC:     {server.grpc_address}, the Open Inference Protocol"
    assert lines[2] == f"Serving running version 1 (models:/running/Production) at {server.url}"
    assert lines[3] == f"""Try it:   curl -s {server.url} -d '{{"observation": [0.0, 0.0, 0.0, 0.0]}}'"""
    assert len(lines) == 7, "Ray and MLflow print nothing"


def test_the_printed_curl_line_works(server: Server) -> None:
    await_true(lambda: "Try it:" in server.output(), 10)
    line = next(line for line in server.output().splitlines() if line.startswith("Try it:"))
    command = line.removeprefix("Try it:").strip()
    assert subprocess.run(command, shell=True, capture_output=True, check=True).stdout == b'{"action":0}'


# It runs in its own process, because its protobuf messages have the same names as those of this package.
TRITON = """if True:
    import sys
    import numpy as np
    import tritonclient.grpc as triton

    def refused(call, *arguments, **options):
        try:
            call(*arguments, **options)
        except triton.InferenceServerException as error:
            print(error.status(), error.message())

    def tensor(*observations):
        array = np.array(observations, np.float32)
        tensor = triton.InferInput("observations", array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        return [tensor]

    client = triton.InferenceServerClient(sys.argv[1])
    print(client.is_server_live(), client.is_server_ready(), client.is_model_ready("running", "1"))
    print(client.get_server_metadata().extensions, client.get_model_metadata("running").versions)
    answer = client.infer("running", tensor([0, 0, 1, 0], [0, 0, -1, 0]), "1", request_id="7")
    print(answer.as_numpy("action"), answer.as_numpy("action_dist_inputs").tolist(), answer.get_response().id)
    refused(client.infer, "running", tensor([0, 0, 1]))
    refused(client.infer, "other", tensor([0, 0, 1, 0]))
    refused(client.get_model_metadata, "running", "9")
    refused(client.infer, "running", tensor(*[[0, 0, 1, 0]] * 20_000))
    refused(client.infer, "running", tensor(*[[0, 0, 1, 0]] * 400_000))
    refused(client.get_inference_statistics)
"""

TRITON_OUTPUT = """True True True
['binary_tensor_data'] ['1']
[1 0] [[0.0, 5.0], [0.0, -5.0]] 7
StatusCode.INVALID_ARGUMENT observations has shape (1, 3), expected (batch, 4) float32
StatusCode.NOT_FOUND no model 'other' is served here, only 'running'
StatusCode.NOT_FOUND version 9 of 'running' is not served here; request version 1, or omit the version
StatusCode.RESOURCE_EXHAUSTED the body is larger than 262144 bytes; send fewer observations per request
StatusCode.RESOURCE_EXHAUSTED SERVER: Received message larger than max (6400000 vs. 4194304)
StatusCode.UNIMPLEMENTED Method not found!
"""


def test_tritonclient_is_answered_over_grpc(server: Server) -> None:
    command = [sys.executable, "-c", TRITON, server.grpc_address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    output = re.sub(r"\(64\d{5} vs", "(6400000 vs", done.stdout)  # the size includes a header
    assert output == TRITON_OUTPUT, done.stderr


def test_a_hundred_episodes_are_played_over_http(server: Server) -> None:
    command = [sys.executable, "-m", "serving", "query", "--url", server.url, "--episodes", "100", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1].startswith("100 episodes: mean return ")


def test_a_replica_loads_neither_torch_nor_rllib(server: Server) -> None:
    replicas = [child for child in server.children() if "ServeReplica" in " ".join(child.cmdline())]
    assert len(replicas) == 2
    for replica in replicas:
        maps = Path(f"/proc/{replica.pid}/maps").read_text()
        assert "onnxruntime" in maps
        assert "libtorch" not in maps


def test_only_one_port_of_ray_per_replica_listens_beyond_loopback(server: Server) -> None:
    """Serve binds the gRPC port for calls between deployments to all interfaces and has no setting for it."""
    beyond = []
    for process in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                address = ip_address(connection.laddr.ip)
                loopback = (getattr(address, "ipv4_mapped", None) or address).is_loopback
                if connection.status == psutil.CONN_LISTEN and not loopback:
                    beyond.append(process.cmdline()[0].split(":")[2])
    assert beyond == ["ServeReplica"] * 2


def test_metrics_are_exported_in_the_format_of_prometheus(server: Server, store: Store) -> None:
    store.promote("running", store.register("running", tags={}))
    requests.post(server.url, json={"observation": [0, 0, 1, 0]}, timeout=5)
    requests.post(server.url, data=b"hello", timeout=5)
    port = next(server.directory.glob("ray/session_2*/metrics_export_port_*")).read_text()

    def scraped() -> str:
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text

    for code in ("body_not_json", "digest_missing"):
        await_true(lambda code=code: f'code="{code}"' in scraped(), 30, scraped)  # type: ignore[misc]
    store.promote("running", 1)
    text = scraped()
    for name in DESCRIPTIONS:
        suffix = "_bucket" if name in Metrics().histograms else ""
        assert f"\nray_{name}{suffix}{{" in text, name
    versions = [line for line in text.splitlines() if line.startswith("ray_policy_model_version{")]
    assert {float(line.rsplit(" ", 1)[1]) for line in versions} == {1.0}


def test_ctrl_c_twice_leaves_no_process(server: Server) -> None:
    """The last test with the server of this module, because it stops it."""
    private = server.private_directory()
    assert private.stat().st_mode & 0o077 == 0
    assert server.stop(signal.SIGINT, signal.SIGINT, group=True) == 0
    server.assert_nothing_left()
    assert server.output().splitlines()[-1] == "Stopping: requests in progress are answered first ..."
    assert not private.exists()


def answers_under_load(url: str, body: bytes, connections: int, each: int) -> list[tuple[requests.Response, float]]:
    """Send requests over parallel connections. Return each answer and its time in seconds."""

    def ask(_: int) -> list[tuple[requests.Response, float]]:
        answers = []
        with requests.Session() as session:
            for _ in range(each):
                start = time.monotonic()
                answers.append((session.post(url, body, timeout=10), time.monotonic() - start))
        return answers

    with ThreadPoolExecutor(connections) as threads:
        return [answer for answers in threads.map(ask, range(connections)) for answer in answers]


def test_requests_above_the_limit_are_rejected_at_once_and_invalid_ones_are_answered(store: Store) -> None:
    version = store.register("pressed")
    # A waiting batch keeps its requests in progress, as a slow policy would.
    slow = ("--max-ongoing-requests", "4", "--max-batch-size", "64", "--batch-wait-timeout", "0.5")
    server = start_run(store, f"models:/pressed/{version}", *slow)
    try:
        server.wait_up()
        good = b'{"observation": [0, 0, 1, 0]}'
        found = answers_under_load(server.url, good, 16, 5)
        refused = [(answer, took) for answer, took in found if answer.status_code == 503]
        assert {answer.status_code for answer, _ in found} == {200, 503}
        assert {answer.json()["error"]["code"] for answer, _ in refused} == {"overloaded"}
        assert {answer.headers["Retry-After"] for answer, _ in refused} == {"1"}
        assert sorted(took for _, took in refused)[len(refused) // 2] < 0.4, "rejections do not wait for the batch"
        assert requests.post(server.url, good, timeout=5).json() == {"action": 1}, "requests are accepted again"
        bad = answers_under_load(server.url, b'{"observation": [1]}', 3, 5)
        assert {answer.json()["error"]["message"] for answer, _ in bad} == {
            "observation has shape (1,), expected (4,) float32"
        }
        assert server.stop(signal.SIGTERM) == 0
        server.assert_nothing_left()
    finally:
        server.clean()


def test_without_haproxy_the_proxy_of_serve_answers(store: Store) -> None:
    store.register("proxied", stage="Production")
    port = free_port()
    command = [
        *(sys.executable, "-m", "serving", "run", "--model-uri", "models:/proxied/Production", "--port", str(port)),
        *("--cache-dir", str(store.directory / "cache")),
    ]
    environment = {"MLFLOW_TRACKING_URI": store.uri, "RAY_SERVE_ENABLE_HA_PROXY": "0"}
    server = Server(command, environment, port, "/proxied")
    try:
        server.wait_up()
        assert requests.post(server.url, json={"observation": [0, 0, 1, 0]}, timeout=5).json() == {"action": 1}
        assert "Ray Serve's own proxy is used" in server.output()
        assert not [child for child in server.children() if child.name() == "haproxy"]
        assert server.stop(signal.SIGTERM) == 0
        server.assert_nothing_left()
    finally:
        server.clean()


@pytest.fixture(scope="module")
def guarded(shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a token."""
    shared_store.register("kept", stage="Production")
    directory = tmp_path_factory.mktemp("guarded")
    token_file = directory / "token"
    token_file.write_text("secret\n")
    options = ("--cache-dir", str(directory), "--refresh-interval", "0.2", "--auth-token-file", str(token_file))
    server = start_run(shared_store, "models:/kept/Production", *options)
    try:
        yield server.wait_up()
    finally:
        server.clean()


def test_a_restarted_replica_keeps_the_spaces_and_the_token(guarded: Server, store: Store) -> None:
    def model() -> dict[str, Any]:
        with contextlib.suppress(requests.RequestException, ValueError):
            answer = requests.get(f"{guarded.url}/model", headers={"Authorization": "Bearer secret"}, timeout=5)
            return dict(answer.json()) if answer.ok else {}
        return {}

    def status_without_token() -> int:
        return requests.get(f"{guarded.url}/model", timeout=5).status_code

    assert status_without_token() == 401
    store.promote("kept", store.register("kept", STEERING_BUNDLE))
    await_true(lambda: model().get("refused"), 30)
    killed = model()["replica"]["pid"]
    psutil.Process(killed).kill()
    await_true(lambda: model().get("replica", {}).get("pid", killed) != killed, 60, guarded.output)
    await_true(lambda: (model().get("refused") or {}).get("version") == 2, 30, guarded.output)
    successor = model()
    assert (successor["version"], successor["degraded"]) == (1, True)
    assert "restart the server to serve it" in successor["refused"]["reason"]
    assert status_without_token() == 401
    assert "secret" not in guarded.output()


def test_a_killed_server_leaves_no_proxy_and_no_replica(guarded: Server) -> None:
    """The last test with this server, because it kills it."""
    private = guarded.private_directory()
    guarded.stop(signal.SIGKILL)
    guarded.assert_nothing_left(but="Agent")  # Ray's two agents end minutes later
    shutil.rmtree(private)  # a killed process cannot remove it


def test_an_interrupted_start_leaves_no_process(store: Store) -> None:
    version = store.register("hasty")
    server = start_run(store, f"models:/hasty/{version}")
    try:
        await_true(lambda: any("raylet" in child.name() for child in server.children()), 60)
        # The second is the status of a Ray that is still starting.
        assert server.stop(signal.SIGTERM) in (128 + signal.SIGTERM, signal.SIGTERM)
        server.assert_nothing_left()
    finally:
        server.clean()


def test_serve_run_deploys_the_same_application(store: Store, tmp_path: Path) -> None:
    store.register("served", stage="Staging")
    command = [
        *(str(Path(sys.executable).with_name("serve")), "run", "serving.app:build", "--app-dir", str(ROOT)),
        *("--route-prefix", "/served", "model_uri=models:/served/Staging", f"cache_dir={tmp_path}"),
    ]
    server = Server(command, {"MLFLOW_TRACKING_URI": store.uri}, 8000, "/served")
    try:
        server.wait_up()
        answer = requests.post(server.url, json={"observation": [0, 0, 1, 0]}, timeout=5)
        assert (answer.json(), answer.headers["X-Model-Name"]) == ({"action": 1}, "served")
        assert "without its throughput settings" not in server.output()
    finally:  # how `serve run` ends is up to Ray
        server.clean()


def test_the_error_of_a_replica_that_cannot_start_is_reported(store: Store) -> None:
    """`serving run` finds this error before Ray starts; here only the replica finds it."""
    code = f"""if True:
        from serving.ray import settings
        settings.configure()
        from serving.ray.cluster import Cluster
        from serving.app import Arguments, build
        from serving.ray.errors import DeploymentFailed
        with Cluster("127.0.0.1", {free_port()}, cpus=2) as cluster:
            cluster.deploy(build(Arguments(model_uri="models:/gone/Production")), "gone", "/gone")
            try:
                cluster.wait("gone", "http://127.0.0.1:1/health", 60)
            except DeploymentFailed as error:
                print(error)
    """
    store.register("gone")
    directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(directory)}
    try:
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(directory)
    assert done.stdout == (
        "the policy could not be deployed: No version of 'gone' is in stage 'Production'. Promote one: "
        "python -m pipeline promote VERSION, or in the MLflow UI. Versions: 1 (None).\n"
    )
