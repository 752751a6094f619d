"""One poll an application: on a cluster of several nodes, one process polls the registry and the nodes ask it.

    200 nodes -> Resolver.next -> at most one poll an interval

Where there is no resolver, or it does not answer, a node asks the registry itself. Through the resolver, the nodes also
learn of each other which versions failed in service.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from serving.registry.errors import VersionMissing
from serving.registry.model_version import ModelVersion
from serving.registry.node.wanted import Outcome
from serving.rollout.refusals import MAX_KEPT, Refusal, Refusals
from serving.rollout.sharing.polls import Poll

logger = logging.getLogger(__name__)

MISSED = 3
"""After that many failed polls of the resolver in sequence, a node asks the registry too."""
AWAY_S = 30.0
"""A node asks the registry itself for that long after the resolver did not answer."""

Answer = tuple[int, Outcome]
"""The number of a poll, from 1 on, and its outcome."""


Ask = Callable[[int], Answer | None]
"""Returns what `Resolver.next` returns, None if there is no resolver. Raises any exception if it does not answer."""


class Share(Protocol):
    """Tells the resolver the refusals of a node, and returns those of all nodes; none if there is no resolver.

    Raises any exception if it does not answer.
    """

    def __call__(self, refusals: list[Refusal]) -> list[Refusal]:
        """Return the refusals of all nodes."""


class Resolver:
    """Polls the registry once an interval at most, and only while somebody asks."""

    def __init__(self, poll: Callable[[], ModelVersion], interval_s: float) -> None:
        self._poll, self._interval_s = poll, interval_s
        self._answer: Answer | None = None
        self._ended = -math.inf
        """When the last poll did, by `monotonic`."""
        self._polling = asyncio.Lock()
        self._refusals: dict[str, Refusal] = {}

    async def share(self, refusals: list[Refusal]) -> list[Refusal]:
        """Add the refusals of a node, and return those of all nodes."""
        self._refusals |= {each.key: each for each in refusals if each.key not in self._refusals}
        for key in list(self._refusals)[:-MAX_KEPT]:
            del self._refusals[key]
        return list(self._refusals.values())

    async def next(self, seen: int) -> Answer:
        """Return the outcome of the last poll, or of the next one if the caller knows the last or it is old.

        Args:
            seen: the number of the last poll that the caller knows; 0 for none.
        """
        if (answer := self._unseen(seen)) is None:
            async with self._polling:
                answer = self._unseen(seen) or await self._poll_in_time()
        return answer

    def _unseen(self, seen: int) -> Answer | None:
        is_recent = monotonic() - self._ended < self._interval_s
        return self._answer if self._answer and self._answer[0] != seen and is_recent else None

    async def _poll_in_time(self) -> Answer:
        await asyncio.sleep(max(0.0, self._ended + self._interval_s - monotonic()))
        outcome = await asyncio.to_thread(Outcome.of, self._poll)
        self._ended = monotonic()
        self._answer = (self._answer[0] + 1 if self._answer else 1), outcome
        return self._answer


class ApplicationPolls:
    """Polls through the application's resolver, or else the registry.

    Args:
        poll: Polls the registry.
        ask: Asks the resolver.
        share: Shares refusals through the resolver.
        refusals: Those of this node.
    """

    def __init__(
        self, poll: Poll, ask: Ask, share: Share = lambda refusals: refusals, refusals: Refusals | None = None
    ) -> None:
        self._poll, self._ask, self._share, self._refusals = poll, ask, share, refusals
        self._seen = self._failed = 0
        self._away_until = -math.inf

    def __call__(self, model_uri: str) -> ModelVersion:
        """Return the version that the URI refers to. Raises what a poll raised, here or in the resolver."""
        answer = self._answer()
        if answer is None:
            return self._poll(model_uri)
        self._seen, outcome = answer
        has_failed = outcome.version is None and not isinstance(outcome.error, VersionMissing)
        self._failed = self._failed + 1 if has_failed else 0
        # The registry may be down, or only the resolver's node may not reach it.
        return self._poll(model_uri) if self._failed > MISSED else outcome.result()

    def _answer(self) -> Answer | None:
        if monotonic() < self._away_until:
            return None
        try:
            if (answer := self._ask(self._seen)) is not None and self._refusals is not None:
                self._refusals.merge(self._share(self._refusals.all()))
        except Exception as error:  # noqa: BLE001 - Ray may raise any
            logger.warning(
                "the resolver of the application does not answer (%s), so this node asks the registry for %g s",
                type(error).__name__,
                AWAY_S,
            )
            self._away_until = monotonic() + AWAY_S
            return None
        return answer
