"""The engine's ceiling: an application that does nothing, under the settings of `python -m serving run`."""

import time
from collections.abc import MutableMapping
from typing import Any

import click

from serving.processes import available_cpus
from serving.ray import settings as engine
from serving.ray.cluster import Cluster
from serving.ray.stopping import Stop, stop_on_signals

ANSWER = b'{"action":0}'
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(ANSWER)),
    (b"x-model-name", b"noop"),
    (b"x-model-version", b"0"),
]


async def noop(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Take the request in, and answer with the same bytes whatever it was."""
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})
        return
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Noop:
    """A replica without a policy."""

    def __init__(self) -> None:
        engine.tune_replica()

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application that Serve's ingress calls."""
        return noop


@click.command()
@click.option("--port", required=True, type=int, help="Port to listen on.")
def main(port: int) -> None:
    """Serve nothing until SIGTERM."""
    engine.configure()  # before ray is imported
    with stop_on_signals():
        try:
            _serve(port)
        except Stop:
            return


def _serve(port: int) -> None:
    with Cluster("127.0.0.1", port, cpus=available_cpus()) as cluster:
        from ray import serve

        deployment = serve.deployment(
            name="noop", max_ongoing_requests=100_000, logging_config=engine.logging_config(access_log=False)
        )
        cluster.deploy(deployment(serve.ingress()(Noop)).bind(), "noop", "/noop")
        time.sleep(3600)


if __name__ == "__main__":
    main()
