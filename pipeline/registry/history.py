"""The history of a stage or alias: which version it referred to, since when, by whom and why.

Each event is a tag of the registered model, which the MLflow UI shows. The tag
`history.stage.Production.2026-11-22T20:31:43.104729Z` holds the event of that time as JSON.
"""

import contextlib
import getpass
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.registry.target import Target
from serving.registry.mlflow_api import account

BY_HAND = "by hand"
ROLLBACK = "rollback"
EXPERIMENT = "experiment"

_CONFIRMED = "confirmed"

#: MLflow stores at most 5,000 characters in a tag.
_MAX_WHY = 2000


@dataclass(frozen=True)
class Event:
    """A change of the version that a target refers to.

    Attributes:
        at: The time in UTC, ISO 8601. For a change by hand, it is when a command first noticed it.
        version: The version from then on; None if there was none.
        by: The user; `unknown` for a change by hand.
        kind: `promotion`, `forced`, `rollback`, `experiment` or `by hand`. An experiment that rolls its challenger back
            has an event, too, with the version that stays.
        why: The reason in words: the figures of the gate or the experiment, or which version a rollback replaced.
    """

    at: str
    version: int | None
    by: str
    kind: str
    why: str


@dataclass(frozen=True)
class Change:
    """A change of the version that a target refers to, which is about to be made."""

    target: Target
    version: int | None
    kind: str
    why: str


@contextlib.contextmanager
def recorded(*changes: Change, at: str | None = None) -> Iterator[None]:
    """Record changes that the block makes, so that there is no change without its event and no event without a change.

    The events are written before the block, as unconfirmed ones, and confirmed after it. However the block or this
    process ends, an unconfirmed event counts if its target has its version, and is otherwise ignored. Changes by hand
    that came before are recorded first.

    Args:
        changes: The changes.
        at: The time of the events, by default now. Events of the same target and time replace each other, so that a
            change which is made again, after a kill or by two processes at once, has one event.

    Raises:
        Exception: If the events cannot be written; the block has not run. Or what the block raises.
    """
    for target in dict.fromkeys(change.target for change in changes):
        settle(target)
    client = mlflow.MlflowClient()
    at = at or now()
    for change in changes:
        _write(change.target, Event(at, change.version, user(), change.kind, change.why), confirmed=False)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):  # the original error matters more, and the event is ignored anyway
            for change in changes:
                if change.target.current_version() != change.version:
                    client.delete_registered_model_tag(change.target.model, f"{_prefix(change.target)}{at}")
        raise
    with contextlib.suppress(MlflowException):  # the change is made, and the next one confirms the event
        for change in changes:
            _write(change.target, Event(at, change.version, user(), change.kind, change.why))


def record(
    target: Target, version: int | None, kind: str, why: str, by: str | None = None, at: str | None = None
) -> Event:
    """Append an event to the history of a target. `by` defaults to the current user, `at` to now."""
    event = Event(at or now(), version, by or user(), kind, why)
    _write(target, event)
    return event


def has_event(target: Target, at: str) -> bool:
    """Return whether the history of a target has a confirmed event of a time."""
    tag = mlflow.MlflowClient().get_registered_model(target.model).tags.get(f"{_prefix(target)}{at}")
    try:
        return tag is not None and json.loads(tag).get(_CONFIRMED, True) is True
    except (ValueError, AttributeError):
        return False  # somebody has edited the tag


def events(target: Target) -> list[Event]:
    """Return the history of a target, the oldest event first. Nothing is written: an account may only read.

    If the target's version differs from that of the last event, someone changed it in the MLflow UI or API. That change
    is the last event then, with the time of this call; the next command that changes the target records it.
    """
    return _read(target)[0]


def _read(target: Target) -> tuple[list[Event], dict[str, Event], Event | None]:
    """Return all events, the unconfirmed ones by tag, and the change by hand that is not recorded."""
    tags = mlflow.MlflowClient().get_registered_model(target.model).tags
    version = target.current_version()
    found: list[Event] = []
    unconfirmed = {}
    prefix = _prefix(target)
    for key in sorted(key for key in tags if key.startswith(prefix)):
        try:
            fields = json.loads(tags[key])
            is_confirmed = fields.pop(_CONFIRMED, True)
            event = Event(key.removeprefix(prefix), **fields)
        except (ValueError, TypeError, AttributeError):
            continue  # somebody has edited the tag
        if not is_confirmed:
            unconfirmed[key] = event
        if (is_confirmed or event.version == version) and not (found and _repeats(event, found[-1])):
            found.append(event)
    if version == (found[-1].version if found else None):
        return found, unconfirmed, None
    by_hand = Event(now(), version, "unknown", BY_HAND, "changed in the MLflow UI or API")
    return [*found, by_hand], unconfirmed, by_hand


def _repeats(event: Event, last: Event) -> bool:
    """Return whether two processes recorded the same: a change by hand that both noticed, or an experiment's end."""
    is_experiment = event.kind == last.kind == EXPERIMENT and _id(event) == _id(last)
    return event.version == last.version and (event.kind == BY_HAND or is_experiment)


def _id(event: Event) -> str:
    """Return the id of an experiment, with which the reason begins."""
    return event.why.partition(":")[0]


def settle(target: Target) -> None:
    """Confirm or delete the unconfirmed events of a target, and record a change by hand."""
    found, unconfirmed, by_hand = _read(target)
    for key, event in unconfirmed.items():
        if event in found:
            _write(target, event)
        else:
            with contextlib.suppress(MlflowException):  # a gateway may refuse to delete; the event is ignored anyway
                mlflow.MlflowClient().delete_registered_model_tag(target.model, key)
    if by_hand is not None:
        _write(target, by_hand)


def _write(target: Target, event: Event, *, confirmed: bool = True) -> None:
    fields = {key: value for key, value in asdict(event).items() if key != "at"} | {"why": event.why[:_MAX_WHY]}
    if not confirmed:
        fields[_CONFIRMED] = False
    mlflow.MlflowClient().set_registered_model_tag(target.model, f"{_prefix(target)}{event.at}", json.dumps(fields))


def now() -> str:
    """Return the time in UTC, as events have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def user() -> str:
    """Return the account in MLflow, or the user of this process; a container's user may have no name."""
    if name := account():
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


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
