"""One test for each private part of Ray that `serving/ray/internals.py` uses, written for Ray 2.60.

Each failure names the part of Ray to look at.
"""

import asyncio
import importlib.util
import logging
import os
import subprocess
import sys
from inspect import getsource, signature
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
import ray
from ray import cloudpickle
from ray._private import parameter, ray_logging, services, state, worker
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve import context
from ray.serve._private import default_impl, grpc_util
from ray.serve._private.client import ServeControllerClient
from ray.serve._private.common import DeploymentID
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import gRPCOptions
from ray.serve.schema import APIType, ApplicationDetails

from serving.ray import internals
from serving.ray.errors import RayIncompatible
from serving.ray.haproxy_wrapper import edit
from serving.ray.settings import haproxy_binary
from tests.workshop import PROJECT, free_port

WORKER = "import pickle, sys; hook = pickle.load(sys.stdin.buffer); assert 'serving' not in sys.modules; print(hook())"


def changed(part: str, where: str) -> str:
    """The message of a test that fails because Ray has changed."""
    return f"{part} of Ray 2.60 is not in Ray {ray.__version__}: adapt serving/ray/internals.py after reading {where}"


def test_the_variable_that_keeps_ray_on_loopback_still_works() -> None:
    script = "import ray; from serving.ray.internals import check_loopback; check_loopback()"
    environment = {**os.environ, **internals.LOOPBACK_ONLY, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, changed("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0", "ray.util.get_node_ip_address")


def test_a_ray_that_would_listen_beyond_loopback_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "192.0.2.7")
    with pytest.raises(RayIncompatible, match=r"would listen on 192\.0\.2\.7"):
        internals.check_loopback()


def test_a_local_ray_starts_no_server_of_the_dashboard_and_no_monitor_and_its_agent_has_a_port_of_its_own() -> None:
    script = """
import psutil, ray
from serving.ray.internals import needed_processes_only
with needed_processes_only():
    ray.init(address="local", include_dashboard=False, num_cpus=0, logging_level="ERROR", log_to_driver=False)
print([" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)])
"""
    environment = {**os.environ, **internals.LOOPBACK_ONLY, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    running = done.stdout
    assert "dashboard/agent.py" in running
    assert "--listen-port=0" in running
    assert not [each for each in ("dashboard/dashboard.py", "monitor.py --logs-dir") if each in running], changed(
        "RayParams(no_monitor=) or services.start_api_server", "ray/_private/node.py"
    )


def test_a_ray_without_these_parts_starts_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(services, "start_api_server")
    params = parameter.RayParams
    with internals.needed_processes_only():
        assert parameter.RayParams is not params
    assert parameter.RayParams is params
    assert "so the server starts more slowly" in caplog.text


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "::ffff:127.0.0.1"), ("::1", "::1")])
def test_after_the_hook_serves_grpc_server_listens_on_one_address(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    internals.check_grpc()
    monkeypatch.setattr(default_impl, "add_grpc_address", default_impl.add_grpc_address)
    internals.grpc_setup_hook(host)()
    port = free_port()

    async def addresses() -> list[str]:
        loop = asyncio.get_running_loop()
        task, server = await grpc_util.start_grpc_server(Mock(), gRPCOptions(port=port), event_loop=loop)
        listeners = [each.laddr for each in psutil.Process().net_connections("inet") if each.status == "LISTEN"]
        await server.stop(None)
        await task
        return [listener.ip for listener in listeners if listener.port == port]

    assert asyncio.run(addresses()) == [address], changed(
        "start_grpc_server's call of default_impl.add_grpc_address", "ray/serve/_private/grpc_util.py"
    )


def test_serve_records_no_metrics_of_requests_once_they_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private.replica import Replica, ReplicaMetricsManager

    names = ["record_request_metrics", "record_ingress_request_metrics"]
    for name in names:
        assert f"self._metrics_manager.{name}(" in getsource(Replica), changed(name, "ray/serve/_private/replica.py")
        monkeypatch.setattr(ReplicaMetricsManager, name, getattr(ReplicaMetricsManager, name))
    recorder = object.__new__(ReplicaMetricsManager)
    with pytest.raises(AttributeError):
        recorder.record_request_metrics(route="/", latency_ms=1.0, is_error=False)
    internals.drop_request_metrics()
    recorder.record_request_metrics(route="/", latency_ms=1.0, is_error=False)


def test_a_worker_without_this_package_can_run_the_hook(tmp_path: Path) -> None:
    hook = cloudpickle.dumps(internals.grpc_setup_hook("127.0.0.1"))
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    done = subprocess.run(command, cwd=tmp_path, input=hook, capture_output=True, check=False)
    assert done.stdout == b"None\n", done.stderr


def test_without_the_function_that_binds_grpc_neither_a_server_nor_a_worker_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(default_impl, "add_grpc_address")
    with pytest.raises(RayIncompatible, match=r"gRPC would listen on all interfaces\. Omit --grpc-port"):
        internals.check_grpc()
    with pytest.raises(AttributeError):
        internals.grpc_setup_hook("127.0.0.1")()


def test_a_function_that_the_hook_cannot_replace_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_util, "add_grpc_address", default_impl.add_grpc_address, raising=False)
    with pytest.raises(RayIncompatible):
        internals.check_grpc()


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> ray_logging.WorkerStandardStreamDispatcher:
    dispatcher = ray_logging.WorkerStandardStreamDispatcher()
    monkeypatch.setattr(ray_logging, "global_worker_stdstream_dispatcher", dispatcher)
    return dispatcher


def test_only_the_output_of_replicas_is_printed(
    dispatcher: ray_logging.WorkerStandardStreamDispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    where = "ray/_private/worker.py"
    assert '"ray_print_logs"' in getsource(worker), changed("The handler ray_print_logs", where)
    assert '"actor_name"' in getsource(worker), changed("The field actor_name of the log batches", where)
    dispatcher.add_handler("ray_print_logs", lambda _: pytest.fail("Ray's own handler still runs"))
    internals.print_replicas_only()
    dispatcher.emit({"actor_name": "ServeReplica:m:policy", "pid": 7, "lines": ["one", "two"]})
    dispatcher.emit({"actor_name": "ServeController", "pid": 8, "lines": ["three"]})
    assert capsys.readouterr().err == "[replica 7] one\n[replica 7] two\n"


def test_the_logger_of_the_token_notice_exists() -> None:
    assert importlib.util.find_spec("ray._private.authentication"), changed(
        "The package ray._private.authentication", "the notice about tokens that ray.init logs"
    )


def test_the_addresses_of_a_running_serve_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "ray/serve/_private/client.py"
    assert isinstance(vars(ServeControllerClient).get("http_config"), property), changed(
        "ServeControllerClient.http_config", where
    )
    assert "self._controller" in getsource(ServeControllerClient), changed("ServeControllerClient._controller", where)
    controller = Path(ray.__file__).parent / "serve" / "_private" / "controller.py"
    assert "def get_grpc_config(self) -> gRPCOptions" in controller.read_text(), changed(
        "ServeController.get_grpc_config", str(controller)
    )
    client = SimpleNamespace(http_config=SimpleNamespace(host=None, port=8000))
    monkeypatch.setattr(context, "_get_global_client", lambda: client)
    assert internals.http_address() == ("127.0.0.1", 8000)


@pytest.mark.parametrize(("source", "expected"), [("declarative", True), ("imperative", False)])
def test_an_application_is_known_to_come_from_a_config_file(
    monkeypatch: pytest.MonkeyPatch, source: str, *, expected: bool
) -> None:
    assert "source" in ApplicationDetails.model_fields, changed("ApplicationDetails.source", "ray.serve.schema")
    assert APIType("declarative") == "declarative"
    client = SimpleNamespace(get_serve_details=lambda: {"applications": {"a": {"source": APIType(source)}}})
    monkeypatch.setattr(context, "_get_global_client", lambda: client)
    assert internals.is_from_config_file("a") is expected
    assert internals.is_from_config_file("b") is False


@pytest.mark.parametrize(("is_dead", "expected"), [(False, True), (True, False)])
def test_the_process_that_deployed_an_application_is_found(
    monkeypatch: pytest.MonkeyPatch, *, is_dead: bool, expected: bool
) -> None:
    """`test_applications.py` asks a real cluster."""
    fields = signature(DeploymentInfo).parameters
    assert "deployer_job_id" in fields, changed("deployer_job_id", "ray.serve._private.deployment_info")
    infos = {DeploymentID("policy", "a"): (SimpleNamespace(deployer_job_id="01"), "/a")}
    controller = SimpleNamespace(list_deployments_internal=SimpleNamespace(remote=lambda: infos))
    monkeypatch.setattr(context, "_get_global_client", lambda: SimpleNamespace(_controller=controller))
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(state, "jobs", lambda: [{"JobID": "01", "IsDead": is_dead}, {"JobID": "02", "IsDead": False}])
    assert internals.has_deployer("a") is expected
    assert internals.has_deployer("b") is False


def test_the_client_of_serves_rest_api_reads_and_changes_the_applications() -> None:
    for name in ("get_serve_details", "deploy_applications"):
        assert callable(getattr(ServeSubmissionClient, name)), changed(name, "ray.dashboard.modules.serve.sdk")


def test_parts_that_are_not_needed_for_privacy_may_be_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(ray_logging, "global_worker_stdstream_dispatcher")
    monkeypatch.delattr(context, "_get_global_client")
    with caplog.at_level(logging.WARNING):
        internals.print_replicas_only()
        assert internals.http_address() is None
        assert internals.grpc_service() is None
        assert internals.is_from_config_file("a") is False
        assert internals.has_deployer("a") is False
    assert [record.message.rsplit("so ", 1)[1] for record in caplog.records] == [
        "the output of Ray's processes is printed unfiltered",
        "the address of the cluster's Serve is assumed to be the one in the options",
        "the gRPC port of the cluster's Serve is assumed to be the one in the options",
        "an application that was deployed from a config file may be deleted",
        "an application may be deleted whose server still runs",
    ]


@pytest.mark.skipif(haproxy_binary() is None, reason="no HAProxy is installed: it comes with ray[serve] on Linux")
def test_haproxy_accepts_the_configuration_of_this_ray_after_the_edits(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    config = HAProxyConfig(
        socket_path=str(tmp_path / "admin.sock"), server_state_base=str(tmp_path), server_state_file=str(tmp_path / "s")
    )
    backend = BackendConfig(
        name="m", app_name="m", path_prefix="/m", servers=[ServerConfig(name="replica", host="127.0.0.1", port=1)]
    )
    HAProxyApi(cfg=config, backend_configs={"m": backend}, config_file_path=str(file))._generate_config_file_internal()
    try:
        edit(file)
    except SystemExit as error:
        pytest.fail(f"{error}. {changed('The template', 'ray/serve/_private/haproxy_templates.py')}")
    haproxy = haproxy_binary()
    assert haproxy is not None
    done = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
