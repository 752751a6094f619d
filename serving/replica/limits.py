"""How much one request may ask for, beside the size of its body."""

import re
from dataclasses import dataclass

import numpy as np

from serving.replica.errors import JsonTooDeep, ObservationsTooMany

MAX_OBSERVATIONS = 4096
MAX_JSON_DEPTH = 64

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)

STEPS = np.zeros(256, np.int8)
"""What each byte adds to the depth of JSON."""
STEPS[list(b"[{")] = 1
STEPS[list(b"]}")] = -1


@dataclass(frozen=True)
class Limits:
    """What is refused, each with a code of its own."""

    max_observations: int = MAX_OBSERVATIONS
    max_json_depth: int = MAX_JSON_DEPTH

    def check_observations(self, count: int) -> None:
        """Raise ObservationsTooMany for more than a request may hold."""
        if count > self.max_observations:
            raise ObservationsTooMany(count, self.max_observations)

    def check_depth(self, body: bytes) -> None:
        """Raise JsonTooDeep for lists and objects within each other beyond the limit.

        It is for a body that was refused, whatever the reason: to look at each would take half as long as to read
        it, and what fits the observation space is as deep as that is.
        """
        limit = self.max_json_depth
        if body.count(b"[") + body.count(b"{") > limit and json_depth(body) > limit:
            raise JsonTooDeep(limit)


def json_depth(body: bytes) -> int:
    """Return how deep lists and objects stand in each other, also where the body is no JSON."""
    steps = STEPS[np.frombuffer(STRING.sub(b"", body), np.uint8)]
    return int(steps.cumsum(dtype=np.int64).max(initial=0))
