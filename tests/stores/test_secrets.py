"""No password or token of MLflow, its stores or the server's clients is in anything that is shown, logged or stored."""

import base64
import contextlib
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from serving.ray.settings import serve_settings
from tests.faults.arena import CONTRARY, GOOD
from tests.serving.commands.server import Server
from tests.serving.policies import digest_tags
from tests.stores.mlflow_stores import StoreRegistry
from tests.stores.servers import MARKER, S3, USER, Postgres
from tests.unreliable_proxy import CLOSE, UnreliableProxy, unreliable_proxy
from tests.workshop import PROJECT, Workshop, answers, await_true, command_line, free_port

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.e2e, pytest.mark.stores, pytest.mark.timeout(600)]

TRACKING = f"{MARKER}-tracking-0123"
CLIENT = f"{MARKER}-client-0123"
RAY = f"{MARKER}-ray-0123456789abcdef0123456789abcdef"
BASIC = base64.b64encode(f"{USER}:{TRACKING}".encode()).decode()
MARKERS = (MARKER, BASIC)
"""The texts that may occur nowhere: the part that all secrets share, and the header in which one is encoded."""

CREDENTIALS = {
    "url": lambda host: {"MLFLOW_TRACKING_URI": f"http://{USER}:{TRACKING}@{host}"},
    "password": lambda host: {
        "MLFLOW_TRACKING_URI": f"http://{host}",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": TRACKING,
    },
    "token": lambda host: {"MLFLOW_TRACKING_URI": f"http://{host}", "MLFLOW_TRACKING_TOKEN": TRACKING},
}
"""The environment of a client of the MLflow server, by the way in which it is given the password."""


DASHBOARD = (
    "/api/serve/applications/",
    "/api/jobs/",
    "/api/v0/actors?detail=1",
    "/api/v0/workers?detail=1",
    "/api/v0/runtime_envs?detail=1",
    "/api/v0/tasks?detail=1",
    "/logical/actors",
    "/nodes?view=summary",
)
"""What Ray's dashboard shows of applications, jobs, processes and nodes."""


def hits(text: bytes | str) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    return [marker for marker in MARKERS if marker.encode() in content]


def assert_hidden(name: str, text: bytes | str) -> None:
    found = hits(text)
    content = text if isinstance(text, str) else text.decode(errors="replace")
    around = [content[max(0, content.find(each) - 300) : content.find(each) + 60] for each in found]
    assert not found, f"{name}: {around}"


def assert_hidden_in_files(directory: Path, but: set[str]) -> int:
    """Check every file below a directory, except those of these names; return how many there were."""
    files = [each for each in directory.rglob("*") if each.is_file() and not each.is_symlink() and each.name not in but]
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            assert_hidden(str(file), file.read_bytes())
    return len(files)


@pytest.fixture(scope="module")
def registry(registry_of: Callable[[str], StoreRegistry]) -> StoreRegistry:
    """Versions 1 and 2 are good, version 3 is not what was registered; artifacts are in S3, read by the clients."""
    registry = registry_of("direct")
    for bundle, tags in ((GOOD, None), (CONTRARY, None), (CONTRARY, digest_tags(GOOD))):
        registry.register(bundle, tags=tags, name="secret")
    return registry


@pytest.fixture
def gateway(registry: StoreRegistry) -> Iterator[UnreliableProxy]:
    with unreliable_proxy(registry.url) as proxy:
        yield proxy


@pytest.fixture(params=[*CREDENTIALS, "database"])
def environment(
    request: pytest.FixtureRequest, registry: StoreRegistry, gateway: UnreliableProxy, s3: S3
) -> dict[str, str]:
    """The variables of a server: with the password of MLflow in one of its places, and that of S3."""
    if request.param == "database":
        return {"MLFLOW_TRACKING_URI": registry.database_uri, **s3.environment}
    gateway.fail(401, lacking=f"Bearer {TRACKING}" if request.param == "token" else f"Basic {BASIC}")
    return {**CREDENTIALS[request.param](gateway.url.removeprefix("http://")), **s3.environment}


def ask_everything(url: str) -> str:
    """What the server answers to right and wrong requests, with headers."""
    texts = []
    for token in (None, CLIENT, "wrong"):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        for path in (
            "",
            "/model",
            "/health",
            "/v2",
            "/v2/models/secret",
            "/openapi.json",
            "/docs",
            "/play",
            "/nowhere",
        ):
            for method, body in (("GET", None), ("POST", b"{"), ("POST", b'{"observation": [0, 0, 0, 0]}')):
                answer = requests.request(method, url + path, data=body, headers=headers, timeout=10)
                texts.append(f"{answer.status_code} {answer.headers} {answer.text}")
    return "\n".join(texts)


def model(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(
        f"{url}/model", headers={"Authorization": f"Bearer {CLIENT}"}, timeout=5
    ).json()
    return answer


def test_a_server_through_every_failure(
    registry: StoreRegistry, gateway: UnreliableProxy, postgres: Postgres, s3: S3, environment: dict[str, str]
) -> None:
    registry.promote(1, "secret")
    token = registry.shop.directory / "client-token"
    token.write_text(CLIENT)
    port = free_port()
    command = [sys.executable, "-m", "serving", "run", "--model-uri", "models:/secret/Production", "--port", str(port)]
    server = Server([*command, "--cache-dir", "cache", "--auth-token-file", str(token)], environment, port, "/secret")
    try:
        server.wait_up()
        shown = [ask_everything(server.url)]
        for process in server.shop.processes():
            assert_hidden("a command line", command_line(process))
        registry.promote(3, "secret")
        await_true(lambda: model(server.url)["refused"], "the wrong version is refused")
        shown.append(ask_everything(server.url))
        with s3.stopped():
            registry.promote(2, "secret")
            await_true(lambda: "version 2" in str(model(server.url)["refresh_error"]), "the store is missed", 120)
            shown.append(ask_everything(server.url))
        gateway_down = gateway.fail(CLOSE)
        with postgres.stopped(signal.SIGINT), s3.stopped():
            await_true(lambda: "version" not in str(model(server.url)["refresh_error"])[:8], "the poll fails", 120)
            shown.append(ask_everything(server.url))
            shown.append(str(model(server.url)))
            status = server.shop.python("serving", "status", "--url", server.url, "--auth-token-file", str(token))
            shown.append(status.stdout + status.stderr)
            started = server.shop.run(*command[:-1], str(free_port()), "--cache-dir", "another", "--traceback")
            assert started.returncode == 1
            shown.append(started.stdout + started.stderr)
            for name in ("versions", "history"):
                done = server.shop.python("pipeline", name, "--name", "secret", "--traceback")
                assert done.returncode == 1
                shown.append(done.stdout + done.stderr)
            requests.get(f"{server.url}/health", timeout=5)
        gateway._faults.remove(gateway_down)
        await_true(lambda: model(server.url)["version"] == 2, "the good version answers", 120)
        token.write_text("")
        time.sleep(1.1)
        shown.append(ask_everything(server.url))
        assert server.stop(signal.SIGTERM) == 0
        for text in shown:
            assert_hidden("an answer or an output", text)
        logger.info(server.output())
        assert_hidden("the server's output", server.output())
        assert "Traceback" not in server.output()
        assert assert_hidden_in_files(server.directory, but=set()) > 20, "Ray's logs are among them"
    finally:
        server.clean()
    assert not postgres.contains(MARKER)


@pytest.mark.parametrize("environment", ["url", "database"], indirect=True)
def test_a_training_through_the_stop_of_the_database(
    postgres: Postgres, s3: S3, environment: dict[str, str], tmp_path: Path
) -> None:
    shop = Workshop(tmp_path, environment)
    name = f"secret-{free_port()}"
    options = ("--max-env-steps", "20000", "--target-return", "499", "--registered-model-name", name)
    process = shop.start(sys.executable, "-m", "pipeline", "train", "--checkpoint-interval-s", "0.5", *options)
    await_true(lambda: "greedy return " in shop.output() or process.poll() is not None, "it trains", 180)
    for each in shop.processes():
        assert_hidden("a command line", command_line(each))
    with postgres.stopped(signal.SIGINT), s3.stopped():
        time.sleep(5)
    process.wait(300)
    logger.info(shop.output())
    assert process.returncode == 0
    assert_hidden("the output", shop.output())
    assert_hidden_in_files(tmp_path, but=set())
    assert not postgres.contains(MARKER)
    for key in s3.all_keys():
        assert_hidden(key, s3.read(key))


@pytest.fixture
def cluster(registry: StoreRegistry, s3: S3) -> Iterator[Workshop]:
    """A Ray with a dashboard, whose nodes have the credentials in their environment."""
    directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))
    private = {f"RAY_SERVE_HAPROXY_{name}": str(directory / name) for name in ("SOCKET_PATH", "METRICS_SOCKET_PATH")}
    private |= {"RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg")}
    private |= {"RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()), "RAY_TMPDIR": str(directory)}
    private |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": RAY}
    shop = Workshop(
        directory, {**serve_settings(2), **private, "MLFLOW_TRACKING_URI": registry.database_uri, **s3.environment}
    )
    yield shop
    shop.end()
    shutil.rmtree(directory, ignore_errors=True)


def test_the_dashboard_of_a_cluster(cluster: Workshop, registry: StoreRegistry) -> None:
    registry.promote(1, "secret")
    scripts = Path(sys.executable).parent
    dashboard, port, gcs = free_port(), free_port(), free_port()
    cluster.start(
        *(str(scripts / "ray"), "start", "--head", "--block", "--port", str(gcs), "--num-cpus", "2"),
        *("--dashboard-port", str(dashboard), "--temp-dir", str(cluster.directory), "--disable-usage-stats"),
    )
    api = f"http://127.0.0.1:{dashboard}"
    cluster.environment["RAY_DASHBOARD_ADDRESS"] = api
    config = yaml.safe_load((PROJECT / "serving" / "config.yaml").read_text())
    config["http_options"]["port"] = port
    (application,) = config["applications"]
    application |= {"name": "secret", "route_prefix": "/secret"}
    application["args"] |= {"model_uri": "models:/secret/Production", "cache_dir": str(cluster.directory / "cache")}
    (cluster.directory / "config.yaml").write_text(yaml.safe_dump(config))

    def deployed() -> bool:
        done = cluster.run(str(scripts / "serve"), "deploy", "config.yaml")
        logger.info("serve deploy: %s", (done.stdout + done.stderr)[-1500:])
        return done.returncode == 0

    await_true(deployed, "serve deploy succeeds", 120)
    url = f"http://127.0.0.1:{port}/secret"
    await_true(lambda: answers(f"{url}/model"), "the application answers", 90)
    joined_port = free_port()
    joined = cluster.start(
        *(sys.executable, "-m", "serving", "run", "--model-uri", "models:/secret/1", "--address", f"127.0.0.1:{gcs}"),
        *("--port", str(joined_port), "--cache-dir", str(cluster.directory / "cache2"), "--route-prefix", "/joined"),
        log="joined",
    )
    await_true(lambda: joined.poll() is not None or "Stop it" in cluster.output("joined"), "the other one ended", 90)
    logger.info(cluster.output("joined"))
    headers = {"Authorization": f"Bearer {RAY}"}
    nodes = requests.get(f"{api}/nodes?view=summary", headers=headers, timeout=10).json()["data"]["summary"]
    for path in (*DASHBOARD, *(f"/nodes/{node['raylet']['nodeId']}" for node in nodes)):
        answer = requests.get(api + path, headers=headers, timeout=10)
        logger.info("%s: %s characters", path, len(answer.text))
        assert answer.ok, f"{path}: status {answer.status_code}"
        assert_hidden(path, answer.text)
    for name in ("status", "config"):
        assert_hidden(name, cluster.run(str(scripts / "serve"), name).stdout)
    assert_hidden_in_files(cluster.directory, but=set())
