"""Tables for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.promotion import VersionRow

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def versions_table(rows: Sequence[VersionRow]) -> None:
    """Print the versions of a model, a line each."""
    table = Table("version", "stage", "aliases", "return", "age", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(
            str(row.version),
            "-" if row.stage == "None" else row.stage,
            ", ".join(row.aliases) or "-",
            "-" if row.return_mean is None else f"{row.return_mean:.1f}",
            age(row.age_s),
        )
    Console().print(table)


def age(seconds: float) -> str:
    """A duration in its largest unit, as `3 hours`."""
    length, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    count = int(seconds // length)
    return f"{count} {unit}" + ("" if count == 1 else "s")
