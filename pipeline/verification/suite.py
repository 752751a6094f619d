"""Runs the conformance suite on a registered version: in this process, and over HTTP if a server is given."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.bundle import checkpoint_files
from pipeline.environments import make as environments
from pipeline.environments.nested_spaces import Batch
from pipeline.verification.checks import Check
from pipeline.verification.over_http import VerifiedServer, check_over_http
from pipeline.verification.sampling_tests import SAMPLES, check_samples, sampled_queries
from pipeline.verification.subject import Subject
from serving.policy.policy import Policy
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server

#: Batch sizes that the graph is queried with; None is all at once.
_BATCH_SIZES = (1, 7, None)


def verify(
    model_uri: str,
    count: int,
    seed: int,
    url: str | None = None,
    token: str | None = None,
    *,
    trust_checkpoint: bool = False,
) -> list[Check]:
    """Run the conformance suite on a registered version.

    Args:
        model_uri: `models:/NAME/VERSION`, or a stage, an alias or `latest` instead of the number.
        count: The number of observations.
        seed: The seed of the observations.
        url: The URL of a server of this version, which is verified too.
        token: The bearer token, if the server requires one.
        trust_checkpoint: Whether to read the checkpoint of a version without a digest of it.

    Raises:
        CheckpointDigestMissing, CheckpointChanged: If the checkpoint may not be the registered one.
        ServingError: If the version cannot be resolved, fetched, verified or loaded.
        EnvironmentNotFound, NoSuchObject: If its environment is not installed.
        ServerAnswered, ServesAnother: If the server responds with an error, or serves another version.
    """
    check_tracking_server()
    version = resolve(model_uri)
    policy = Policy.load(fetch(version))
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = checkpoint_files.download(version, Path(directory), trusted=trust_checkpoint)
        subject = Subject(policy, checkpoint, environments.of_policy(policy), count, seed)
    checks = list(check_in_process(subject))
    if url is not None:
        checks.extend(check_over_http(subject, VerifiedServer(url, version.name, version.version, token)))
    return checks


def check_in_process(subject: Subject) -> Iterator[Check]:
    """Query the graph in this process: greedy in batches of several sizes, and sampled."""
    for batch_size in _BATCH_SIZES:
        size = batch_size or len(subject.queries)
        yield subject.check_greedy(f"greedy, batches of {size}", _in_batches(subject, size))
    noise = subject.policy.interface.noise
    if noise is not None:
        queries = sampled_queries(subject)
        samples = [subject.outputs([query] * SAMPLES, noise.draw(SAMPLES, seed)) for seed, query in enumerate(queries)]
        yield check_samples("sampled", subject, samples)


def _in_batches(subject: Subject, size: int) -> Batch:
    queries = subject.queries
    parts = [subject.outputs(queries[start : start + size]) for start in range(0, len(queries), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
