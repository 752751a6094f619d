"""Tests whether samples of the policy's action and samples that RLlib draws have the same distribution."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from pipeline.environments.nested_spaces import Batch
from pipeline.export.action_heads import is_choice
from pipeline.verification.checks import Check
from pipeline.verification.subject import Query, Subject
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION

#: Samples per observation.
SAMPLES = 500

_SAMPLED_OBSERVATIONS = 5

#: The probability that any of the tests of one check rejects equal distributions.
_FALSE_ALARM = 1e-3

#: Values that occur less often in both samples together are merged: the chi-squared test needs 5 in each sample.
_RARE = 10


def sampled_queries(subject: Subject) -> list[Query]:
    """Return the queries that are sampled from, spread evenly over all."""
    step = max(1, len(subject.queries) // _SAMPLED_OBSERVATIONS)
    return subject.queries[::step][:_SAMPLED_OBSERVATIONS]


def check_samples(name: str, subject: Subject, samples: Sequence[Batch]) -> Check:
    """Test each component of each action for RLlib's distribution.

    Choices are tested by the chi-squared test, continuous components by the two-sample Kolmogorov-Smirnov test.

    Args:
        name: The name of the check.
        subject: The policy.
        samples: `SAMPLES` actions for each of `sampled_queries`.
    """
    queries = sampled_queries(subject)
    p_values: list[float] = []
    for query, found in zip(queries, samples, strict=True):
        expected = subject.reference.sample(query.observation, query.state, SAMPLES)
        p_values += _p_values(subject.action_space, expected, found)
    count = len(queries) * SAMPLES
    if min(p_values) < _FALSE_ALARM / len(p_values):
        return Check(name, count, f"samples are not from RLlib's distribution (p = {min(p_values):.1g})")
    return Check(name, count, None)


def _p_values(space: Space[Any], expected: Batch, found: Batch) -> Iterator[float]:
    from scipy import stats

    for leaf in leaves(space):
        components = (each[leaf.tensor(ACTION)].reshape(SAMPLES, -1).T for each in (found, expected))
        for found_values, expected_values in zip(*components, strict=True):
            if not is_choice(leaf.space):
                yield float(stats.ks_2samp(found_values, expected_values).pvalue)
                continue
            values, indices = np.unique(np.concatenate([found_values, expected_values]), return_inverse=True)
            if len(values) > 1:
                counts = [np.bincount(part, minlength=len(values)) for part in np.split(indices, 2)]
                yield float(stats.chi2_contingency(_without_rare(np.array(counts))).pvalue)
            else:
                yield 1.0


def _without_rare(counts: NDArray[Any]) -> NDArray[Any]:
    """Merge the columns of rare values into one."""
    rare = counts.sum(axis=0) < _RARE
    if not rare.any() or rare.all():
        return counts
    return np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
