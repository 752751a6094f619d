"""A port of the replicas themselves, for clients on their host that need a low latency, such as control loops."""

import asyncio
import socket
from typing import Any

from serving.processes import shorten_slice

HOST = "127.0.0.1"


class DirectPort:
    """Listens on a loopback port that all replicas of this host share, and answers with the replica's application.

    The kernel gives each new connection to one of the replicas that listen, so a replica that ends takes its own
    connections with it and no others.

    Args:
        application: The ASGI application.
        port: The port.
    """

    def __init__(self, application: Any, port: int) -> None:
        import uvicorn

        self._port = port
        self._server = uvicorn.Server(uvicorn.Config(application, lifespan="off", access_log=False, log_config=None))

    def start(self) -> None:
        """Listen, and answer in the running event loop. Raises OSError if another program uses the port.

        The thread of the event loop is then scheduled for a low latency.
        """
        shorten_slice()
        listener = socket.create_server((HOST, self._port), reuse_port=True)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    def stop(self) -> None:
        """Stop accepting connections, and close each one, but not before its request is answered."""
        self._server.should_exit = True
        # The server would notice up to 0.1 s later, when this process may have ended.
        for listener in getattr(self._server, "servers", ()):  # it has none before it has started
            listener.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()
