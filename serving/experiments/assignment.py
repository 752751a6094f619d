"""Assigns episodes to the arms of an experiment: a pure function, on which all replicas and commands agree."""

import mmh3

CHAMPION, CHALLENGER = "champion", "challenger"
"""The arms, as they are recorded."""

EXPLORE_SALT = "explore_share"
"""The salt of the choice of the episodes that explore, which is therefore independent of all experiments."""

_HASHES = 2**64


def arm_of(salt: str, episode: bytes | str, share: float) -> str | None:
    """Return the arm of an episode: CHALLENGER for a share of the episodes, CHAMPION for the others.

    The arm follows from the first 64 bits of MurmurHash3 (x64, 128 bits) of the salt and the episode, so it needs no
    state. For one salt, an episode in the challenger's arm stays there when the share rises. MurmurHash3 has no secret:
    whoever knows the salt can find names for either arm.

    Args:
        salt: Another one for each experiment, so that its assignment does not depend on those of earlier experiments.
        episode: The hash of the episode, which is stored, or its name. Replicas and commands must use the same one.
        share: The challenger's share of the episodes, from 0 to 1.

    Returns:
        The arm; None for NO_EPISODE and the empty name, which are not part of an experiment: the champion answers.
    """
    key = episode.encode() if isinstance(episode, str) else episode
    if not any(key):  # NO_EPISODE consists of zeros
        return None
    hashed, _ = mmh3.hash64(salt.encode() + key, signed=False)
    # An integer comparison: as a float, the largest hashes round to 2**64, which is not below a share of 1.
    return CHALLENGER if hashed < int(share * _HASHES) else CHAMPION


def explores(episode: bytes, share: float) -> bool:
    """Return whether an episode is among the share whose actions are sampled. All replicas agree."""
    return arm_of(EXPLORE_SALT, episode, share) == CHALLENGER
