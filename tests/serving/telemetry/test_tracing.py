import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ray._common.utils import import_attr
from ray.serve.schema import TracingConfig

from serving.http.policy_app import PolicyApp
from serving.telemetry import tracing
from serving.telemetry.errors import TracingMissing
from tests.serving.asking import ask

ONE = b'{"observation": [0, 0, 1, 0]}'


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A receiver of OTLP over HTTP: its URL, and the requests that it has received."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()
    thread.join()


def test_by_default_serve_is_told_nothing() -> None:
    assert tracing.serve_config("off", 0.5) is None


def test_serves_own_exporter_writes_files() -> None:
    config = TracingConfig(**(tracing.serve_config("file", 0.5) or {}))
    assert (config.enabled, config.exporter_import_path, config.sampling_ratio) == (True, "", 0.5)


def test_a_missing_exporter_is_named_with_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EXPORTER_MODULE", "opentelemetry.nowhere.http")
    with pytest.raises(TracingMissing, match=r"pip install 'cartpole-ppo\[tracing\]'"):
        tracing.serve_config("otlp", 0.5)


def test_spans_reach_a_collector_under_the_name_of_the_service(
    collector: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracing.EXPORTER_MODULE, reason="the extra [tracing] is not installed")
    url, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "removed again, and after the test whatever it is set to")
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    processors = import_attr(tracing.serve_config("otlp", 1.0)["exporter_import_path"])()  # type: ignore[index]
    provider = TracerProvider()  # as Serve: after the processors
    for processor in processors:
        provider.add_span_processor(processor)
    provider.get_tracer("serve").start_span("request", attributes={"request_id": "7"}).end()
    provider.shutdown()
    ((path, request),) = received
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names["service.name"] == tracing.SERVICE_NAME
    (span,) = resource.scope_spans[0].spans
    assert {each.key: each.value.string_value for each in span.attributes}["request_id"] == "7"


@pytest.mark.parametrize(("body", "status"), [(ONE, 200), (b"hello", 400)])
def test_the_span_of_a_request_names_its_status_model_and_version(app: PolicyApp, body: bytes, status: int) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("serve").start_as_current_span("request"):
        assert ask(tracing.with_span_attributes(app), body=body).status == status
    (span,) = exporter.get_finished_spans()
    expected = {"http.response.status_code": status, "model": "cartpole-ppo", "version": "3"}
    assert dict(span.attributes or {}) == expected


def test_a_request_that_is_not_sampled_passes_unchanged(app: PolicyApp) -> None:
    assert ask(tracing.with_span_attributes(app), body=ONE).json() == {"action": 1}
