"""`python -m serving run`: checks everything that can be checked early, starts Ray and Serve, and stops them."""

import contextlib
import importlib
import json
import os
import shlex
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import click
from gymnasium import Space

from serving.arguments import Arguments
from serving.client.token_file import read_token
from serving.errors import ServingError
from serving.processes import available_cpus
from serving.protocols.openapi.json_schemas import example
from serving.ray import settings
from serving.ray.cluster import Cluster, check_port
from serving.ray.errors import PortTaken
from serving.ray.stopping import Stop, ignore_signals, stop_on_signals
from serving.registry import tracking
from serving.registry.access import SubprocessRegistry
from serving.registry.errors import ModelUnknown, ModelUriInvalid, VersionMissing
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_version import ModelVersion
from serving.rollout.candidate_trial import run_trial

MAX_EXAMPLE_CHARACTERS = 500
"""The longest example of a request that the command prints."""


@dataclass(frozen=True)
class ServerOptions:
    """Where to serve: the options in `serving/cli.py` that are no arguments of the application."""

    host: str
    port: int
    grpc_port: int | None
    """None turns gRPC off."""
    route_prefix: str | None
    """None means `/` and the model's name."""
    address: str | None
    """The Ray cluster to join; None starts a local Ray."""
    startup_timeout_s: float


def run(arguments: Arguments, options: ServerOptions) -> None:
    """Serve until SIGINT or SIGTERM, then stop every process that was started.

    Raises:
        ServingError: The policy cannot be served. Most causes are found before Ray starts.
    """
    with stop_on_signals():
        try:
            _serve(arguments, options)
        except Stop as stop:
            click.echo("Interrupted.", err=True)
            sys.exit(128 + stop.signum)


def _serve(arguments: Arguments, options: ServerOptions) -> None:
    if options.grpc_port == options.port:
        raise PortTaken(options.host, options.port, "taken by HTTP", "--grpc-port")
    if arguments.tracking_uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = arguments.tracking_uri
    # Ray reads its settings when it is imported.
    settings.configure(arguments.max_body_bytes, own_ray=options.address is None)
    # The checks wait for other processes, so import Ray in the meantime.
    threading.Thread(target=importlib.import_module, args=("serving.app",)).start()
    version, observation_space = check(arguments, options)
    click.echo(f"Starting to serve {version.name} version {version.version} ...")
    cpus = max(available_cpus(), arguments.largest_num_replicas)
    with Cluster(
        options.host, options.port, grpc_port=options.grpc_port, address=options.address, cpus=cpus
    ) as cluster:
        try:
            url = _deploy(cluster, arguments, options, version)
            _announce(url, cluster, version, observation_space, arguments)
            _wait_for_signal()
        finally:
            ignore_signals()


def check(arguments: Arguments, options: ServerOptions) -> tuple[ModelVersion, Space[Any]]:
    """Check the token file, ports, registry and bundle. Return the version to serve and its observation space.

    If the registry or the bundle fails, the version that this machine last served for the URI is returned.
    """
    tracking.bound_requests()
    if arguments.auth_token_file is not None:
        read_token(arguments.auth_token_file)
    if options.address is None:
        check_port(options.host, options.port)
        if options.grpc_port is not None:
            check_port(options.host, options.grpc_port, "--grpc-port")
    uri = tracking.tracking_uri()
    good = LastKnownGood(arguments.cache_directory, uri, arguments.model_uri)
    with contextlib.closing(SubprocessRegistry(uri)) as registry:
        try:
            version = registry.resolve(arguments.model_uri)
            bundle = registry.fetch(version, arguments.cache_directory)
            if not good.has_files_of(version):
                run_trial(bundle, arguments.candidate_memory_bytes, arguments.candidate_timeout_s)
                good.save(version)
        except (ModelUriInvalid, ModelUnknown, VersionMissing):
            raise  # The registry works, and the user is here to correct the URI or to promote a version.
        except ServingError as error:
            version = _recall(good, error)
            bundle = registry.fetch(version, arguments.cache_directory)
    return version, bundle.observation_space


def _recall(good: LastKnownGood, error: ServingError) -> ModelVersion:
    """Return the last known good version, with a warning about `error`. Raise `error` if there is none."""
    version = good.load()
    if version is None:
        raise error
    click.secho(f"Warning: {error}", fg="yellow", err=True)
    fallback = f"Starting with the last known good version, {version.version}. Replicas keep polling the registry."
    click.secho(fallback, fg="yellow", err=True)
    return version


def _deploy(cluster: Cluster, arguments: Arguments, options: ServerOptions, version: ModelVersion) -> str:
    """Deploy the application, wait until it answers, and return its URL."""
    from serving.app import build

    prefix = options.route_prefix or f"/{version.name}"
    cluster.deploy(build(arguments), version.name, prefix)
    url = f"http://{_client_host(cluster.host)}:{cluster.port}{prefix.rstrip('/')}"
    cluster.wait(version.name, f"{url}/health", options.startup_timeout_s)
    return url


def _wait_for_signal() -> None:
    try:
        while True:
            time.sleep(3600)
    except Stop:
        click.echo("Stopping: requests in progress are answered first ...")


def _announce(
    url: str, cluster: Cluster, version: ModelVersion, observation_space: Space[Any], arguments: Arguments
) -> None:
    """Print the addresses and commands to try."""
    token_file = shlex.quote(arguments.auth_token_file) if arguments.auth_token_file else None
    header = f' -H "Authorization: Bearer $(cat {token_file})"' if token_file else ""
    option = f" --auth-token-file {token_file}" if token_file else ""
    if cluster.grpc_port is not None:
        click.echo(f"gRPC:     {_client_host(cluster.host)}:{cluster.grpc_port}, the Open Inference Protocol")
    click.echo(f"Serving {version.name} version {version.version} ({version.uri}) at {url}")
    click.echo(f"Try it:   {_example(url, observation_space)}{header}")
    click.echo(f"Play:     python -m serving query --url {url} --episodes 5{option}")
    if arguments.play_sessions:
        click.echo(f"Watch it: {url}/play")
    click.echo("Stop it:  Ctrl-C")


def _example(url: str, space: Space[Any]) -> str:
    body = json.dumps({"observation": example(space)})
    return f"curl -s {url}/model" if len(body) > MAX_EXAMPLE_CHARACTERS else f"curl -s {url} -d {shlex.quote(body)}"


def _client_host(host: str) -> str:
    """Return the host that clients on this machine connect to when the server listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host
