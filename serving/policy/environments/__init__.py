"""Makes the environments that policies are trained in, holds them to Gymnasium's contract, and draws them."""

from serving.policy.environments.factory import (
    LEGACY_PREFIX,
    MAX_EPISODE_STEPS,
    StepLimit,
    cut_notice,
    draw,
    for_gymnasium,
    import_object,
    make,
    time_limit,
    was_cut,
)
from serving.policy.environments.float_observations import FloatObservations
from serving.policy.environments.modules import is_allowed, modules_of

__all__ = [
    "LEGACY_PREFIX",
    "MAX_EPISODE_STEPS",
    "FloatObservations",
    "StepLimit",
    "cut_notice",
    "draw",
    "for_gymnasium",
    "import_object",
    "is_allowed",
    "make",
    "modules_of",
    "time_limit",
    "was_cut",
]
