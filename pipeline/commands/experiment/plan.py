"""The command `experiment plan`."""

from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.experiment.options import Margin, alpha_option, margin_option
from pipeline.commands.options import InOrder, one_line_errors

if TYPE_CHECKING:
    from pipeline.experiment.plan import Baseline


@click.group(cls=InOrder)
def experiment() -> None:
    """Let live traffic judge a version: it acts in a share of the episodes, and their returns decide."""


@experiment.command()
@click.argument("version", type=click.IntRange(1))
@click.option(
    "--model", "--name", "model", metavar="NAME", help="Registered model.  [default: the only one that is recorded]"
)
@click.option("--experience", metavar="URI", help="Directory or S3 prefix that the servers record to.")
@click.option("--return-mean", type=float, help="The champion's mean return, instead of --experience.")
@click.option(
    "--return-std", type=click.FloatRange(0), help="The standard deviation of its returns; needs --return-mean."
)
@margin_option
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of the episodes that the challenger gets.",
)
@alpha_option
@one_line_errors
def plan(version: int, margin: Margin, share: float, alpha: float, **source: Any) -> None:
    """Show how many episodes an experiment with VERSION needs, before anything runs.

    It is promoted if its mean return is not lower than the champion's by more than the margin, and rolled back if it is
    lower. The numbers follow from the mean and the standard deviation of the champion's returns.
    """
    from pipeline.commands.experiment.output import print_plan
    from pipeline.experiment.plan import plan

    baseline = _baseline(version, **source)
    print_plan(version, source["model"], baseline, plan(baseline, margin.of(baseline.mean), share, alpha))


def _baseline(
    version: int, model: str | None, experience: str | None, return_mean: float | None, return_std: float | None
) -> "Baseline":
    """Return the champion's returns from the options that describe them. Raises ReturnsUnclear."""
    from pipeline.experiment.errors import ReturnsUnclear
    from pipeline.experiment.plan import Baseline

    if experience is None and return_mean is not None and return_std is not None:
        return Baseline(return_mean, return_std)
    if experience is None or return_mean is not None or return_std is not None:
        raise ReturnsUnclear
    from pipeline.commands.experiment.output import print_recorded
    from pipeline.experiment.recorded import recorded_champion

    recorded = recorded_champion(experience, model, version)
    print_recorded(recorded)
    return recorded.baseline
