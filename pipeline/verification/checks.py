"""The result of one check of the conformance suite."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: How the policy was queried.
        count: The number of observations or samples.
        failure: How the policy differs from RLlib; None if it does not.
    """

    name: str
    count: int
    failure: str | None
