"""The state of a replica's poll of the registry, for `/model`, `/health`, `serving status` and metrics."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import monotonic

from serving.errors import ServingError
from serving.policy.errors import BundleError, InferenceTimeout, OutputNotFinite, PolicyFailed, VersionCrashed
from serving.policy.spaces import Json
from serving.registry.errors import RegistryError
from serving.registry.model_version import ModelVersion

UNEXPECTED = "internal_error"
"""The code of a rejection whose reason is no error of this package."""

FAILED_IN_SERVICE = frozenset(fault.code for fault in (InferenceTimeout, OutputNotFinite, PolicyFailed, VersionCrashed))
"""The codes of versions that were taken back. Those of versions that were never served are others."""


def now() -> str:
    """Return the current time in UTC, in ISO 8601 with seconds."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def explain(error: Exception) -> str:
    """Return the message of an error for `/model`; of an unexpected one its type only, as it may hold secrets."""
    unexpected = f"{type(error).__name__}; the replica's log has the details"
    return str(error) if isinstance(error, ServingError) else unexpected


@dataclass(frozen=True)
class RejectedVersion:
    """A version that the registry names and that this replica does not serve."""

    version: int
    code: str
    """The code of the error, such as `digest_mismatch`, or UNEXPECTED."""
    reason: str
    at: str = field(default_factory=now)

    @classmethod
    def of(cls, version: ModelVersion, error: Exception) -> "RejectedVersion":
        """Describe the error for which `version` is not served."""
        code = error.code if isinstance(error, BundleError | RegistryError) else UNEXPECTED
        return cls(version.version, code, explain(error))

    def describe(self) -> str:
        """Return the reason with the number of the version."""
        return f"version {self.version}: {self.reason}"


@dataclass(frozen=True)
class Refresh:
    """The outcome of the polls so far. Immutable: each poll replaces the whole object."""

    last: str | None = None
    """When the registry last answered; None if it never did."""
    error: str | None = None
    """Why the last poll failed, or why the version that it returned cannot be served; None if neither happened."""
    rejected: RejectedVersion | None = None
    degraded: bool = False
    """Whether the registry has confirmed no version since the start, so that the last known good one is served."""
    swaps: int = 0
    """Versions that replaced another."""
    rejections: Mapping[str, int] = field(default_factory=dict)
    """Versions that were rejected, counted by code."""
    stale_at: float = math.inf
    """The `time.monotonic` time from which on the registry has not answered for long. Infinite if nothing polls it."""

    @property
    def stale(self) -> bool:
        """Whether the registry has not answered for long: it is down, or the polls have stopped."""
        return monotonic() >= self.stale_at

    @property
    def status(self) -> str:
        """The status that `/health` shows: "degraded", "refused", "stale" or "ok"."""
        if self.degraded:
            return "degraded"
        if self.has_failed_in_service:
            return "refused"
        return "stale" if self.stale else "ok"

    @property
    def has_failed_in_service(self) -> bool:
        """Whether the version that the registry names was taken back, because it failed in service."""
        return self.rejected is not None and self.rejected.code in FAILED_IN_SERVICE

    def describe(self) -> dict[str, Json]:
        """Return the state as `/model` shows it."""
        return {
            "degraded": self.degraded,
            "stale": self.stale,
            "last_refresh": self.last,
            "refresh_error": self.error,
            "refused": self.rejected and asdict(self.rejected),
            "swaps": self.swaps,
            "refusals": sum(self.rejections.values()),
        }
