"""The value of a metric, which any room can count and the replica exports."""

from collections.abc import Mapping
from typing import NamedTuple


class Number(NamedTuple):
    """The current value of a metric of `serving.replica.metrics.DESCRIPTIONS`."""

    name: str
    value: float
    suffix: str = ""
    labels: Mapping[str, str] = {}
