"""The options of an experiment, which `experiment start` and `promote --canary` share."""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.experiment.live.start import StartOptions

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_LIMITS = 2


class Margin(click.ParamType["Margin"]):
    """A loss of return: a number, or a percentage of the champion's mean return."""

    name = "number|percentage"

    def __init__(self, number: float = 0.0, *, is_relative: bool = False) -> None:
        self.number = number
        self.is_relative = is_relative

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Margin":
        """Convert the text of an option."""
        if isinstance(value, Margin):
            return value
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f"{text!r} is neither a number of at least 0 nor a percentage, such as 2%.", param, ctx)
        return Margin(number / 100 if text.endswith("%") else number, is_relative=text.endswith("%"))

    def of(self, mean: float) -> float:
        """Return the margin in units of the return."""
        return self.number * abs(mean) if self.is_relative else self.number


class Duration(click.ParamType["float"]):
    """A time in seconds, or with a unit: 90s, 30m, 12h, 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the text of an option to seconds."""
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            self.fail(
                f"{value!r} is no time, expected seconds, or a number with s, m, h or d, such as 12h.", param, ctx
            )
        return float(found[1]) * _UNITS[found[2] or "s"]


class Numbers(click.ParamType["tuple[float, ...]"]):
    """Numbers with commas between them; `length` of them if it is given."""

    def __init__(self, name: str, length: int | None = None) -> None:
        self.name = name
        self._length = length

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Convert the text of an option."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(each) for each in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or self._length not in {None, len(numbers)} or not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not of the form {self.name}, with numbers.", param, ctx)
        return numbers


margin_option = click.option(
    "--margin",
    type=Margin(),
    default="2%",
    show_default=True,
    help="Loss of mean return that is acceptable: a number, or a percentage of the champion's mean.",
)

alpha_option = click.option(
    "--alpha",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability of a false promotion, and that of a false rollback.",
)

every_option = click.option(
    "--every",
    "every_s",
    type=Duration(),
    default="10s",
    show_default=True,
    help="Time between two looks at what was recorded.",
)

detach_option = click.option(
    "--detach", is_flag=True, help="Only start the experiment; `experiment run` watches it and decides."
)

_OPTIONS = (
    click.option(
        "--share",
        "shares",
        type=Numbers("SHARE,SHARE,..."),
        default="0.01,0.1,0.5",
        show_default=True,
        help="Shares of the episodes that the challenger gets, one after the other.",
    ),
    margin_option,
    alpha_option,
    click.option(
        "--budget",
        type=click.IntRange(1),
        help="Settled episodes of both arms after which it ends without a decision.  [default: those of the plan]",
    ),
    click.option(
        "--expires",
        "expires_s",
        type=Duration(),
        default="7d",
        show_default=True,
        help="Time after which it ends without a decision.",
    ),
    click.option(
        "--reward-wait",
        "reward_wait_s",
        type=Duration(),
        default="10m",
        show_default=True,
        help="Time after its first decision in which an episode must report its return; longer than an episode takes.",
    ),
    click.option(
        "--record-wait",
        "record_wait_s",
        type=Duration(),
        default="60s",
        show_default=True,
        help="Time until what a server has recorded is at the experience URI.",
    ),
    click.option(
        "--decide",
        type=click.Choice(["auto", "report"]),
        default="auto",
        show_default=True,
        help="Whether a decision is carried out, or only reported.",
    ),
    click.option(
        "--return-bounds",
        type=Numbers("LOW,HIGH", _LIMITS),
        help="Smallest and largest possible return: a decision then assumes nothing else, but needs more episodes.",
    ),
    click.option(
        "--default-return",
        type=float,
        help="What an episode that is not reported in time counts as.  [default: a catastrophic return]",
    ),
    click.option("--return-mean", type=float, help="The champion's mean return.  [default: as recorded]"),
    click.option(
        "--return-std", type=click.FloatRange(0), help="The standard deviation of its returns; needs --return-mean."
    ),
    click.option(
        "--minimum-episodes",
        type=click.IntRange(2),
        default=50,
        show_default=True,
        help="Settled episodes that each arm needs before a decision.",
    ),
    click.option(
        "--step-episodes",
        type=click.IntRange(1),
        default=50,
        show_default=True,
        help="The challenger's settled episodes at a share before the next share.",
    ),
)


def experiment_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `start_options` takes, apart from `--experience`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


EXPERIMENT_OPTIONS = (
    "shares",
    "margin",
    "alpha",
    "budget",
    "expires_s",
    "reward_wait_s",
    "record_wait_s",
    "decide",
    "return_bounds",
    "default_return",
    "return_mean",
    "return_std",
    "minimum_episodes",
    "step_episodes",
)
"""The parameters of `experiment_options`."""


def start_options(experience: str, margin: Margin, **options: Any) -> "StartOptions":
    """Return the options of an experiment. Raises ReturnsUnclear."""
    from pipeline.experiment.errors import ReturnsUnclear
    from pipeline.experiment.live.start import StartOptions

    if (options["return_mean"] is None) != (options["return_std"] is None):
        raise ReturnsUnclear
    of_mean = margin.number if margin.is_relative else None
    return StartOptions(experience, margin=margin.number, margin_of_mean=of_mean, **options)
