"""The commands `promote`, `sign`, `rollback`, `history` and `versions`."""

from typing import Any

import click

from pipeline.commands.experiment.live import promote_with_canary
from pipeline.commands.experiment.options import (
    EXPERIMENT_OPTIONS,
    detach_option,
    every_option,
    experiment_options,
    start_options,
)
from pipeline.commands.ope.command import OPE_OPTIONS, ope_options, second_gate
from pipeline.commands.options import (
    OptionalFloat,
    bounded_requests,
    given,
    name_option,
    one_line_errors,
    registry_option,
    seed_option,
    signer_of,
    signing_key_option,
    target_options,
)
from pipeline.commands.output import end_superseded, print_promotion, promote_and_print

_ONLY_WITH_CANARY = (*EXPERIMENT_OPTIONS, "experience", "every_s", "detach")


@click.command()
@click.argument("version", type=click.IntRange(1))
@target_options("Production", "Staging", "Archived")
@name_option
@click.option("--episodes", type=click.IntRange(2), default=100, show_default=True, help="Episodes that both play.")
@seed_option
@click.option(
    "--threshold",
    type=OptionalFloat(),
    default="auto",
    show_default=True,
    help="Mean return to reach; auto is the target of its training, else the environment's reward threshold.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.02,
    show_default=True,
    help="Fraction of the champion's mean return that may be lost.",
)
@click.option("--force", is_flag=True, help="Promote in spite of objections, which are recorded.")
@ope_options
@click.option(
    "--canary",
    is_flag=True,
    help="After the gate, let VERSION act in a share of the live episodes, whose returns decide. All options below, up "
    "to --detach, need it; they are those of `experiment start`.",
)
@click.option("--experience", metavar="URI", help="Directory or S3 prefix that the servers record to, for --canary.")
@experiment_options
@every_option
@detach_option
@signing_key_option
@registry_option
@one_line_errors
@bounded_requests
def promote(
    version: int,
    stage: str,
    alias: str | None,
    name: str,
    signing_key: str | None,
    ope: str | None,
    ope_demand: str,
    ope_unreported: str | None,
    every_s: float,
    experience: str | None,
    *,
    canary: bool,
    detach: bool,
    **options: Any,
) -> None:
    """Assign VERSION to a stage or an alias if it passes the gate. The version that it replaces in a stage is archived.

    For Production and aliases, VERSION plays the same seeded episodes as the champion. It must reach the threshold, and
    the lower 95% bound of the mean difference of returns must not be below minus the tolerance. With --ope, recorded
    episodes may object as well.

    With --canary, it is assigned only after an experiment with live episodes has shown that it is not worse.
    """
    from pipeline.registry.gate import Gate
    from pipeline.registry.target import Target

    _check_dependent_options(click.get_current_context(), ope, canary=canary)
    target, signer = Target.of(name, stage, alias), signer_of(signing_key)
    canary_options = {each: options.pop(each) for each in EXPERIMENT_OPTIONS}
    gate = Gate(**options, second=second_gate(ope, ope_demand, ope_unreported))
    if canary:
        if experience is None or not target.holds_one_version:
            raise click.UsageError("--canary needs --experience, and a stage or an alias that servers follow.")
        settings = start_options(experience, **canary_options)
        promote_with_canary(target, version, gate, settings, signer, None if detach else every_s)
    else:
        promote_and_print(target, version, gate, signer)


def _check_dependent_options(context: click.Context, ope: str | None, *, canary: bool) -> None:
    """Reject options that would have no effect: a promotion at once is not what `--share 0.1` asks for.

    Raises:
        UsageError: An option of experiments is given without --canary, or one of OPE_OPTIONS without --ope.
    """
    options = given(context, context.params)
    ineffective = {} if canary else {name: "--canary" for name in _ONLY_WITH_CANARY if name in options}
    if ope is None:
        ineffective |= {name: "--ope" for name in OPE_OPTIONS if name in options}
    for option in context.command.params:
        if option.name in ineffective:
            raise click.UsageError(f"{option.opts[0]} has no effect without {ineffective[option.name]}: add that.")


@click.command()
@click.argument("version", type=click.IntRange(1))
@name_option
@click.option(
    "--signing-key", metavar="FILE", required=True, help="PEM file of an ed25519 private key, which signs the version."
)
@click.option(
    "--trusted-key",
    metavar="FILE",
    multiple=True,
    help="File of public keys: records of the gate that they signed are signed again. Can be repeated.",
)
@one_line_errors
@bounded_requests
def sign(version: int, name: str, signing_key: str, trusted_key: tuple[str, ...]) -> None:
    """Sign VERSION, with the digests of its files that the registry has now."""
    from pipeline.registry.signing import Signer, sign_version

    signer = Signer.read(signing_key)
    again = sign_version(name, version, signer, trusted_key)
    click.echo(f"Version {version} of '{name}' is signed with the key {signer.key_id}.")
    if again:
        click.echo(f"Records of the gate that were signed again: {again}")


@click.command()
@target_options("Production", "Staging")
@name_option
@registry_option
@one_line_errors
@bounded_requests
def rollback(stage: str, alias: str | None, name: str) -> None:
    """Assign the previous version to a stage or an alias again; each further rollback goes back one more."""
    from pipeline.registry.promotion import rollback
    from pipeline.registry.target import Target
    from serving.registry.tracking import check_registry

    check_registry()
    target = Target.of(name, stage, alias)
    end_superseded(target)
    print_promotion(rollback(target))
    end_superseded(target)


@click.command()
@target_options("Production", "Staging")
@name_option
@registry_option
@one_line_errors
@bounded_requests
def history(stage: str, alias: str | None, name: str) -> None:
    """List the changes of a stage or an alias: when, by whom and why."""
    from pipeline.registry.promotion import timeline
    from pipeline.registry.target import Target
    from pipeline.tables import timeline_table

    timeline_table(timeline(Target.of(name, stage, alias)))


@click.command()
@name_option
@registry_option
@one_line_errors
@bounded_requests
def versions(name: str) -> None:
    """List the versions of a registered model."""
    from pipeline.registry.promotion import versions
    from pipeline.tables import versions_table

    versions_table(versions(name))
