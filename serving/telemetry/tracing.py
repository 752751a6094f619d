"""OpenTelemetry traces: Ray Serve makes one span of each sampled request, this module adds to it and exports it.

Serve's span has the request's `request_id` and `route`, and the `replica_id`, `deployment` and `app` that answered. It
continues the trace that the client names in the header `traceparent` (w3.org/TR/trace-context), and then the client
decides whether the request is sampled.
"""

import importlib.util
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from serving.telemetry.errors import TracingMissing

Tracing = Literal["off", "file", "otlp"]

EXPORTER = "opentelemetry-exporter-otlp-proto-http"
EXPORTER_MODULE = "opentelemetry.exporter.otlp.proto.http"

SERVICE_NAME = "policy-server"
"""The name of the service in the traces, unless OTEL_SERVICE_NAME names another."""

LABELS = {b"x-model-name": "model", b"x-model-version": "version"}
"""The attributes that a span gets, by the header of the response that has their value."""

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Any, Send], Awaitable[None]]


def serve_config(tracing: Tracing, ratio: float) -> dict[str, Any] | None:
    """Return Serve's `TracingConfig`, or None for what Serve does by itself: it traces nothing.

    Args:
        tracing: Where spans go: `file` are Serve's log files, `otlp` is the collector of OTEL_EXPORTER_OTLP_ENDPOINT.
        ratio: The share of the requests that are sampled, if the client does not decide.

    Raises:
        TracingMissing: the exporter is not installed.
    """
    if tracing == "off":
        return None
    if tracing == "otlp" and not _is_installed():
        raise TracingMissing(EXPORTER)
    path = f"{__name__}:{otlp_processors.__name__}" if tracing == "otlp" else ""
    return {"enabled": True, "exporter_import_path": path, "sampling_ratio": ratio}


def otlp_processors() -> list[Any]:
    """Return what sends spans to a collector, in batches. Serve calls this in each of its processes.

    The standard variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE_NAME)  # Serve reads it after this function
    return [BatchSpanProcessor(OTLPSpanExporter())]


def is_on() -> bool:
    """Return whether Serve has set up traces in this process."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    return isinstance(trace.get_tracer_provider(), TracerProvider)


def with_span_attributes(application: Application) -> Application:
    """Return the ASGI application, which adds the status, the model and the version to Serve's span of a request."""
    from opentelemetry import trace

    async def traced(scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        span = trace.get_current_span()
        if not span.is_recording():
            await application(scope, receive, send)
            return

        async def send_traced(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", int(message["status"]))
                for name, value in message["headers"]:
                    if name in LABELS:
                        span.set_attribute(LABELS[name], value.decode())
            await send(message)

        await application(scope, receive, send_traced)

    return traced


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(EXPORTER_MODULE) is not None
    except ModuleNotFoundError:  # a package above it
        return False
