"""The command `ope`, and the options of `promote` that use it."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.commands.experience import store_errors
from pipeline.commands.options import bounded_requests, registry_option

if TYPE_CHECKING:
    from pipeline.registry.gate import SecondGate

Command = TypeVar("Command", bound=Callable[..., Any])

STATUSES = {"better": 0, "worse": 3, "cannot tell": 4}
"""The exit status for each answer."""

OPE_OPTIONS = ("ope_demand", "ope_unreported")
"""The parameters of `promote` that mean nothing without `--ope`."""


@click.command()
@click.argument("model_uri")
@click.option(
    "--experience", "uri", metavar="URI", required=True, help="Directory or S3 prefix that the servers record to."
)
@click.option("--against", metavar="MODEL_URI", help="Version to compare with.  [default: what was recorded]")
@click.option(
    "--target",
    type=click.Choice(["greedy", "sampled"]),
    default="greedy",
    show_default=True,
    help="How the versions would act: as a server answers by default, or with sampled actions.",
)
@click.option(
    "--gamma",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Discount factor. 1 compares mean returns.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability of a false 'better', and that of a false 'worse'.",
)
@click.option(
    "--unreported",
    type=click.Choice(["keep", "drop"]),
    help="What becomes of episodes with unreported rewards.  [default: an error]",
)
@click.option(
    "--episodes",
    "most",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Episodes to use, at most; of more, a random sample.",
)
@registry_option
@bounded_requests
@store_errors
def ope(uri: str, model_uri: str, against: str | None, target: str, gamma: float, alpha: float, **reading: Any) -> None:
    """Estimate from recorded episodes of other versions whether MODEL_URI, such as models:/cartpole-ppo/4, is better.

    The answer is 'better' (exit status 0), 'worse' (3) or 'cannot tell' (4). It is recorded in an MLflow run and on the
    version. Episodes are as of the last compaction.
    """
    from pipeline.commands.ope.output import print_evaluated
    from pipeline.experience.progress import StageProgress
    from pipeline.ope.evaluate import Request, evaluate
    from pipeline.ope.judgement import Settings

    request = Request(uri, Settings(gamma, alpha), sampled=target == "sampled", **reading)
    with StageProgress() as progress:
        evaluated, run_id = evaluate(model_uri, against, request, progress)
    print_evaluated(evaluated, run_id)
    sys.exit(STATUSES[evaluated.judgement.answer])


def ope_options(command: Command) -> Command:
    """Add `--ope`, and OPE_OPTIONS, which refine it."""
    uri = click.option("--ope", metavar="URI", help="Recorded experience that must not show that VERSION is worse.")
    demand = click.option(
        "--ope-demand",
        type=click.Choice(["not-worse", "better"]),
        default="not-worse",
        show_default=True,
        help="What --ope demands: 'not-worse' lets 'cannot tell' pass.",
    )
    unreported = click.option(
        "--ope-unreported",
        type=click.Choice(["keep", "drop"]),
        help="What becomes of episodes with unreported rewards.  [default: an objection]",
    )
    return uri(demand(unreported(command)))


def second_gate(uri: str | None, demand: str, unreported: str | None) -> "SecondGate | None":
    """Return the gate that asks the recorded episodes at a URI; None without one."""
    if uri is None:
        return None
    from pipeline.experience.progress import StageProgress
    from pipeline.ope.evaluate import Request, objections
    from serving.registry.model_version import ModelVersion

    request = Request(uri, unreported=unreported)

    def second(version: ModelVersion, champion: int | None) -> tuple[list[str], str]:
        with StageProgress() as progress:
            found, summary = objections(version, champion, request, demand, progress)
        click.echo(summary[0].upper() + summary[1:] + ".")
        return found, summary

    return second
