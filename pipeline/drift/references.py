"""Fetches the reference of a registered version, or plays one for a version that has none."""

import hashlib
import tempfile
from pathlib import Path

import mlflow

from pipeline.drift.errors import ReferenceChanged, ReferenceMissing, ReferenceUnavailable
from pipeline.environments import make as environments
from pipeline.evaluation import evaluation
from pipeline.evaluation.player import Player
from pipeline.reference.reference import REFERENCE_FILE, Reference, ReferenceRecorder
from serving.errors import redacted
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.registry.model_version import ModelVersion
from serving.registry.registry import files_uri


def fetch_reference(version: ModelVersion) -> Reference:
    """Download the reference of a version, and verify it against the digest in the registry.

    Raises:
        ReferenceMissing: An earlier release registered the version, without one.
        ReferenceUnavailable: The artifact store does not have the file, or does not answer.
        ReferenceChanged: It is not the file that was registered.
        ReferenceUnreadable: It is of a format of another release.
    """
    expected = version.digests.get(REFERENCE_FILE)
    if expected is None:
        raise ReferenceMissing(version.name, version.version)
    with tempfile.TemporaryDirectory() as directory:
        try:
            file = mlflow.artifacts.download_artifacts(f"{files_uri(version)}/{REFERENCE_FILE}", dst_path=directory)
            content = Path(file).read_bytes()
        except Exception as error:  # each artifact store raises exceptions of its own
            reason = redacted(str(error)).strip().splitlines()
            raise ReferenceUnavailable(
                version.name, version.version, reason[-1] if reason else type(error).__name__
            ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ReferenceChanged(version.name, version.version)
    return Reference.from_bytes(content)


def play_reference(bundle: Bundle, episodes: int) -> Reference:
    """Return the observations of greedy episodes in the version's environment, episode i with the seed i.

    Raises:
        EnvironmentNotFound: The environment that the version was trained in is not installed.
        EnvironmentMisbehaved: The environment raises an exception or breaks its contract.
    """
    policy = Policy.load(bundle)
    recorder = ReferenceRecorder(policy.observation_space)
    evaluation.play(Player.served(policy), environments.of_policy(policy), episodes, 0, recorder)
    return recorder.reference()
