"""What `python -m serving run` does, from the first check to the last process gone."""

import contextlib
import importlib
import json
import math
import os
import shlex
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from gymnasium import Space

from serving.errors import ServingError
from serving.policy.spaces import Json
from serving.ray import settings as engine
from serving.ray.cluster import Cluster, check_port
from serving.ray.errors import PortTaken
from serving.ray.stopping import Stop, ignore_signals, stop_on_signals
from serving.registry import registry, tracking
from serving.registry.errors import ModelUnknown, ModelUriInvalid, VersionMissing
from serving.registry.last_known_good import LastKnownGood
from serving.registry.poller import Beside
from serving.registry.registry import ModelVersion
from serving.replica import auth
from serving.rollout import trial as candidate

MAX_EXAMPLE_NUMBERS = 64
"""A larger observation makes no readable example."""


@dataclass(frozen=True)
class ServerOptions:
    """How to serve, as the command line says it."""

    model_uri: str
    host: str
    port: int
    grpc_port: int | None
    """None for no gRPC."""
    route_prefix: str | None
    """None for the model's name."""
    num_replicas: int
    num_threads: int
    cache_dir: str | None
    max_ongoing_requests: int
    max_batch_size: int
    batch_wait_timeout_s: float
    max_body_bytes: int
    max_observations: int
    max_json_depth: int
    auth_token_file: str | None
    play_sessions: int
    access_log: bool
    refresh_interval_s: float
    allow_space_change: bool
    address: str | None
    """The Ray to join, None to start one."""
    startup_timeout_s: float


def run(options: ServerOptions) -> None:
    """Serve until SIGINT or SIGTERM, then leave nothing behind.

    Raises:
        ServingError: whatever stands in the way, most of it found before Ray is started.
    """
    with stop_on_signals():
        try:
            _serve(options)
        except Stop as stop:
            click.echo("Interrupted.", err=True)
            sys.exit(128 + stop.signum)


def _serve(options: ServerOptions) -> None:
    if options.grpc_port == options.port:
        raise PortTaken(options.host, options.port, "taken by HTTP", "--grpc-port")
    engine.configure(options.max_body_bytes)  # before ray is imported
    # Beside the check, which waits for processes of its own.
    threading.Thread(target=importlib.import_module, args=("serving.app",)).start()
    version, observation_space = _check(options)
    prefix = options.route_prefix or f"/{version.name}"
    click.echo(f"Starting to serve {version.name} version {version.version} ...")
    with _cluster(options) as cluster:
        try:
            cluster.deploy(_application(options), version.name, prefix)
            url = f"http://{_reachable(cluster.host)}:{cluster.port}{prefix.rstrip('/')}"
            cluster.wait(version.name, f"{url}/health", options.startup_timeout_s)
            if cluster.grpc_port is not None:
                click.echo(f"gRPC:     {_reachable(cluster.host)}:{cluster.grpc_port}, the Open Inference Protocol")
            _announce(url, version, observation_space, options)
            _stay()
        finally:
            ignore_signals()


def _check(options: ServerOptions) -> tuple[ModelVersion, Space[Any]]:
    """Find in seconds what would otherwise fail after Ray has started: registry, version, bundle, port."""
    tracking.bound_requests()
    if options.auth_token_file is not None:
        auth.read_token(options.auth_token_file)
    if options.address is None:
        check_port(options.host, options.port)
        if options.grpc_port is not None:
            check_port(options.host, options.grpc_port, "--grpc-port")
    directory = Path(options.cache_dir) if options.cache_dir else registry.default_cache_dir()
    uri = tracking.tracking_uri()
    good = LastKnownGood(directory, uri, options.model_uri)
    with contextlib.closing(Beside(uri)) as asked:
        try:
            tracking.check_tracking_server()
            version = asked.resolve(options.model_uri)
            bundle = asked.fetch(version, directory)
            if not good.vouches_for(version):
                candidate.check(bundle, candidate.Limits())
                good.remember(version)
        except (ModelUriInvalid, ModelUnknown, VersionMissing):
            raise  # the registry is well and says no: whoever starts a server is here to read it
        except ServingError as error:
            version = _last_known_good(good, error)
            bundle = asked.fetch(version, directory)
    return version, bundle.observation_space


def _last_known_good(good: LastKnownGood, error: ServingError) -> ModelVersion:
    """Return the version that this machine last served for the URI. Raises `error` where there is none."""
    version = good.recall()
    if version is None:
        raise error
    warning = f"Warning: {error}\nStarting with the last known good version, {version.version}, and asking on."
    click.secho(warning, fg="yellow", err=True)
    return version


def _cluster(options: ServerOptions) -> Cluster:
    cpus = max(os.cpu_count() or 1, options.num_replicas)
    return Cluster(options.host, options.port, grpc_port=options.grpc_port, address=options.address, cpus=cpus)


def _application(options: ServerOptions) -> Any:
    from serving.app import Arguments, build

    arguments = Arguments(
        model_uri=options.model_uri,
        cache_dir=options.cache_dir and os.path.abspath(options.cache_dir),  # noqa: PTH100 - None stays None
        num_replicas=options.num_replicas,
        num_threads=options.num_threads,
        max_ongoing_requests=options.max_ongoing_requests,
        max_batch_size=options.max_batch_size,
        batch_wait_timeout_s=options.batch_wait_timeout_s,
        max_body_bytes=options.max_body_bytes,
        max_observations=options.max_observations,
        max_json_depth=options.max_json_depth,
        auth_token_file=options.auth_token_file,
        play_sessions=options.play_sessions,
        access_log=options.access_log,
        refresh_interval_s=options.refresh_interval_s,
        allow_space_change=options.allow_space_change,
    )
    return build(arguments)


def _stay() -> None:
    """Sleep until a signal comes."""
    try:
        while True:
            time.sleep(3600)
    except Stop:
        click.echo("Stopping: requests under way are answered first ...")


def _announce(url: str, version: ModelVersion, observation_space: Space[Any], options: ServerOptions) -> None:
    token_file = shlex.quote(options.auth_token_file) if options.auth_token_file else None
    header = f' -H "Authorization: Bearer $(cat {token_file})"' if token_file else ""
    option = f" --auth-token-file {token_file}" if token_file else ""
    click.echo(f"Serving {version.name} version {version.version} ({version.uri}) at {url}")
    click.echo(f"Try it:   {_example(url, observation_space.shape or ())}{header}")
    click.echo(f"Play:     python -m serving query --url {url} --episodes 5{option}")
    if options.play_sessions:
        click.echo(f"Watch it: {url}/play")
    click.echo("Stop it:  Ctrl-C")


def _example(url: str, shape: tuple[int, ...]) -> str:
    if math.prod(shape) > MAX_EXAMPLE_NUMBERS:
        return f"curl -s {url}/model"
    return f"curl -s {url} -d '{json.dumps({'observation': _zeros(shape)})}'"


def _zeros(shape: tuple[int, ...]) -> Json:
    return [_zeros(shape[1:]) for _ in range(shape[0])] if shape else 0


def _reachable(host: str) -> str:
    """Return a host to connect to for one to listen on."""
    host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host
