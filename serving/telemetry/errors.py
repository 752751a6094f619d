"""Errors of setting up traces."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class TracingMissing(ServingError):
    """Traces cannot be sent, because the package that does it is not installed."""

    package: str

    template = "--tracing otlp needs the package {package}. Install it: pip install 'cartpole-ppo[tracing]'"
