"""`python -m serving run`: checks everything that can be checked early, starts Ray and Serve, and stops them."""

import contextlib
import json
import logging
import shlex
import sys
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import click
from gymnasium import Space

from serving.arguments import Arguments
from serving.client.token_file import read_token
from serving.commands.console import importing
from serving.commands.descriptions import refused_modules
from serving.credentials import CredentialsFile
from serving.errors import ServingError, one_line
from serving.http import direct_port
from serving.integrity.signatures import read_public_keys
from serving.policy.bundle import Bundle, parse_policy_file
from serving.policy.execution import check_provider
from serving.processes import available_cpus
from serving.protocols.openapi.json_schemas import example
from serving.ray import settings
from serving.ray.cluster import Cluster, check_port, default_host
from serving.ray.errors import ApplicationNameInvalid, HostInvalid, PortTaken, RoutePrefixInvalid
from serving.ray.stopping import Stop, ignore_signals, stop_on_signals
from serving.registry import tracking
from serving.registry.access import SubprocessRegistry
from serving.registry.errors import ModelUnknown, ModelUriInvalid, VersionMissing
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_uri import ModelUri, is_route_prefix, route_prefix
from serving.registry.model_version import ModelVersion, Resolved
from serving.rollout.candidate_trial import run_trial, trial_conditions
from serving.rollout.refusals import Refusals
from serving.telemetry import tracing
from serving.telemetry.logs import configure_command
from serving.telemetry.tracing import Tracing
from serving.uri_secrets import without_secrets

logger = logging.getLogger(__name__)

MAX_EXAMPLE_CHARACTERS = 500
"""The longest example of a request that the command prints."""


@dataclass(frozen=True)
class ServerOptions:
    """Where to serve: the options in `serving/cli.py` that are no arguments of the application."""

    host: str | None
    """None means 127.0.0.1, and on a cluster all addresses of each node."""
    port: int
    grpc_port: int | None
    """None turns gRPC off."""
    name: str | None
    """The name of the application; None means the model's name."""
    route_prefix: str | None
    """None means `/` and the application's name."""
    address: str | None
    """The Ray cluster to join; None starts a local Ray."""
    startup_timeout_s: float
    tracing: Tracing
    """Where the traces of requests go."""
    tracing_ratio: float
    """The share of the requests that are traced."""


def run(arguments: Arguments, options: ServerOptions) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, then stop every process that was started.

    Raises:
        ServingError: The policy cannot be served. Most causes are found before Ray starts.
    """
    configure_command(arguments.log_format)
    with stop_on_signals():
        try:
            _serve(arguments, options)
        except ServingError as error:
            if arguments.log_format == "text":
                raise
            logger.error("%s", error)  # noqa: TRY400 - the message is made for the user
            sys.exit(1)
        except Stop as stop:
            with contextlib.suppress(OSError):  # the terminal has closed
                click.echo("Interrupted.", err=True)
            sys.exit(128 + stop.signum)


def _serve(arguments: Arguments, options: ServerOptions) -> None:
    check_options(arguments, options)
    if arguments.credentials_file is not None:
        CredentialsFile(arguments.credentials_file).load()
    tracking.use(arguments.tracking_uri, arguments.registry_uri, arguments.workspace)
    # Ray reads its settings when it is imported.
    configure = settings.configure if options.address is None else settings.configure_driver
    configure(arguments.max_body_bytes)
    with importing("ray", "ray.serve", "serving.app"):  # the check waits for another process in the meantime
        joined = options.address is not None
        version, bundle, resolved = check_model(
            arguments, trial=not (joined and arguments.reserved_gpus), application=options.name
        )
    if joined and without_secrets(uri := tracking.tracking_uri()) != uri:
        text = (
            "Warning: Ray's nodes do not receive the password in MLFLOW_TRACKING_URI. Set the variable there as well."
        )
        click.secho(text, fg="yellow", err=True)
    bundle = replace(bundle, graph=b"")  # only the replicas need the weights from now on
    click.echo(f"Starting to serve {one_line(version.name)} version {version.version} ...")
    cpus = max(available_cpus(), arguments.largest_num_replicas)
    with Cluster(
        options.host,
        options.port,
        grpc_port=options.grpc_port,
        address=options.address,
        cpus=cpus,
        tracing=tracing.serve_config(options.tracing, options.tracing_ratio),
    ) as cluster:
        try:
            cluster.require_gpus(arguments.largest_num_replicas * arguments.reserved_gpus)
            # The replicas of a cluster may run on other machines, whose clocks differ.
            url = _deploy(cluster, arguments, options, version, resolved if options.address is None else None)
            _announce(url, cluster, version, bundle, arguments)
            _wait_for_signal()
        finally:
            ignore_signals()


def check_options(arguments: Arguments, options: ServerOptions) -> None:
    """Check all that needs neither the registry nor Ray: the route, the files, the ports, and the GPU."""
    _check_names(options)
    tracing.serve_config(options.tracing, options.tracing_ratio)
    if arguments.auth_token_file is not None:
        read_token(arguments.auth_token_file)
    if arguments.trusted_key:
        read_public_keys(arguments.trusted_key)
    _check_ports(arguments, options)
    if options.address is None:
        check_provider(arguments.execution_provider)  # of a cluster, only the nodes of the replicas need it


def _check_names(options: ServerOptions) -> None:
    name, prefix = options.name, options.route_prefix
    if name is not None and (not name or "/" in name or not is_route_prefix(f"/{name}")):
        raise ApplicationNameInvalid(name)
    if prefix is not None and not is_route_prefix(prefix):
        raise RoutePrefixInvalid(prefix, route_prefix(prefix.strip("/") or "policy"))


def _check_ports(arguments: Arguments, options: ServerOptions) -> None:
    host = default_host(options.address) if options.host is None else options.host
    if not host:
        raise HostInvalid(host, options.port, "the host is empty")
    if options.grpc_port == options.port:
        raise PortTaken(host, options.port, "taken by HTTP", "--grpc-port")
    if (direct := arguments.direct_port) is not None:
        if direct in (options.port, options.grpc_port):
            raise PortTaken(direct_port.HOST, direct, "taken by the proxy", "--direct-port")
        check_port(direct_port.HOST, direct, "--direct-port")
    if options.address is None:
        check_port(host, options.port)
        if options.grpc_port is not None:
            check_port(host, options.grpc_port, "--grpc-port")


class Checked(NamedTuple):
    """The version to serve, its bundle, and what the registry answered; None if the version is the last known good."""

    version: ModelVersion
    bundle: Bundle
    resolved: Resolved | None


def check_model(arguments: Arguments, *, trial: bool = True, application: str | None = None) -> Checked:
    """Check the registry and the bundle. Return the version to serve and its bundle.

    If the registry or the bundle fails, the version that this machine last served for the URI is returned. Without
    `trial`, only replicas run the policy: this machine may lack their GPU. `application` is the name of the
    application, by default that of the model.
    """
    tracking.bound_requests()
    uri = tracking.tracking_uri()
    name = application or _application_name(ModelUri.parse(arguments.model_uri).name)
    good = LastKnownGood(arguments.cache_directory, uri, arguments.model_uri, application=name)
    refusals = Refusals(arguments.cache_directory, good.scope)
    with contextlib.closing(SubprocessRegistry(uri)) as registry:
        try:
            resolved = Resolved(registry.resolve(arguments.model_uri))
            version = resolved.version
            arguments.requirements.check(version)
            refusals.check(version)
            bundle = registry.fetch(version, arguments.cache_directory)
            if trial and not good.has_files_of(version):
                run_trial(bundle, trial_conditions(arguments))
                good.save(version)
        except (ModelUriInvalid, ModelUnknown, VersionMissing):
            raise  # The registry works, and the user is here to correct the URI or to promote a version.
        except ServingError as error:
            version = _recall(good, refusals, error, arguments)
            return Checked(version, registry.fetch(version, arguments.cache_directory), None)
    return Checked(version, bundle, resolved)


def _recall(good: LastKnownGood, refusals: Refusals, error: ServingError, arguments: Arguments) -> ModelVersion:
    """Return the last known good version, with a warning about `error`. Raise `error` if there is none to be served."""
    known = [each for each in (good.load(), *good.previous()) if each is not None]
    if not known:
        raise error
    version = next((each for each in known if refusals.of(each) is None), known[0])
    try:
        arguments.requirements.check(version)
    except ServingError as unmet:
        raise error from unmet
    fallback = f"Starting with the last known good version, {version.version}. Replicas keep polling the registry."
    if arguments.log_format == "json":
        logger.warning("%s. %s", error, fallback)
    else:
        click.secho(f"Warning: {error}", fg="yellow", err=True)
        click.secho(fallback, fg="yellow", err=True)
    return version


def _deploy(
    cluster: Cluster, arguments: Arguments, options: ServerOptions, version: ModelVersion, resolved: Resolved | None
) -> str:
    """Deploy the application, wait until it answers, and return its URL."""
    from serving.app import application

    name = options.name or _application_name(version.name)
    prefix = options.route_prefix or f"/{name}"
    cluster.deploy(application(arguments, resolved), name, prefix)
    url = f"http://{_in_url(cluster.client_host)}:{cluster.port}{prefix.rstrip('/')}"
    cluster.wait(name, f"{url}/health", options.startup_timeout_s)
    return url


def _application_name(model: str) -> str:
    """Return the name of a model's application: Serve writes it into HAProxy's configuration, gRPC clients send it."""
    return route_prefix(model).removeprefix("/")


def _wait_for_signal() -> None:
    try:
        while True:
            time.sleep(3600)
    except Stop:
        with contextlib.suppress(OSError):  # the terminal has closed
            click.echo("Stopping: requests in progress are answered first ...")


def _announce(url: str, cluster: Cluster, version: ModelVersion, bundle: Bundle, arguments: Arguments) -> None:
    """Print the addresses and commands to try."""
    token_file = shlex.quote(arguments.auth_token_file) if arguments.auth_token_file else None
    header = f' -H "Authorization: Bearer $(cat {token_file})"' if token_file else ""
    option = f" --auth-token-file {token_file}" if token_file else ""
    described = parse_policy_file(bundle.policy)
    environment = {**described["environment"], "wrappers": described.get("wrappers", ())}
    if modules := refused_modules(environment, ()):
        option += f" --environment-modules {shlex.quote(','.join(modules))}"
    if cluster.grpc_port is not None:
        click.echo(f"gRPC:     {_in_url(cluster.client_host)}:{cluster.grpc_port}, the Open Inference Protocol")
    named = one_line(f"{version.name} version {version.version} ({version.uri})")
    click.echo(f"Serving {named} at {url}")
    if arguments.direct_port is not None:
        click.echo(f"Direct:   http://{direct_port.HOST}:{arguments.direct_port}, for clients on this host")
    click.echo(f"Try it:   {_example(url, bundle.observation_space)}{header}")
    click.echo(f"Play:     python -m serving query --url {shlex.quote(url)} --episodes 5{option}")
    if arguments.play_sessions:
        click.echo(f"Watch it: {url}/play{_hint(refused_modules(environment, arguments.environment_modules))}")
    click.echo("Stop it:  Ctrl-C")


def _hint(refused: tuple[str, ...]) -> str:
    """Return what to add if `/play` may not make the environment."""
    if not refused:
        return ""
    return f" (numbers only; --environment-modules {shlex.quote(','.join(refused))} shows the environment)"


def _example(url: str, space: Space[Any]) -> str:
    body = json.dumps({"observation": example(space)})
    if len(body) > MAX_EXAMPLE_CHARACTERS:
        return f"curl -s {shlex.quote(f'{url}/model')}"
    return f"curl -s {shlex.quote(url)} -d {shlex.quote(body)}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
