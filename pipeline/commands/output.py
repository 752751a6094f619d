"""Prints the results that several commands share, and promotes a trained version where it was requested."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.registry.gate import Gate
    from pipeline.registry.promotion import Promotion
    from pipeline.registry.registration import Trained
    from pipeline.registry.signing import Signer
    from pipeline.registry.target import Target
    from pipeline.tuning.run import Tuned


def print_trained(trained: "Trained") -> None:
    """Print a registered version, its final evaluation, and the command that promotes it."""
    uri = f"models:/{trained.name}/{trained.version}"
    click.echo(f"\nRegistered {uri} (run {trained.run_id}): greedy return {trained.evaluation}")
    name = "" if trained.name == TrainConfig.registered_model_name else f" --name {shlex.quote(trained.name)}"
    promote = f"python -m pipeline promote {trained.version}{name}"
    if trained.solved:
        click.echo(f"Next: {promote}")
    elif trained.is_from_experience:
        click.secho(
            f"It did not reach the target of {trained.target_return:g}. "
            "It is registered, but the gate rejects it below that threshold.",
            fg="yellow",
        )
        click.echo(f"Next: train on in the environment: {_command('train', {'from': uri})}")
    else:
        _print_remedies(trained, promote)


def _print_remedies(trained: "Trained", promote: str) -> None:
    """Print what to do about a version that did not reach its target, beginning with what the training suggests."""
    spent = trained.config.max_env_steps
    click.secho(
        f"It did not reach the target of {trained.target_return:g} within the budget of {spent:,} environment steps. "
        "It is registered, but the gate rejects it below that threshold.",
        fg="yellow",
    )
    reason, *remedies = _remedies(trained)
    (first, command), *others = remedies
    click.echo(f"{reason} Next: {first}: {command}")
    for other, command in others:
        click.echo(f"Or {other}: {command}")
    evaluation = trained.evaluation
    reached = evaluation.mean - 2 * evaluation.std / len(evaluation.returns) ** 0.5
    click.echo(f"Or accept it as it is: {promote} --threshold {reached:.4g}")


def _remedies(trained: "Trained") -> tuple[str, *tuple[tuple[str, str], ...]]:
    """Return what the returns of a training did by its end, and what helps then: remedies and their commands."""
    from pipeline.evaluation.trend import Trend
    from pipeline.settings import choice

    config = trained.config
    settings = config.changed(choice.usual(config))
    # The statistics of a filter cannot be transferred to another training.
    origin = {} if config.observation_filter != "none" else {"from": f"models:/{trained.name}/{trained.version}"}
    longer = "train on", _command("train", origin | settings | {"max_env_steps": 2 * config.max_env_steps})
    search = "search other settings", _command("tune", settings)
    if trained.trend == Trend.FALLING:
        slower = {"lr": _rounded(config.lr / 3), "lr_final": _rounded(config.lr_final / 3)}
        reason = f"The returns fell after the best policy, which was found after {trained.best_step:,} steps."
        return reason, ("learn more slowly", _command("train", settings | slower)), search
    if trained.trend == Trend.CONSTANT:
        explored = {"entropy_coeff": _rounded(max(0.05, 5 * config.entropy_coeff))}
        reason = f"Every mean return was {trained.evaluation.mean:g}, so there was nothing to learn from."
        return reason, ("explore more", _command("train", settings | explored)), search
    if trained.was_improving:
        reason = (
            "It was found near the end of the budget." if trained.trend is None else "The returns were still rising."
        )
        return reason, longer, search
    return f"Nothing better was found after {trained.best_step:,} steps.", search, longer


def _rounded(number: float) -> float:
    return float(f"{number:.2g}")


def _command(name: str, settings: Mapping[str, object]) -> str:
    """Return a command with options for settings, quoted for a shell."""
    words = ["python", "-m", "pipeline", name]
    for setting, value in settings.items():
        values = str(value).split(",") if setting == "wrapper" else [str(value)]
        words += [word for each in values for word in ("--" + setting.strip("_").replace("_", "-"), each)]
    return shlex.join(words)


def print_tuned(tuned: "Tuned") -> None:
    """Print a registered version of a search, and the settings of its trial."""
    import yaml

    print_trained(tuned.trained)
    number = tuned.trial.number
    click.echo(f"\nBest: trial {number}. Its settings, also in the run's best.yaml, for train --config FILE:\n")
    click.echo(yaml.safe_dump(dict(tuned.settings), sort_keys=False))


def promote_if_requested(trained: "Trained", signer: "Signer | None" = None) -> None:
    """Promote a trained version to Production if its configuration says so, and sign that with a `signer`."""
    if trained.promote:
        from pipeline.registry.gate import Gate
        from pipeline.registry.target import Target

        promote_and_print(Target(trained.name, "Production"), trained.version, Gate(), signer)


def promote_and_print(target: "Target", version: int, gate: "Gate", signer: "Signer | None" = None) -> None:
    """Promote a version, and print the verdict of the gate and the result."""
    from pipeline.registry.promotion import promote
    from pipeline.tables import verdict_table
    from serving.registry.tracking import check_tracking_server

    check_tracking_server()
    end_superseded(target)
    promotion = promote(target, version, gate, signer)
    if promotion.verdict is not None:
        verdict_table(promotion.verdict)
    for objection in promotion.overridden:
        click.secho(f"Forced, although {objection}", fg="yellow")
    print_promotion(promotion)
    end_superseded(target)


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


def end_superseded(target: "Target") -> None:
    """End the running experiments that assignments to a target have superseded, and say so.

    It is called before an assignment, too: if that assigns the champion of such an experiment again, and no controller
    runs, the experiment would go on.
    """
    from pipeline.experiment.live.ending import supersede
    from pipeline.experiment.live.state import find_superseded
    from pipeline.registry.target import STAGES, Target

    # A version is in one stage at a time, so an assignment to a stage may take the champion of another one away.
    for each in [target] if target.is_alias else [Target(target.model, stage) for stage in STAGES]:
        if live := find_superseded(each):
            supersede(live)
            experiment = live.experiment
            click.secho(
                f"Experiment {experiment.id}, version {experiment.challenger} against {experiment.champion}, has ended "
                f"as superseded: version {experiment.champion} has left the {each}.",
                fg="yellow",
            )
