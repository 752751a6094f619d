"""Turns the runs into a table and a picture."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.training.zoo import ENV_IDS, Zoo

Run = dict[str, Any]
"""One measurement: `kind`, `env_id`, `peer`, `seed`, and what was measured."""

PEERS = ("ours", "stable-baselines3")
YARDSTICK, WHOLE = "yardstick", "whole process"
TARGETS = {YARDSTICK: 0.7, WHOLE: 0.9}

_LABELS = {"ours": "this project", "stable-baselines3": "stable-baselines3, the zoo's settings"}
_COLORS = {"ours": "tab:blue", "stable-baselines3": "tab:orange"}
_COLUMNS = ["environment", "figure", *(f"{peer}, per seed" for peer in ("this project", PEERS[1])), "ratio of medians"]

#: Columns of a curve.
_SECONDS, _ENV_STEPS, _RETURN = range(3)


class Value(NamedTuple):
    """A figure of one run.

    Attributes:
        reached: The figure; infinite if the run ended before.
        ended: What it was when the run ended.
    """

    reached: float
    ended: float


def tables(runs: Sequence[Run]) -> str:
    """Return the results as two Markdown tables: the figures that have a target, and what explains them."""
    rows, details = [[*_COLUMNS, "target"]], [_COLUMNS]
    for env_id in ENV_IDS:
        if measured := _of(runs, YARDSTICK, env_id):
            zoo, target = Zoo.of(env_id), f"at most {TARGETS[YARDSTICK]}"
            to_return = _cells(measured, partial(_reached, zoo.published, _SECONDS))
            rows.append([env_id, f"seconds to {zoo.published:g}", *to_return, target])
            details += [[env_id, *cells] for cells in _details(zoo, measured)]
    if measured := _of(runs, WHOLE, "CartPole-v1"):
        name, target = "CartPole-v1, whole process", f"at most {TARGETS[WHOLE]}"
        rows.append([name, "seconds", *_cells(measured, partial(_plain, "whole_s")), target])
        until_first_step = _cells(measured, partial(_plain, "first_step_s"))
        details.append([name, "seconds until the first environment step", *until_first_step])
        details.append([name, "lowest of the 100 final returns", *_cells(measured, partial(_plain, "final_minimum"))])
    return f"{_markdown(rows)}\n{_markdown(details)}"


def _details(zoo: Zoo, runs: Sequence[Run]) -> Iterator[list[str]]:
    yield ["environment steps to it", *_cells(runs, partial(_reached, zoo.published, _ENV_STEPS))]
    if zoo.within_error < zoo.published:
        cells = _cells(runs, partial(_reached, zoo.within_error, _SECONDS))
        yield [f"seconds to {zoo.within_error:.4g}, one standard error less", *cells]
    yield ["environment steps per second", *_cells(runs, partial(_plain, "steps_per_second"))]


def _of(runs: Sequence[Run], kind: str, env_id: str) -> list[Run]:
    """Return the runs of a kind and an environment by seed, without seeds that only one contender has run."""
    chosen = sorted((run for run in runs if (run["kind"], run["env_id"]) == (kind, env_id)), key=_seed)
    pairs = (list(pair) for _, pair in groupby(chosen, key=_seed))
    return [run for pair in pairs if len(pair) == len(PEERS) for run in pair]


def _seed(run: Run) -> int:
    seed: int = run["seed"]
    return seed


def _reached(mean_return: float, column: int, run: Run) -> Value:
    """Return the seconds or environment steps after which an evaluation had a mean return."""
    reached = (point[column] for point in run["curve"] if point[_RETURN] >= mean_return)
    return Value(next(reached, math.inf), run["curve"][-1][column])


def _plain(name: str, run: Run) -> Value:
    return Value(run[name], run[name])


def _cells(runs: Sequence[Run], figure: Callable[[Run], Value]) -> list[str]:
    """Return the figures of both contenders, and the ratio of their medians."""
    ours, theirs = ([figure(run) for run in runs if run["peer"] == peer] for peer in PEERS)
    return [*(", ".join(_number(value.reached) for value in values) for values in (ours, theirs)), ratio(ours, theirs)]


def ratio(ours: Sequence[Value], theirs: Sequence[Value]) -> str:
    """Return the ratio of two medians.

    If that of stable-baselines3 is infinite, the ratio has an upper bound, which counts its runs as if they had reached
    the figure when they ended.
    """
    our_median, their_median = (statistics.median(value.reached for value in values) for values in (ours, theirs))
    if math.isinf(our_median):
        return "neither reached it" if math.isinf(their_median) else "not reached"
    if math.isinf(their_median):
        return f"below {our_median / statistics.median(min(value) for value in theirs):.2f}"
    return f"{our_median / their_median:.2f}"


def _number(value: float) -> str:
    """Return a number with thousands separated, and a decimal if it is below 100."""
    if math.isinf(value):
        return "never"
    return f"{value:,.1f}".removesuffix(".0") if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]]) + "\n"


def picture(runs: Sequence[Run]) -> Figure:
    """Return a picture with a panel for each environment: returns over seconds of training."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for axes, env_id in zip(figure.subplots(2, 3).flat, ENV_IDS, strict=True):
        for peer in PEERS:
            curves = [run["curve"] for run in _of(runs, YARDSTICK, env_id) if run["peer"] == peer]
            if curves:
                _draw(axes, curves, _LABELS[peer], _COLORS[peer])
        axes.axhline(Zoo.of(env_id).published, color="black", linestyle="--", linewidth=1, label="the zoo's return")
        axes.set_title(env_id, fontsize=11)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    figure.supxlabel("seconds of sampling and learning", fontsize=11)
    figure.supylabel("mean return of 100 evaluation episodes", fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=11, frameon=False)
    return figure


def _draw(axes: Axes, curves: Sequence[Sequence[Sequence[float]]], label: str, color: str) -> None:
    """Draw the median and the range of the seeds; a seed that ended early keeps its last return."""
    seconds = np.linspace(0, max(curve[-1][0] for curve in curves), 400)
    returns = [np.interp(seconds, *np.array([(at, mean) for at, _, mean in curve]).T) for curve in curves]
    axes.plot(seconds, np.median(returns, axis=0), color=color, label=label)
    axes.fill_between(seconds, np.min(returns, axis=0), np.max(returns, axis=0), color=color, alpha=0.2, linewidth=0)
