"""What the last look at the registry found, for `/model`, `/health`, `serving status` and metrics."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from serving.errors import ServingError
from serving.policy.spaces import Json
from serving.registry.registry import ModelVersion


def now() -> str:
    """Return the time as the API writes it."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Refusal:
    """A version that the registry names and this replica does not serve."""

    version: int
    code: str
    """The kind of reason, as a metric names it: the error's name, such as `digest_mismatch`."""
    reason: str
    at: str = field(default_factory=now)

    @classmethod
    def of(cls, version: ModelVersion, error: ServingError) -> "Refusal":
        """Describe why `version` is not served."""
        code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
        return cls(version.version, code, str(error))


@dataclass(frozen=True)
class Refresh:
    """The state of the watch. Immutable: each look at the registry replaces the whole of it."""

    last: str | None = None
    """When the registry last answered; None before it did."""
    error: str | None = None
    """Why the last look failed, or what it found cannot be served; None when all is well."""
    refused: Refusal | None = None
    degraded: bool = False
    """The registry has not confirmed the version since the replica started: it is the last known good one."""
    swaps: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    """How many there were, by code."""

    def describe(self) -> dict[str, Json]:
        """Return the state as `/model` shows it."""
        refused = self.refused and {
            "version": self.refused.version,
            "code": self.refused.code,
            "reason": self.refused.reason,
            "at": self.refused.at,
        }
        return {
            "degraded": self.degraded,
            "last_refresh": self.last,
            "refresh_error": self.error,
            "refused": refused,
            "swaps": self.swaps,
            "refusals": sum(self.refusals.values()),
        }
