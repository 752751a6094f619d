"""Bundles that earlier releases wrote are served as before: each is in `golden/`, by the format of its policy.json.

They were written by the code of their time and are never written again. Within format 1, the first release wrote no
noise and no state, the second no `max_episode_steps`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.policy.bundle import FORMAT, KNOWN_FORMATS, Bundle, parse_policy_file
from serving.policy.environments import MAX_EPISODE_STEPS
from serving.policy.errors import BundleInvalid, FormatUnknown
from serving.policy.policy import Policy
from tests.serving.policies import CARTPOLE_BUNDLE

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())

LOGITS = {
    "format-1-greedy": [-0.23717281, -0.10402793],
    "format-1-noise-and-state": [-0.42021653, 0.31024700],
    "format-1-episode-limit": [-0.23717281, -0.10402793],
}
"""What each policy computed when it was written, for the observation 0.1, 0.2, 0.3, 0.4."""


def of_format(found: Any) -> bytes:
    return json.dumps({**json.loads(CARTPOLE_BUNDLE.policy), "format": found}).encode()


@pytest.mark.parametrize("directory", GOLDEN, ids=lambda directory: directory.name)
def test_a_bundle_of_an_earlier_release_acts_as_it_did(directory: Path) -> None:
    policy = Policy.load(Bundle.read(directory))
    tensors = policy.interface.example(1)
    tensors["observations"] = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    outputs = policy.run(tensors, ("action", "action_dist_inputs"))
    logits = outputs["action_dist_inputs"][0]
    assert logits == pytest.approx(LOGITS[directory.name], abs=1e-6)
    assert outputs["action"].tolist() == [logits.argmax()]


def test_there_is_a_bundle_of_each_known_format() -> None:
    described = [parse_policy_file((directory / "policy.json").read_bytes()) for directory in GOLDEN]
    assert {each["format"] for each in described} == set(KNOWN_FORMATS)
    assert max(KNOWN_FORMATS) == FORMAT


def test_what_an_earlier_release_left_out_has_its_default() -> None:
    policies = {directory.name: Policy.load(Bundle.read(directory)) for directory in GOLDEN}
    first, second = policies["format-1-greedy"], policies["format-1-noise-and-state"]
    assert (first.interface.noise, first.interface.state_shapes) == (None, {})
    assert first.environment.wrappers == ()
    assert second.environment.wrappers == ("gymnasium.wrappers:ClipReward",)
    assert second.environment.max_episode_steps == MAX_EPISODE_STEPS


def test_a_later_format_is_refused_by_name_before_anything_else_is_read() -> None:
    later = max(KNOWN_FORMATS) + 1
    for policy in (of_format(later), json.dumps({"format": later, "spaces": {}}).encode()):
        with pytest.raises(FormatUnknown) as caught:
            Policy.load(Bundle(CARTPOLE_BUNDLE.graph, policy))
        assert str(caught.value) == "policy.json is of format 2; this server knows 1: upgrade it first"


@pytest.mark.parametrize("found", [0, -1, 1.0, True, "1", None, [1]])
def test_a_format_that_no_release_writes_is_invalid(found: Any) -> None:
    with pytest.raises(BundleInvalid, match=r"its format is .*, expected an integer from 1 on"):
        Policy.load(Bundle(CARTPOLE_BUNDLE.graph, of_format(found)))
