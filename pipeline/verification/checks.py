"""What a policy was asked, and what came of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One way of asking, and what came of it.

    Attributes:
        name: How the policy was asked.
        asked: How many observations, or samples.
        failure: What differs; None if nothing does.
    """

    name: str
    asked: int
    failure: str | None
