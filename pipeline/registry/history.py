"""What stood in a stage or alias, when, by whom and why: tags of the registered model, where the MLflow UI shows them.

A tag `history.stage.Production.2026-11-22T20:31:43.104729Z` holds one event as JSON.
"""

import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import mlflow

from pipeline.registry.target import STAGES, Slot

#: Reasons that the code looks for; a promotion's own is the gate's figures.
BY_HAND = "by hand"
ROLLBACK = "rollback"

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Event:
    """A change of what stands in a slot.

    Attributes:
        at: When, in UTC and ISO 8601; for a change by hand, when a command first saw it.
        version: What stands there since; None if it was emptied.
        by: The user; `unknown` for a change by hand.
        kind: `promotion`, `forced`, `rollback` or `by hand`.
        why: In words: the gate's figures, or what the change undid.
    """

    at: str
    version: int | None
    by: str
    kind: str
    why: str


def record(slot: Slot, version: int | None, kind: str, why: str, by: str | None = None) -> Event:
    """Append an event to the history of a slot."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    event = Event(at, version, by or _user(), kind, why)
    fields = {key: value for key, value in asdict(event).items() if key != "at"}
    mlflow.MlflowClient().set_registered_model_tag(slot.model, f"{_prefix(slot)}{at}", json.dumps(fields))
    return event


def events(slot: Slot) -> list[Event]:
    """The history of a slot, the oldest first, a change by hand that nobody recorded yet included (and recorded)."""
    tags = mlflow.MlflowClient().get_registered_model(slot.model).tags
    prefix = _prefix(slot)
    found = [Event(key.removeprefix(prefix), **json.loads(tags[key])) for key in sorted(tags) if key.startswith(prefix)]
    occupant = slot.occupant()
    if occupant != (found[-1].version if found else None):
        found.append(record(slot, occupant, BY_HAND, "seen by a command; made in the MLflow UI or API", by=UNKNOWN))
    return found


def slots(model: str) -> list[Slot]:
    """The stages that can be served, and every alias the model has."""
    aliases = mlflow.MlflowClient().get_registered_model(model).aliases
    return [*(Slot(model, stage) for stage in STAGES), *(Slot(model, alias, is_alias=True) for alias in aliases)]


def previous(history: Sequence[Event], existing: Sequence[int]) -> int | None:
    """The version that a rollback puts back: the one before the last change that no rollback has undone yet.

    A change by hand counts as any other. A version that was deleted since, or that is the present one, is passed over.

    Args:
        history: Of one slot, the oldest event first.
        existing: The versions that the registry still has.
    """
    stood: list[int | None] = []
    for event in history:
        if event.kind == ROLLBACK and event.version in stood:
            # What was rolled back is forgotten, so that the next rollback goes one further.
            del stood[_last_index(stood, event.version) + 1 :]
        else:
            stood.append(event.version)
    present = stood.pop() if stood else None
    return next((version for version in reversed(stood) if version in existing and version != present), None)


def _last_index(stood: Sequence[int | None], version: int | None) -> int:
    return len(stood) - 1 - list(reversed(stood)).index(version)


def _prefix(slot: Slot) -> str:
    return f"history.{'alias' if slot.is_alias else 'stage'}.{slot.name}."


def _user() -> str:
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
