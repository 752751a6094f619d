"""How a server starts, sheds load, survives the loss of a process, and ends, with a real Ray, HAProxy and signals."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from serving.ray import private_directory
from serving.ray.cluster import check_port
from serving.ray.errors import PortTaken
from tests.serving.commands.server import Server, await_true, start_run
from tests.serving.policies import STEERING_BUNDLE
from tests.serving.store import Store
from tests.workshop import PROJECT, command_line, free_port

pytestmark = pytest.mark.e2e


GUARDED = "kept été #1 50%"
"""A name with characters that mean something else in URLs, in shells and in HAProxy's configuration."""

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def guarded(shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a token, and answers few requests at a time."""
    shared_store.register(GUARDED, stage="Production")
    directory = tmp_path_factory.mktemp("guarded")
    token_file = directory / "token"
    token_file.write_text("secret\n")
    options = ("--cache-dir", str(directory), "--refresh-interval", "0.2", "--auth-token-file", str(token_file))
    # A waiting batch keeps its requests in progress, as a slow policy would.
    slow = ("--max-ongoing-requests", "4", "--max-batch-size", "64", "--batch-wait-timeout", "0.5")
    # Neither the server's own probe nor its clients must pass a proxy to this machine.
    proxies = {"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    server = start_run(shared_store, f"models:/{GUARDED}/Production", *options, *slow, **proxies)
    try:
        yield server.wait_up()
    finally:
        server.clean()


def answers_under_load(url: str, body: bytes, connections: int, each: int) -> list[tuple[requests.Response, float]]:
    """Send requests over parallel connections. Return each answer and its time in seconds."""

    def ask(_: int) -> list[tuple[requests.Response, float]]:
        answers = []
        with requests.Session() as session:
            for _ in range(each):
                start = time.monotonic()
                answers.append((session.post(url, body, headers=TOKEN, timeout=10), time.monotonic() - start))
        return answers

    with ThreadPoolExecutor(connections) as threads:
        return [answer for answers in threads.map(ask, range(connections)) for answer in answers]


def test_requests_above_the_limit_are_rejected_at_once_and_invalid_ones_are_answered(guarded: Server) -> None:
    good = b'{"observation": [0, 0, 1, 0]}'
    found = answers_under_load(guarded.url, good, 16, 5)
    refused = [(answer, took) for answer, took in found if answer.status_code == 503]
    assert {answer.status_code for answer, _ in found} == {200, 503}
    assert {answer.json()["error"]["code"] for answer, _ in refused} == {"overloaded"}
    assert {answer.headers["Retry-After"] for answer, _ in refused} == {"1"}
    assert sorted(took for _, took in refused)[len(refused) // 2] < 0.4, "rejections do not wait for the batch"
    again = requests.post(guarded.url, good, headers=TOKEN, timeout=5)
    assert again.json() == {"action": 1}, "requests are accepted again"
    bad = answers_under_load(guarded.url, b'{"observation": [1]}', 3, 5)
    assert {answer.json()["error"]["message"] for answer, _ in bad} == {
        "observation has shape (1,), expected (4,) float32"
    }


def test_the_printed_commands_work_for_any_name(guarded: Server) -> None:
    lines = dict(line.split(": ", 1) for line in guarded.output().splitlines() if ": " in line)
    tried = subprocess.run(lines["Try it"], shell=True, capture_output=True, check=True, cwd=PROJECT)
    assert tried.stdout == b'{"action":0}'
    play = f"exec {lines['Play'].replace('python', shlex.quote(sys.executable), 1)}"
    with subprocess.Popen(play, shell=True, stdout=subprocess.PIPE, cwd=PROJECT, text=True) as playing:
        assert playing.stdout
        shown = [playing.stdout.readline() for _ in range(3)]
        playing.kill()  # each of its requests waits for a batch
    assert shown[0] == f"{GUARDED} version 1 plays CartPole-v1 through {guarded.url}\n"
    assert shown[2].startswith("  step    2   observation [")


def test_a_restarted_replica_keeps_the_spaces_and_the_token(guarded: Server, store: Store) -> None:
    def model() -> dict[str, Any]:
        with contextlib.suppress(requests.RequestException, ValueError):
            answer = requests.get(f"{guarded.url}/model", headers=TOKEN, timeout=5)
            return dict(answer.json()) if answer.ok else {}
        return {}

    def status_without_token() -> int:
        return requests.get(f"{guarded.url}/model", timeout=5).status_code

    assert status_without_token() == 401
    store.promote(GUARDED, store.register(GUARDED, STEERING_BUNDLE))
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
    assert private.exists(), "a killed process cannot remove it"
    private_directory.create()
    assert not private.exists(), "the next start does"


@pytest.mark.long
@pytest.mark.usefixtures("hangup")
def test_a_terminal_that_closes_ends_only_the_command_which_ends_the_others_in_order(store: Store) -> None:
    store.register("hung-up", stage="Production")
    server = start_run(store, "models:/hung-up/Production")
    try:
        server.wait_up()
        group = [each for each in server.children() if os.getpgid(each.pid) == server.process.pid]
        assert group, "Ray's processes are in the group to which the terminal sends SIGHUP"
        for process in group:
            process.send_signal(signal.SIGHUP)
        assert requests.post(server.url, json={"observation": [0, 0, 1, 0]}, timeout=10).json() == {"action": 1}
        assert all(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in group)
        assert server.stop(signal.SIGHUP, group=True) == 0
        server.assert_nothing_left()
        assert server.output().splitlines()[-1] == "Stopping: requests in progress are answered first ..."
    finally:
        server.clean()


def test_an_interrupted_start_leaves_no_process(store: Store) -> None:
    version = store.register("hasty")
    server = start_run(store, f"models:/hasty/{version}")
    try:
        await_true(lambda: any("raylet/raylet" in command_line(child) for child in server.children()), 60)
        # The second is the status of a Ray that is still starting.
        assert server.stop(signal.SIGTERM) in (128 + signal.SIGTERM, signal.SIGTERM)
        server.assert_nothing_left()
    finally:
        server.clean()


def test_serve_run_deploys_the_same_application(store: Store, tmp_path: Path) -> None:
    try:
        check_port("127.0.0.1", 8000)
    except PortTaken:
        pytest.skip("port 8000 is taken, and `serve run` has no option for another")
    store.register("served", stage="Staging")
    command = [
        *(str(Path(sys.executable).with_name("serve")), "run", "serving.app:build", "--app-dir", str(PROJECT)),
        *("--route-prefix", "/served", "model_uri=models:/served/Staging", f"cache_dir={tmp_path}"),
    ]
    server = Server(command, {"MLFLOW_TRACKING_URI": store.uri}, 8000, "/served")
    try:
        server.wait_up()
        answer = requests.post(server.url, json={"observation": [0, 0, 1, 0]}, timeout=5)
        assert (answer.json(), answer.headers["X-Model-Name"]) == ({"action": 1}, "served")
        assert "without its throughput settings" not in server.output()
        server.stop(signal.SIGINT)  # what is left then is up to Ray
    finally:
        server.clean()


@pytest.fixture(scope="module")
def without_haproxy(shared_store: Store) -> "subprocess.CompletedProcess[str]":
    """A program that deploys two versions on a cluster without HAProxy: one that does not exist, and one that does."""
    shared_store.register("gone")
    shared_store.register("proxied", stage="Production")
    port = free_port()
    code = f"""if True:
        from serving.ray import settings
        settings.configure()
        import psutil
        import requests
        from serving.app import Arguments, build
        from serving.ray.cluster import Cluster
        from serving.ray.errors import ApplicationTaken, DeploymentFailed, RouteTaken
        url = "http://127.0.0.1:{port}"
        with Cluster("127.0.0.1", {port}, cpus=2) as cluster:
            cluster.deploy(build(Arguments(model_uri="models:/gone/Production")), "gone", "/gone")
            try:
                cluster.wait("gone", url + "/gone/health", 60)
            except DeploymentFailed as error:
                print(error)
            arguments = Arguments(model_uri="models:/proxied/Production", autoscaling={{"max_replicas": 3}})
            cluster.deploy(build(arguments), "proxied", "/proxied")
            cluster.wait("proxied", url + "/proxied/health", 60)
            for name, route in (("proxied", "/other"), ("other", "/proxied")):
                try:
                    cluster.deploy(build(Arguments(model_uri="models:/gone/1")), name, route)
                except (ApplicationTaken, RouteTaken) as error:
                    print(error)
            print(requests.post(url + "/proxied", json={{"observation": [0, 0, 1, 0]}}, timeout=5).json())
            print(requests.get(url + "/proxied/model", timeout=5).json()["replica"]["of"])
            print("haproxy" in [each.name() for each in psutil.Process().children(recursive=True)])
    """
    directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # short, for Ray's sockets
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": shared_store.uri,
        "PYTHONPATH": str(PROJECT),
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_TMPDIR": str(directory),
    }
    try:
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(directory)


def test_without_haproxy_the_proxy_of_serve_answers(without_haproxy: "subprocess.CompletedProcess[str]") -> None:
    answer, _, haproxy_runs = without_haproxy.stdout.splitlines()[3:]
    assert (answer, haproxy_runs) == ("{'action': 1}", "False")
    assert "Ray Serve's own proxy is used" in without_haproxy.stderr


def test_an_autoscaled_replica_says_how_many_there_may_be_so_that_status_looks_for_all_of_them(
    without_haproxy: "subprocess.CompletedProcess[str]",
) -> None:
    assert without_haproxy.stdout.splitlines()[4] == "3"


def test_an_application_of_the_same_name_or_route_is_neither_replaced_nor_deleted(
    without_haproxy: "subprocess.CompletedProcess[str]",
) -> None:
    """As on a cluster that is joined; the application still answers afterwards, with its own version."""
    same_name, same_route = without_haproxy.stdout.splitlines()[1:3]
    assert same_name == (
        "the cluster already runs an application 'proxied', which this server would replace. Choose another name with "
        "--name. If its server was killed, delete the application: "
        "python -m serving delete proxied --ray-address HOST:PORT"
    )
    assert same_route == ("the route /proxied belongs to the application 'proxied'. Choose another with --route-prefix")


def test_the_error_of_a_replica_that_cannot_start_is_reported(
    without_haproxy: "subprocess.CompletedProcess[str]",
) -> None:
    """`serving run` finds this error before Ray starts; here only the replica finds it."""
    assert without_haproxy.stdout.splitlines()[0] == (
        "the policy could not be deployed: No version of 'gone' is in stage 'Production'. Promote one: "
        "python -m pipeline promote VERSION --name gone, or in the MLflow UI. Versions: 1 (None)."
    )
