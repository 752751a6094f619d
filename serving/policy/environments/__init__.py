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

__all__ = [
    "LEGACY_PREFIX",
    "MAX_EPISODE_STEPS",
    "StepLimit",
    "cut_notice",
    "draw",
    "for_gymnasium",
    "import_object",
    "make",
    "time_limit",
    "was_cut",
]
