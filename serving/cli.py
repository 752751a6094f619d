"""`python -m serving`: reads the options and calls one function. Each command imports what it needs when it runs."""

import contextlib
from pathlib import Path
from typing import Any

import click

from serving.arguments import Arguments
from serving.client.proxies import bypass_loopback
from serving.commands.console import one_line_errors
from serving.commands.options import Duration, argument_options, split_commas
from serving.replica.limits import MAX_BODY_BYTES

URL_OPTION = click.option(
    "--url",
    default="http://127.0.0.1:8000/cartpole-ppo",
    show_default=True,
    help="URL of the policy server, with its route prefix.",
)
TOKEN_OPTION = click.option(
    "--auth-token-file",
    "token_file",
    envvar="SERVING_AUTH_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(),
    help="File with the bearer token that the server requires.",
)

DASHBOARD_OPTION = click.option(
    "--address",
    default="http://127.0.0.1:8265",
    envvar="RAY_DASHBOARD_ADDRESS",
    show_default=True,
    show_envvar=True,
    help="Address of the cluster's Ray dashboard.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Serve policies of the model registry over HTTP, and query them."""
    bypass_loopback()


@main.command()
@argument_options
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [default: 127.0.0.1; on a cluster 0.0.0.0]")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Port for gRPC.  [default: no gRPC]")
@click.option(
    "--name", help="Name of the application, of which a cluster may run several.  [default: the model's name]"
)
@click.option("--route-prefix", help="Path prefix of the application.  [default: / and the application's name]")
@click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="Address of a running Ray cluster to join.  [default: start a local Ray]",
)
@click.option(
    "--tracing",
    default="off",
    show_default=True,
    type=click.Choice(["off", "file", "otlp"]),
    help="Where OpenTelemetry traces go: Serve's log files, or the collector of OTEL_EXPORTER_OTLP_ENDPOINT.",
)
@click.option(
    "--tracing-ratio",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the requests that are traced, if the client does not decide.",
)
@click.option(
    "--startup-timeout",
    "startup_timeout_s",
    default=120.0,
    show_default=True,
    type=Duration(1),
    metavar="SECONDS",
    help="Time after which a server that does not answer yet is stopped.",
)
@one_line_errors
def run(arguments: Arguments, **options: Any) -> None:
    """Serve a registered policy until Ctrl-C."""
    from serving.commands import run as server

    server.run(arguments, server.ServerOptions(**options))


@main.command(
    short_help="Start Ray on a node of a cluster.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--max-body-bytes",
    default=MAX_BODY_BYTES,
    show_default=True,
    type=click.IntRange(1),
    metavar="BYTES",
    help="The largest max_body_bytes of the applications that the cluster will serve.",
)
@click.argument("command", metavar="start", type=click.Choice(["start"]))
@click.argument("ray_options", metavar="[OPTIONS OF RAY START]", nargs=-1, type=click.UNPROCESSED)
@one_line_errors
def ray(max_body_bytes: int, command: str, ray_options: tuple[str, ...]) -> None:  # noqa: ARG001
    """Start Ray on a node of a cluster: `ray start` with the settings that Serve and HAProxy need."""
    from serving.ray import node

    node.start(ray_options, max_body_bytes)


@main.command(short_help="Deploy the applications of a Serve config FILE on a cluster.")
@click.argument("file", type=click.Path(path_type=Path))
@DASHBOARD_OPTION
@click.option(
    "--timeout",
    "timeout_s",
    default=300.0,
    show_default=True,
    type=Duration(1),
    metavar="SECONDS",
    help="Time after which the command stops waiting for the new replicas.",
)
@one_line_errors
def deploy(**options: Any) -> None:
    """Deploy the applications of a Serve config FILE on a cluster, and leave its other applications as they are."""
    from serving.commands import deploy

    deploy.deploy(**options)


@main.command(short_help="Delete an application that was deployed from a file.")
@click.argument("name")
@DASHBOARD_OPTION
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="Address of the Ray cluster, as in `serving run --address`: deletes the application of a server that joined "
    "it there and was killed.",
)
@one_line_errors
def delete(**options: Any) -> None:
    """Delete the application NAME that was deployed from a file, and leave the cluster's others as they are."""
    from serving.commands import deploy

    deploy.delete(**options)


@main.command(short_help="Play episodes with a served policy, over HTTP.")
@URL_OPTION
@click.option("--episodes", default=5, show_default=True, type=click.IntRange(1), help="Number of episodes to play.")
@click.option("--env-id", help="Environment to play.  [default: the one that the policy was trained in]")
@click.option(
    "--environment-modules",
    multiple=True,
    metavar="MODULE",
    callback=split_commas,
    help="Module or package that may be imported if the server names it for the environment or a wrapper; can be "
    "repeated, or be a list with commas.",
)
@click.option(
    "--allow-import",
    is_flag=True,
    help="Import whatever modules the server names, which may run any code.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the first episode; it increases by 1 per episode.")
@click.option("--explore", is_flag=True, help="Sample actions; the same seed gives the same actions.")
@click.option("--quiet", is_flag=True, help="Print a progress bar and a summary only.")
@click.option(
    "--lockstep/--one-by-one",
    "together",
    default=None,
    help="Send one request per step for all episodes together.  [default: from 20 episodes on]",
)
@TOKEN_OPTION
@one_line_errors
def query(**options: Any) -> None:
    """Play episodes with a served policy, over HTTP. A server that records experience records them."""
    from serving.commands import query

    query.query(**options)


@main.command(short_help="Show the version and the last poll of each replica.")
@URL_OPTION
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@TOKEN_OPTION
@one_line_errors
def status(**options: Any) -> None:
    """Show which version each replica serves, and its last poll of the registry."""
    from serving.commands import status

    with contextlib.suppress(KeyboardInterrupt):
        status.status(**options)
