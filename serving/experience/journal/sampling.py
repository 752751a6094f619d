"""Decides which episodes are recorded. Every replica decides alike, without knowing of the others."""

import random
from dataclasses import dataclass

from serving.experience.episodes import NO_EPISODE, Origin


@dataclass(frozen=True)
class Sample:
    """Chooses a share of episodes by their hash, and the same share of the observations without an episode."""

    share: float = 1.0

    def includes(self, episode: bytes) -> bool:
        """Return whether an episode is recorded."""
        if self.share >= 1:
            return True
        if episode == NO_EPISODE:
            return random.random() < self.share  # noqa: S311 - not for cryptography
        return int.from_bytes(episode[:8], "little") / 2**64 < self.share

    def rows(self, origin: Origin, batch: int) -> list[int] | None:
        """Return the rows of a request that are recorded; None for all of them."""
        if self.share >= 1:
            return None
        ids = origin.episodes.ids if origin.episodes else [NO_EPISODE] * batch
        chosen = [row for row, episode in enumerate(ids) if self.includes(episode)]
        # Noise of one seed belongs to a place in the batch, so the batch stays whole.
        is_whole = len(chosen) == batch or (chosen and origin.seeds is not None and origin.seeds.seed is not None)
        return None if is_whole else chosen
