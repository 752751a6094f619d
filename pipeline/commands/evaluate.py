"""The commands `evaluate` and `verify`."""

import click

from pipeline.commands.options import (
    bounded_requests,
    one_line_errors,
    registry_option,
    seed_option,
    trust_checkpoint_option,
)


@click.command()
@click.argument("model_uri")
@click.option("--episodes", type=click.IntRange(1), default=100, show_default=True, help="Greedy episodes to play.")
@seed_option
@registry_option
@one_line_errors
@bounded_requests
def evaluate(model_uri: str, episodes: int, seed: int) -> None:
    """Play greedy episodes with MODEL_URI, such as models:/cartpole-ppo/1, and record the returns in MLflow."""
    from pipeline.registry.evaluate_version import evaluate

    evaluated = evaluate(model_uri, episodes, seed)
    click.echo(f"models:/{evaluated.name}/{evaluated.version}: greedy return {evaluated.evaluation}")
    if evaluated.evaluation.notice:
        click.secho(evaluated.evaluation.notice, fg="yellow")
    click.echo(f"Recorded in run {evaluated.run_id} and on the version.")


@click.command()
@click.argument("model_uri")
@click.option("--url", help="A server of this version to verify too, such as http://127.0.0.1:8000/cartpole-ppo.")
@click.option(
    "--auth-token-file",
    "token_file",
    envvar="SERVING_AUTH_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(dir_okay=False),
    help="File with the bearer token that the server requires.",
)
@click.option(
    "--observations", type=click.IntRange(20), default=1000, show_default=True, help="Number of observations."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the observations.")
@trust_checkpoint_option
@registry_option
@one_line_errors
@bounded_requests
def verify(
    model_uri: str,
    url: str | None,
    token_file: str | None,
    observations: int,
    seed: int,
    *,
    trust_checkpoint: bool,
) -> None:
    """Check that MODEL_URI, such as models:/cartpole-ppo/1, acts as RLlib does with the version's checkpoint.

    The observations come from rollouts and from the corners of the observation space. Greedy actions are compared
    singly and in batches; sampled actions are tested for the same distribution. The exit status is 1 if any differ.
    """
    from pipeline.tables import checks_table
    from pipeline.verification.errors import VerificationFailed
    from pipeline.verification.suite import verify
    from serving.client.token_file import read_token

    token = token_file and read_token(token_file)
    checks = verify(model_uri, observations, seed, url, token, trust_checkpoint=trust_checkpoint)
    checks_table(checks)
    failures = [f"{each.name}: {each.failure}" for each in checks if each.failure is not None]
    if failures:
        raise VerificationFailed(model_uri, failures)
