"""What a fault did to the answers, and the table of them all."""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from tests.faults.load import OBSERVATIONS, Record

#: An answer that takes longer is counted as slow.
SLOW_S = 0.5


@dataclass
class Row:
    """One fault's row."""

    fault: str
    answers: int
    failed: int
    wrong: int
    slow: int
    p99_ms: float
    longest_ms: float
    notes: list[str] = field(default_factory=list)


def read(file: Path) -> list[Record]:
    lines = file.read_text().splitlines()
    return sorted((Record(*json.loads(line)) for line in lines), key=lambda record: record.began)


def wrong(records: Iterable[Record], bundles: dict[int, Bundle]) -> list[Record]:
    """The answers that the policy of the version that they name does not give."""
    known = [record for record in records if record.observation < len(OBSERVATIONS)]  # others are looked at apart
    answers = [record for record in known if record.version is not None]
    expected = {
        version: Policy.load(bundles[version]).act(OBSERVATIONS)
        for version in {record.version for record in answers}
        if version is not None
    }
    return [record for record in answers if expected[record.version or 0][record.observation] != record.action]


def p99(records: Iterable[Record], keep: Callable[[Record], bool] = lambda _: True) -> float:
    """The 99th percentile of the latencies, in seconds."""
    latencies = [record.took for record in records if keep(record)]
    return float(np.percentile(latencies, 99)) if latencies else float("nan")


def row(fault: str, records: list[Record], bundles: dict[int, Bundle], *notes: str) -> Row:
    return Row(
        fault,
        len(records),
        sum(record.error is not None for record in records),
        len(wrong(records, bundles)),
        sum(record.took > SLOW_S for record in records),
        round(1000 * p99(records), 1),
        round(1000 * max(record.took for record in records), 1),
        list(notes),
    )


def gap_s(records: list[Record]) -> float:
    """The longest time in which nobody was answered."""
    ends = sorted(record.ended for record in records if record.error is None)
    return max((later - earlier for earlier, later in itertools.pairwise(ends)), default=float("nan"))


def write(rows: list[Row], directory: Path) -> str:
    """Write the table as JSON and Markdown, beside the rows of earlier runs that are not in it; return the latter."""
    directory.mkdir(exist_ok=True)
    new = {each.fault for each in rows}
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads((directory / "faults.json").read_text())
        rows = [Row(**each) for each in earlier if each["fault"] not in new] + rows
    (directory / "faults.json").write_text(json.dumps([asdict(each) for each in rows], indent=1))
    lines = [
        "| fault | answers | failed | wrong | slow | p99 | longest | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {each.fault} | {each.answers:,} | {each.failed} | {each.wrong} | {each.slow} | {each.p99_ms:.0f} ms | "
            f"{each.longest_ms:.0f} ms | {'; '.join(each.notes)} |"
            for each in rows
        ),
    ]
    table = "\n".join(lines)
    (directory / "faults.md").write_text(table + "\n")
    return table
