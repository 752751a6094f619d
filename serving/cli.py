"""`python -m serving`: options in, one call each. What a command needs is imported when it runs."""

from typing import Any

import click

from serving.commands.console import domain_errors
from serving.ray.settings import MAX_BODY_BYTES

DEFAULT_MODEL_URI = "models:/cartpole-ppo/Production"
DEFAULT_URL = "http://127.0.0.1:8000/cartpole-ppo"


TOKEN_OPTION = click.option(
    "--auth-token-file",
    "token_file",
    envvar="SERVING_AUTH_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(),
    help="File with the bearer token that the server asks for.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Serve policies of the model registry over HTTP, and query them."""


@main.command()
@click.option(
    "--model-uri",
    default=DEFAULT_MODEL_URI,
    show_default=True,
    help="What to serve: stage, @alias or number.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Port to answer gRPC on.  [default: no gRPC]")
@click.option("--route-prefix", help="Path to answer under.  [default: / and the model's name]")
@click.option("--num-replicas", default=1, show_default=True, type=click.IntRange(1), help="Processes that answer.")
@click.option(
    "--num-threads",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Threads per replica for a batch.",
)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    help="Where to keep bundles.  [default: the user's cache]",
)
@click.option(
    "--max-ongoing-requests",
    default=256,
    show_default=True,
    type=click.IntRange(1),
    help="Requests per replica; more are refused.",
)
@click.option(
    "--max-batch-size",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Observations to compute at once; 1: each alone.",
)
@click.option(
    "--batch-wait-timeout",
    "batch_wait_timeout_s",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that a batch waits to fill.",
)
@click.option(
    "--max-body-bytes",
    default=MAX_BODY_BYTES,
    show_default=True,
    type=click.IntRange(1),
    help="Larger requests are refused; a larger limit slows all.",
)
@click.option(
    "--max-observations",
    default=4096,
    show_default=True,
    type=click.IntRange(1),
    help="Observations per request; more are refused.",
)
@click.option(
    "--max-json-depth",
    default=64,
    show_default=True,
    type=click.IntRange(2, 256),
    help="Lists and objects within each other.",
)
@click.option(
    "--auth-token-file",
    type=click.Path(),
    help="File with the bearer token to ask of clients.  [default: anyone may ask]",
)
@click.option(
    "--play-sessions",
    default=2,
    show_default=True,
    type=click.IntRange(0),
    help="Viewers of /play per replica; 0: no page.",
)
@click.option("--access-log", is_flag=True, help="Log each request, at the price of latency.")
@click.option(
    "--refresh-interval",
    "refresh_interval_s",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds between looks at the registry.",
)
@click.option("--allow-space-change", is_flag=True, help="Serve a promoted version even if its spaces differ.")
@click.option("--address", envvar="RAY_ADDRESS", show_envvar=True, help="A running Ray to join.  [default: start one]")
@click.option(
    "--startup-timeout",
    "startup_timeout_s",
    default=120.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds to come up.",
)
@domain_errors()
def run(**options: Any) -> None:
    """Serve a registered policy until Ctrl-C."""
    from serving.commands import run as server

    server.run(server.ServerOptions(**options))


@main.command()
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The policy server, with its route prefix.")
@click.option("--episodes", default=5, show_default=True, type=click.IntRange(1), help="Episodes to play.")
@click.option("--env-id", help="Environment to play.  [default: the one the policy was trained in]")
@click.option("--seed", default=0, show_default=True, help="Seed of the first episode; the next ones count up.")
@click.option("--explore", is_flag=True, help="Sample actions; the seed makes that repeatable.")
@click.option("--quiet", is_flag=True, help="Show returns, no steps.")
@click.option(
    "--lockstep/--one-by-one",
    "together",
    default=None,
    help="One request for a step of all episodes.  [default: from 20 episodes on]",
)
@TOKEN_OPTION
@domain_errors()
def query(**options: Any) -> None:
    """Play episodes with a served policy, through HTTP."""
    from serving.commands import query

    query.query(**options)


@main.command()
@click.option("--url", default=DEFAULT_URL, show_default=True, help="The policy server, with its route prefix.")
@click.option("--watch", is_flag=True, help="Go on, renewed every second, until Ctrl-C.")
@TOKEN_OPTION
@domain_errors()
def status(**options: Any) -> None:
    """Show which version each replica serves, and what the registry has said."""
    from serving.commands import status

    try:
        status.status(**options)
    except KeyboardInterrupt:
        return
