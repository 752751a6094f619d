"""An experiment for tests: version 3, which pushes to one side, against version 4, which pushes to the other."""

import time
from dataclasses import replace
from typing import Any

from serving.experience.episodes import EpisodeHasher
from serving.experiments.assignment import CHALLENGER, arm_of
from serving.experiments.experiment import Experiment, Step, tag_key
from serving.policy.bundle import Bundle
from serving.registry.model_version import ModelVersion
from serving.replica.arms.arms import Challenge
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import served
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE

SALT, SHARE = "salt", 0.5


def experiment(**changes: Any) -> Experiment:
    now = time.time()
    return replace(Experiment("e1", SALT, 3, 4, (Step(now - 10, SHARE),), now + 1000), **changes)


def tagged(version: ModelVersion, state: Experiment | None) -> ModelVersion:
    """The version with the experiment's tag."""
    key = tag_key(stage="Production")
    assert key is not None
    return replace(version, tags={**version.tags, key: state.to_tag()} if state else dict(version.tags))


def champion(state: Experiment | None = None, bundle: Bundle = CARTPOLE_BUNDLE) -> ServedPolicy:
    plain = served(bundle)
    return ServedPolicy(plain.policy, tagged(plain.version, state), loaded_at=1_700_000_000)


def challenge(state: Experiment, bundle: Bundle = CONTRARY_BUNDLE) -> Challenge:
    return Challenge(state, served(bundle, version=4))


def is_challengers(episode: str, share: float = SHARE) -> bool:
    return arm_of(SALT, EpisodeHasher()(episode), share) == CHALLENGER


NAMES = [f"episode-{number}" for number in range(200)]
CHAMPIONS = [name for name in NAMES if not is_challengers(name)]
CHALLENGERS = [name for name in NAMES if is_challengers(name)]
