"""Warns of what the arguments of the application cannot do with a version, before it is served."""

import logging

from serving.protocols.native.observation_size import ObservationSize
from serving.registry.model_version import warn_once
from serving.replica.served_policy import ServedPolicy

logger = logging.getLogger(__name__)


def warn_of(served: ServedPolicy, max_body_bytes: int, explore_share: float) -> None:
    """Log a warning for each argument that the version's spaces or its graph contradict."""
    size = ObservationSize.of(served.policy.observation_space)
    if size.lists > max_body_bytes:
        remedy = size.remedy(max_body_bytes)
        logger.warning("requests larger than max_body_bytes=%s are rejected: %s", max_body_bytes, remedy)
    if explore_share and served.policy.interface.noise is None:
        name = f"version {served.version.version} of '{served.version.name}'"
        warn_once(f"{name} cannot sample actions, so explore_share has no effect: its graph has no noise")
