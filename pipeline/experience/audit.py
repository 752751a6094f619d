"""Reports the audit of decisions: whether the bundle of their version computes the actions that were served."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.experience.raw import Manifest, in_order, read_raw
from serving.experience.store import Store
from serving.experience.tables import DIFFERS, OK, OUTPUT, UNCHECKED

OUTCOMES = (OK, DIFFERS, UNCHECKED)


@dataclass(frozen=True)
class Differing:
    """A decision whose served action is not the one that its bundle computes."""

    file: str
    replica: str
    segment: int
    offset: int
    """The position of its record in the segment; (replica, segment, offset, row) identify a decision."""
    row: int
    episode: str | None
    step: int | None
    version: int
    explored: bool
    served: dict[str, Any]
    """The served action by the name of its tensor."""
    distribution: list[float] | None
    """The inputs of the action's distribution as the bundle computes them again; None if it has none."""


@dataclass(frozen=True)
class AuditReport:
    """The outcomes of the audit of all recorded decisions of a model."""

    model: str
    versions: dict[int, dict[str, int]]
    """How many decisions have each of OUTCOMES, by version."""
    differing: list[Differing]
    """The first ones, in the order of the files."""

    def count(self, outcome: str) -> int:
        """Return how many decisions have an outcome."""
        return sum(counts[outcome] for counts in self.versions.values())


def audit(store: Store, model: str, limit: int) -> AuditReport:
    """Read the counts of the manifests, and at most `limit` decisions that differ.

    Raises ExperienceDamaged, StoreUnavailable.
    """
    raw = read_raw(store, model)
    totals: dict[int, Counter[str]] = {}
    for manifest in raw.manifests:
        for number, counts in manifest.versions.items():
            totals.setdefault(number, Counter()).update(counts.get("audit", {}))
    versions = {number: {outcome: totals[number][outcome] for outcome in OUTCOMES} for number in sorted(totals)}
    return AuditReport(model, versions, _first(store, raw.manifests, limit))


def _first(store: Store, manifests: Any, limit: int) -> list[Differing]:
    differing: list[Differing] = []
    affected = [each for each in manifests if any(counts["audit"].get(DIFFERS) for counts in each.versions.values())]
    for found in in_order(lambda each: list(_differing(store, each)), affected):
        differing += found[: limit - len(differing)]
        if len(differing) >= limit:
            break
    return differing


def _differing(store: Store, manifest: Manifest) -> Iterator[Differing]:
    for file in sorted(manifest.files, key=lambda each: each.path):
        table = file.read(store) if file.is_decisions else None
        if table is not None:
            yield from _rows(file.path, table.filter(pc.equal(table["audit"], DIFFERS)))


def _rows(path: str, table: pa.Table) -> Iterator[Differing]:
    for row in table.to_pylist():
        yield Differing(
            file=path,
            episode=row["episode"] and row["episode"].hex(),
            served={name.removeprefix(OUTPUT): value for name, value in row.items() if name.startswith(OUTPUT)},
            distribution=row["action_dist_inputs"],
            **{name: row[name] for name in ("replica", "segment", "offset", "row", "step", "version", "explored")},
        )
