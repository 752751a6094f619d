"""Prints the answer of the command `ope`."""

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.ope.judgement import Value
    from pipeline.ope.report import Evaluated

_COLORS = {"better": "green", "worse": "red", "cannot tell": "yellow"}


def print_evaluated(evaluated: "Evaluated", run_id: str) -> None:
    """Print the episodes, the estimates, the difference, and the answer."""
    from pipeline.ope.report import comparison

    logs, judgement, target = evaluated.logs, evaluated.judgement, evaluated.target
    sampled = int(logs.explored.sum())
    versions = ", ".join(map(str, sorted(set(logs.versions.tolist()))))
    click.echo(
        f"{logs.episodes:,} episodes with {logs.steps:,} steps of version {versions}, {sampled:,} of them with sampled "
        "actions."
    )
    for phrase in evaluated.left_out.phrases:
        click.echo(f"Left out: {phrase}.")
    table = Table("value of", "estimator", "estimate", "+-", box=None, header_style="bold", pad_edge=False)
    baseline = judgement.baseline
    table.add_row("what was recorded", "mean return", f"{baseline.value:.4g}", f"{baseline.standard_error:.2g}")
    _add_rows(table, f"version {target.version}", judgement.value)
    if evaluated.against is not None and judgement.against is not None:
        _add_rows(table, f"version {evaluated.against.version}", judgement.against)
    Console().print(table)
    if judgement.lower is not None and judgement.upper is not None:
        click.echo(
            f"Version {target.version} minus {comparison(evaluated)}: {judgement.lower:+.4g} to {judgement.upper:+.4g}"
        )
    click.echo(
        f"The episodes count like {judgement.value.effective:,.0f} of version {target.version}; "
        f"{judgement.value.unsupported:.1%} of its steps are without support."
    )
    answer = f"Is it better than {comparison(evaluated)}? {judgement.answer.capitalize()}"
    reasons = f": {'; '.join(judgement.reasons)}." if judgement.reasons else "."
    click.secho(answer + reasons, fg=_COLORS[judgement.answer])
    click.echo(f"Recorded in run {run_id} and on the version.")


def _add_rows(table: Table, who: str, value: "Value") -> None:
    if value.doubly_robust is not None and value.per_decision is not None:
        for name, each in (("doubly robust", value.doubly_robust), ("per decision", value.per_decision)):
            table.add_row(who, name, f"{each.value:.4g}", f"{each.standard_error:.2g}")
            who = ""
    table.add_row(who, "fitted Q", f"{value.fitted_q.mean():.4g}", f"{value.fitted_q.std(ddof=1):.2g}")
