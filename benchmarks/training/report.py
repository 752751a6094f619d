"""Turns the runs into a table and a picture."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.training.zoo import ENV_IDS, Zoo

Run = dict[str, Any]
"""One measurement: `kind`, `env_id`, `peer`, `seed`, and what was measured."""

PEERS = ("ours", "stable-baselines3")
YARDSTICK, WHOLE = "yardstick", "whole process"
TARGETS = {YARDSTICK: 0.7, WHOLE: 0.9}

_CONTENDERS = ("this project, per seed", "stable-baselines3, per seed")
_OF_WHOLE_PROCESS = {
    "seconds until the first environment step": "first_step_s",
    "lowest of the 100 final returns": "final_minimum",
}
_LABELS = {"ours": "this project", "stable-baselines3": "stable-baselines3, the zoo's settings"}
_COLORS = {"ours": "tab:blue", "stable-baselines3": "tab:orange"}


def tables(runs: Sequence[Run]) -> str:
    """Return the results as two Markdown tables: the figures with targets, and what explains them."""
    rows = [["figure", *_CONTENDERS, "ratio of medians", "target"]]
    details = [["environment", "figure", *_CONTENDERS, "ratio of medians"]]
    for env_id in ENV_IDS:
        if measured := _of(runs, YARDSTICK, env_id):
            figure = f"{env_id}, seconds to a return of {Zoo.of(env_id).published:g}"
            rows.append([figure, *_compared(measured, "reached_s", "seconds"), f"at most {TARGETS[YARDSTICK]}"])
            details += _details(env_id, measured)
    if whole := _of(runs, WHOLE, "CartPole-v1"):
        figure = "CartPole-v1, seconds of the whole process"
        rows.append([figure, *_compared(whole, "whole_s", "whole_s"), f"at most {TARGETS[WHOLE]}"])
        for figure, key in _OF_WHOLE_PROCESS.items():
            details.append(["CartPole-v1, whole process", figure, *_compared(whole, key, key)])
    return f"{_markdown(rows)}\n{_markdown(details)}"


def _details(env_id: str, runs: Sequence[Run]) -> list[list[str]]:
    within = f"seconds to {Zoo.of(env_id).within_error:.4g}, one standard error less"
    return [
        [env_id, within, *_compared(runs, "within_error_s", "seconds")],
        [env_id, "environment steps to the return", *_compared(runs, "reached_steps", "env_steps")],
        [env_id, "environment steps per second", *_compared(runs, "steps_per_second", "steps_per_second")],
    ]


def _of(runs: Sequence[Run], kind: str, env_id: str) -> list[Run]:
    """Return the runs of a kind and an environment in which both contenders ran, in the order of their seeds."""
    chosen = sorted(
        (run for run in runs if (run["kind"], run["env_id"]) == (kind, env_id)), key=lambda run: run["seed"]
    )
    return chosen if {run["peer"] for run in chosen} == set(PEERS) else []


def _compared(runs: Sequence[Run], key: str, limit: str) -> list[str]:
    """Return the figures of both contenders and the ratio of their medians.

    A run without the figure counts as infinite. Where that makes the median of stable-baselines3 infinite, the ratio
    has an upper bound: that to the figure `limit`, what its runs took until they ended.
    """
    values = [[run[key] for run in runs if run["peer"] == peer] for peer in PEERS]
    limits = [run[key] if run[key] is not None else run[limit] for run in runs if run["peer"] == PEERS[1]]
    return [*map(_row, values), ratio(*map(median, values), statistics.median(limits))]


def median(values: Sequence[float | None]) -> float:
    """Return the median, with infinity for a run that missed the target."""
    return statistics.median(float("inf") if value is None else value for value in values)


def ratio(ours: float, theirs: float, theirs_at_least: float) -> str:
    """Return the ratio of two medians, of which either may be infinite."""
    if np.isinf(ours):
        return "neither reached it" if np.isinf(theirs) else "not reached"
    return f"below {ours / theirs_at_least:.2f}" if np.isinf(theirs) else f"{ours / theirs:.2f}"


def _row(values: Sequence[float | None]) -> str:
    return ", ".join("never" if value is None else _number(value) for value in values)


def _number(value: float) -> str:
    """Return a number with thousands separated, and a decimal if it is below 100."""
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
    figure.supylabel("mean return of 100 deterministic episodes", fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=11, frameon=False)
    return figure


def _draw(axes: Axes, curves: Sequence[Sequence[Sequence[float]]], label: str, color: str) -> None:
    """Draw the median and the range of the seeds; a seed that ended early keeps its last return."""
    seconds = np.linspace(0, max(curve[-1][0] for curve in curves), 400)
    returns = [np.interp(seconds, *np.array([(at, mean) for at, _, mean in curve]).T) for curve in curves]
    axes.plot(seconds, np.median(returns, axis=0), color=color, label=label)
    axes.fill_between(seconds, np.min(returns, axis=0), np.max(returns, axis=0), color=color, alpha=0.2, linewidth=0)
