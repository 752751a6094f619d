"""What a client has learned of its server: which of the newer parts of the protocol it lacks."""

import time
from collections.abc import Mapping
from http import HTTPStatus

from serving.client.errors import RequestRefused

EPISODE_KEYS, FEEDBACK = "episode keys", "feedback"

_REFUSALS: Mapping[str, tuple[int, str]] = {
    EPISODE_KEYS: (HTTPStatus.UNPROCESSABLE_ENTITY, "key_unknown"),
    FEEDBACK: (HTTPStatus.NOT_FOUND, "path_unknown"),
}
"""The status and the code by which a server refuses a feature that it lacks."""

LACKED_FOR_S = 60.0
"""How long a client goes without a feature that the server lacks, before it tries it again."""


class Features:
    """Remembers which features the server lacks, so that not every request is refused first.

    A server of an earlier release knows no episodes, and one that records no experience takes no feedback.
    """

    def __init__(self) -> None:
        self._lacks_until = dict.fromkeys(_REFUSALS, 0.0)

    def has(self, feature: str) -> bool:
        """Return whether the server has a feature, as far as is known."""
        return time.monotonic() >= self._lacks_until[feature]

    def note_refusal(self, feature: str, error: RequestRefused) -> None:
        """Remember that the server lacks a feature, if the error says so. Otherwise it is raised."""
        if (error.status, error.code) != _REFUSALS[feature]:
            raise error
        self._lacks_until[feature] = time.monotonic() + LACKED_FOR_S
