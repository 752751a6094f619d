"""The history of a stage or alias: which version it referred to, since when, by whom and why.

Each event is a tag of the registered model, which the MLflow UI shows. The tag
`history.stage.Production.2026-11-22T20:31:43.104729Z` holds the event of that time as JSON.
"""

import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import mlflow

from pipeline.registry.target import STAGES, Target

BY_HAND = "by hand"
ROLLBACK = "rollback"


@dataclass(frozen=True)
class Event:
    """A change of the version that a target refers to.

    Attributes:
        at: The time in UTC, ISO 8601. For a change by hand, it is when a command first noticed it.
        version: The version from then on; None if there was none.
        by: The user; `unknown` for a change by hand.
        kind: `promotion`, `forced`, `rollback` or `by hand`.
        why: The reason in words: the gate's figures, or which version a rollback replaced.
    """

    at: str
    version: int | None
    by: str
    kind: str
    why: str


def record(target: Target, version: int | None, kind: str, why: str, by: str | None = None) -> Event:
    """Append an event to the history of a target. `by` defaults to the current user."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    user = by or os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    event = Event(at, version, user, kind, why)
    fields = {key: value for key, value in asdict(event).items() if key != "at"}
    mlflow.MlflowClient().set_registered_model_tag(target.model, f"{_prefix(target)}{at}", json.dumps(fields))
    return event


def events(target: Target) -> list[Event]:
    """Return the history of a target, the oldest event first.

    If the target's version differs from the last event, someone changed it in the MLflow UI or API. That change is
    recorded first, so that it is part of the history.
    """
    tags = mlflow.MlflowClient().get_registered_model(target.model).tags
    prefix = _prefix(target)
    found = [Event(key.removeprefix(prefix), **json.loads(tags[key])) for key in sorted(tags) if key.startswith(prefix)]
    version = target.current_version()
    if version != (found[-1].version if found else None):
        found.append(record(target, version, BY_HAND, "changed in the MLflow UI or API", by="unknown"))
    return found


def targets(model: str) -> list[Target]:
    """Return the stages that servers use, and all aliases of the model."""
    aliases = mlflow.MlflowClient().get_registered_model(model).aliases
    return [*(Target(model, stage) for stage in STAGES), *(Target(model, alias, is_alias=True) for alias in aliases)]


def previous(history: Sequence[Event], existing: Sequence[int]) -> int | None:
    """Return the version that a rollback restores: the one before the last change that no rollback has undone.

    A change by hand counts as any other. Versions that no longer exist, and the current one, are skipped.

    Args:
        history: The history of one target, the oldest event first.
        existing: The versions that still exist in the registry.
    """
    versions: list[int | None] = []
    for event in history:
        if event.kind == ROLLBACK and event.version in versions:
            # Forget the versions that were rolled back, so that the next rollback goes back further.
            last = len(versions) - 1 - versions[::-1].index(event.version)
            del versions[last + 1 :]
        else:
            versions.append(event.version)
    current = versions.pop() if versions else None
    return next((version for version in reversed(versions) if version in existing and version != current), None)


def _prefix(target: Target) -> str:
    return f"history.{'alias' if target.is_alias else 'stage'}.{target.name}."
