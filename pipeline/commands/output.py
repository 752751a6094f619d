"""Prints the results that several commands share, and promotes a trained version where it was requested."""

import shlex
from typing import TYPE_CHECKING

import click

from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.registry.gate import Gate
    from pipeline.registry.promotion import Promotion
    from pipeline.registry.registration import Trained
    from pipeline.registry.target import Target
    from pipeline.tuning.run import Tuned


def print_trained(trained: "Trained") -> None:
    """Print a registered version, its final evaluation, and the command that promotes it."""
    uri = f"models:/{trained.name}/{trained.version}"
    click.echo(f"\nRegistered {uri} (run {trained.run_id}): greedy return {trained.evaluation}")
    if not trained.solved:
        click.secho(f"It did not reach the target of {trained.target_return:g} within the budget.", fg="yellow")
    name = "" if trained.name == TrainConfig.registered_model_name else f" --name {shlex.quote(trained.name)}"
    click.echo(f"Next: python -m pipeline promote {trained.version}{name}")


def print_tuned(tuned: "Tuned") -> None:
    """Print a registered version of a search, and the settings of its trial."""
    import yaml

    print_trained(tuned.trained)
    number = tuned.trial.number
    click.echo(f"\nBest: trial {number}. Its settings, also in the run's best.yaml, for train --config FILE:\n")
    click.echo(yaml.safe_dump(dict(tuned.settings), sort_keys=False))


def promote_if_requested(trained: "Trained") -> None:
    """Promote a trained version to Production if its configuration says so."""
    if trained.promote:
        from pipeline.registry.gate import Gate
        from pipeline.registry.target import Target

        promote_and_print(Target(trained.name, "Production"), trained.version, Gate())


def promote_and_print(target: "Target", version: int, gate: "Gate") -> None:
    """Promote a version, and print the verdict of the gate and the result."""
    from pipeline.registry.promotion import promote
    from pipeline.tables import verdict_table

    promotion = promote(target, version, gate)
    if promotion.verdict is not None:
        verdict_table(promotion.verdict)
    for objection in promotion.overridden:
        click.secho(f"Forced, although {objection}", fg="yellow")
    print_promotion(promotion)


def print_promotion(promotion: "Promotion") -> None:
    """Print which version a stage or an alias has now."""
    target = f"The {promotion.target} of '{promotion.target.model}'"
    if promotion.replaced == promotion.version:
        click.echo(f"{target} already has version {promotion.version}.")
        return
    replaced = "" if promotion.replaced is None else f", replacing version {promotion.replaced}"
    click.echo(f"{target} now has version {promotion.version}{replaced}.")
    uri = promotion.target.uri
    click.echo(f"Servers of {uri} load it; start one: python -m serving run --model-uri {shlex.quote(uri)}")
