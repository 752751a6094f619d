"""The sample-ratio test: whether the arms have the shares of the reported episodes that they were assigned.

A challenger that crashes its clients, or whose episodes never end, reports fewer of them, and those that it does report
are the good ones. The returns of the rest are then those of the default, so their difference cannot be trusted.

The test is the sequential one of Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022,
arXiv 2011.03567), for two arms. While the share is p, the challenger's part of the reported episodes has a Beta prior
with the mean p and the weight of CONCENTRATION episodes, and the e-value is the Bayes factor against p:

    e_n = product over the reported episodes of q(A) / p(A),    q(1) = (CONCENTRATION p + k) / (CONCENTRATION + n),

with k of n earlier reported episodes in the challenger's arm. If the arms report alike, the mean of e_n is 1, and the
probability that it ever reaches 1 / alpha is at most alpha (Ville's inequality). Each time the share changes, the
counts begin anew and the e-values are multiplied, which keeps both properties.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.experiment.statistics.episodes import Episodes

CONCENTRATION = 100.0


def log_e_values(episodes: Episodes) -> NDArray[np.float64]:
    """Return the logarithm of the e-value after each episode, of shape (n,)."""
    factors = np.zeros(len(episodes))
    share, arm = episodes.share[episodes.reported], episodes.challenger[episodes.reported]
    first = _stage_starts(share)
    seen = np.arange(len(share)) - first
    earlier = np.concatenate(([0.0], np.cumsum(arm)))
    factors[episodes.reported] = log_factor(arm, share, earlier[:-1] - earlier[first], seen)
    return np.cumsum(factors)


def log_factor(
    challenger: "bool | NDArray[np.bool_]",
    share: "float | NDArray[np.float64]",
    challengers: "float | NDArray[np.float64]",
    seen: "int | NDArray[np.int64]",
) -> NDArray[np.float64]:
    """Return the logarithm of what a reported episode multiplies the e-value by.

    Args:
        challenger: Whether the episode is in the challenger's arm.
        share: The challenger's share.
        challengers: The reported episodes in the challenger's arm since the share changed.
        seen: The reported episodes since the share changed.
    """
    predicted = (CONCENTRATION * share + challengers) / (CONCENTRATION + seen)
    factor: NDArray[np.float64] = np.log(np.where(challenger, predicted / share, (1 - predicted) / (1 - share)))
    return factor


def _stage_starts(share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each episode the index of the first one with its share, without a change of the share between them."""
    index = np.arange(len(share))
    changed = np.concatenate(([True], share[1:] != share[:-1]))[: len(share)]
    return np.maximum.accumulate(np.where(changed, index, 0))
