"""Keeps the gRPC servers of a Ray of our own to one address: Serve binds them to all interfaces, without a setting."""

from collections.abc import Callable


def setup_hook(host: str) -> Callable[[], None]:
    """Return what Ray's workers are to run before anything else (`worker_process_setup_hook`).

    Args:
        host: the address that gRPC servers in them listen on.
    """
    address = f"[{host}]" if ":" in host else host

    # A function in a function travels by value: a worker knows no module of ours when it starts.
    def bind_grpc() -> None:
        from ray.serve._private import default_impl

        def add_address(server: object, wanted: str) -> None:
            server.add_insecure_port(f"{address}:{wanted.rsplit(':', 1)[1]}")  # type: ignore[attr-defined]

        default_impl.add_grpc_address = add_address

    return bind_grpc
