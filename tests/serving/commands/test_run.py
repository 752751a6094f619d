"""The answers, the metrics and the processes of `python -m serving run`, with a real Ray, HAProxy, HTTP and signals."""

import contextlib
import gzip
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import requests

from serving.client.client import PolicyClient
from serving.protocols.open_inference.protos import inference_pb2 as pb
from serving.replica.metrics import DESCRIPTIONS, Metrics
from tests.faults.arena import Load, kill
from tests.faults.report import row
from tests.serving.commands.server import Server, await_true, start_run
from tests.serving.grpc_stub import SERVING, Stub, check_health
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, digest_tags
from tests.serving.store import Store
from tests.workshop import PROJECT, command_line, free_port

pytestmark = pytest.mark.e2e

SITE = "https://robots.example.com"
TILTED = [0.0, 0.0, 1.0, 0.0]


#: What the names of sums end with.
SUFFIXES = {"policy_online_return": "_sum", "policy_online_length": "_sum"}


@pytest.fixture(scope="module")
def server(shared_store: Store) -> Iterator[Server]:
    shared_store.register("running", stage="Production")
    grpc_port = free_port()
    options = ("--num-replicas", "2", "--grpc-port", str(grpc_port), "--cors-origin", SITE)
    options += ("--experience-uri", "experience")
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


@pytest.mark.parametrize(("given", "found_as"), [("my-request", "my-request"), ("not valid", r"[0-9a-f-]{36}")])
def test_a_request_has_one_identifier_in_its_response_and_in_the_body_of_an_error(
    server: Server, given: str, found_as: str
) -> None:
    headers = {"X-Request-ID": given}
    for body in (b'{"observation": [0, 0, 1, 0]}', b"hello"):
        answer = requests.post(server.url, data=body, headers=headers, timeout=5)
        found = answer.headers["X-Request-ID"]
        assert re.fullmatch(found_as, found)
        assert answer.json().get("error", {"request_id": found})["request_id"] == found


@pytest.mark.parametrize("key", ["x-request-id", "request_id"])
def test_over_grpc_the_identifier_of_a_request_is_metadata(server: Server, key: str) -> None:
    name = "/inference.GRPCInferenceService/ModelInfer"
    with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(name)(b"", metadata=[(key, "my-request")], timeout=5)
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
    assert dict(failed.value.initial_metadata())["x-request-id"] == "my-request"
    assert dict(failed.value.trailing_metadata())["request_id"] == "my-request"


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
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    output = re.sub(r"\(64\d{5} vs", "(6400000 vs", done.stdout)  # the size includes a header
    assert output == TRITON_OUTPUT, done.stderr


def test_the_standard_health_check_is_answered_over_grpc_without_metadata(server: Server) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        assert check_health(channel) == SERVING


def test_a_page_of_an_allowed_origin_can_call_the_server_through_the_proxy(server: Server) -> None:
    origin = {"Origin": SITE}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = requests.options(server.url, headers=asked, timeout=5)
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Headers"]) == (200, "content-type")
    for body, status in ((b'{"observation": [0, 0, 1, 0]}', 200), (b"hello", 400)):
        answer = requests.post(server.url, body, headers=origin, timeout=5)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, SITE)


def test_a_compressed_body_is_decompressed_behind_the_proxy(server: Server) -> None:
    body = gzip.compress(b'{"observation": [0, 0, 1, 0]}')
    assert requests.post(server.url, body, headers={"Content-Encoding": "gzip"}, timeout=5).json() == {"action": 1}


def test_a_hundred_episodes_are_played_over_http(server: Server) -> None:
    command = [sys.executable, "-m", "serving", "query", "--url", server.url, "--episodes", "100", "--quiet"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1].startswith("100 episodes: mean return ")


def test_a_replica_loads_neither_torch_nor_rllib(server: Server) -> None:
    replicas = [child for child in server.children() if "ServeReplica" in command_line(child)]
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
    ended = {"episode": "a", "return": 1.0, "length": 1, "done": "terminated"}
    assert requests.post(f"{server.url}/feedback", json=ended, timeout=5).json() == {"accepted": 1}
    port = next(server.directory.glob("ray/session_2*/metrics_export_port_*")).read_text()

    def scraped() -> str:
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text

    for code in ("body_not_json", "digest_missing"):
        await_true(lambda code=code: f'code="{code}"' in scraped(), 30, scraped)  # type: ignore[misc]
    await_true(lambda: "ray_policy_online_episodes{" in scraped(), 30, scraped)
    store.promote("running", 1)
    text = scraped()
    for name in (each for each in DESCRIPTIONS if not each.startswith("policy_experiment_")):  # no experiment has run
        suffix = "_bucket" if name in Metrics().histograms else SUFFIXES.get(name, "")
        assert f"\nray_{name}{suffix}{{" in text, name
    versions = [line for line in text.splitlines() if line.startswith("ray_policy_model_version{")]
    assert {float(line.rsplit(" ", 1)[1]) for line in versions} == {1.0}


def test_promotions_a_refusal_and_a_killed_replica_fail_no_request(server: Server, store: Store) -> None:
    """The fault suite in short; `make test-faults` runs it whole."""
    bundles = {1: CARTPOLE_BUNDLE, 3: CONTRARY_BUNDLE}
    assert store.register("running", CONTRARY_BUNDLE) == 3
    corrupt = store.register("running", tags=digest_tags(CONTRARY_BUNDLE))
    server.await_models(lambda model: model["version"] == 1 and not model["refused"], "version 1 answers")
    with Load(server, "--rate", "100", "--client", "requests") as load:
        swaps = []
        for version in (3, 1):
            store.promote("running", version)
            swaps.append(server.await_models(lambda model, v=version: model["version"] == v, "the promoted answers"))
        store.promote("running", corrupt)
        server.await_models(lambda model: model["refused"], "the corrupt version is refused")
        store.promote("running", 1)
        server.await_models(lambda model: not model["refused"], "the refusal is over")
        killed = server.replica_pid()
        kill(killed)
        back = server.await_models(lambda model: model["replica"]["pid"] != killed, "both replicas are back", 60)
    counts = row("in short", load.records, bundles)
    assert (counts.failed, counts.wrong) == (0, 0), [record for record in load.records if record.error][:5]
    assert {record.version for record in load.records} == {1, 3}
    assert max(swaps) < 10
    assert back < 30


def test_a_promotion_in_the_middle_of_a_hundred_episodes_changes_the_version_of_none(
    server: Server, store: Store
) -> None:
    with PolicyClient(server.url) as client:
        episodes = [client.episode() for _ in range(100)]
        for episode in episodes:
            assert episode.act(TILTED) == 1
        store.promote("running", 3)
        while not all(model["version"] == 3 for model in server.models().values()):
            assert {episode.act(TILTED) for episode in episodes} == {1}
        assert {episode.act(TILTED) for episode in episodes} == {1}
        assert client.act_batch([TILTED] * 100, episodes=episodes) == [1] * 100
        assert {(episode.version, episode.repinned) for episode in episodes} == {(1, False)}
        with client.episode() as later:
            assert {later.act(TILTED) for _ in range(10)} == {0}
        assert (later.version, later.repinned) == (3, False)


def test_the_proxies_pass_pins_on_and_what_became_of_them(server: Server, store: Store) -> None:
    server.await_models(lambda model: model["version"] == 3, "version 3 answers")
    body = {"observation": TILTED}
    found = [requests.post(server.url, json=body, headers={"X-Pin-Version": pin}, timeout=5) for pin in "129v"]
    assert [(each.headers["X-Model-Version"], each.headers.get("X-Repinned")) for each in found] == [
        *(("1", None), ("3", "true"), ("3", "true"), ("3", None))
    ]
    assert found[3].json()["error"]["code"] == "pin_invalid"
    tensor = pb.ModelInferRequest.InferInputTensor(name="observations", datatype="FP32", shape=(1, 4))
    tensor.contents.fp32_contents.extend(TILTED)
    asked = pb.ModelInferRequest(model_name="running", inputs=[tensor])
    with grpc.insecure_channel(server.grpc_address) as channel:
        metadata = [("application", "running")]
        answers = [
            Stub(channel).ModelInfer(asked, metadata=[*metadata, ("x-pin-version", pin)], timeout=5) for pin in "19"
        ]
    assert [(each.model_version, each.parameters["repinned"].bool_param) for each in answers] == [
        ("1", False),
        ("3", True),
    ]
    store.promote("running", 1)
    server.await_models(lambda model: model["version"] == 1, "version 1 answers again")
    withdrawn = requests.post(server.url, json=body, headers={"X-Pin-Version": "3"}, timeout=5)
    assert (withdrawn.json(), withdrawn.headers["X-Repinned"]) == ({"action": 1}, "true")


def test_ctrl_c_twice_leaves_no_process(server: Server) -> None:
    """The last test with the server of this module, because it stops it."""
    private = server.private_directory()
    assert private.stat().st_mode & 0o077 == 0
    assert server.stop(signal.SIGINT, signal.SIGINT, group=True) == 0
    server.assert_nothing_left()
    own = [line for line in server.output().splitlines() if not line.startswith("[replica ")]  # theirs come later
    assert own[-1] == "Stopping: requests in progress are answered first ..."
    assert not private.exists()
