"""Turns the batches of a request into the payload of a DECISIONS record."""

import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import redacted
from serving.experience.episodes import NO_EPISODE, NO_STEP, Episodes, Origin
from serving.experience.journal.records import (
    ARM_FLAGS,
    DIGEST_BYTES,
    DIGESTS,
    EXPLORED,
    OMITTED,
    SEEDED,
    TensorSpec,
    VersionSpec,
    decisions_payload,
)
from serving.experience.options import Observations
from serving.policy.policy import Policy
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, NOISE, OBSERVATIONS, Batch, Rows, Tensors
from serving.registry.model_version import ModelVersion

FORM_FLAGS = {"full": 0, "digest": DIGESTS, "none": OMITTED}
"""The flag of a record by how its observations are recorded."""


def version_spec(policy: Policy, version: ModelVersion) -> VersionSpec:
    """Return the tensors that a decision of a version records. It runs the policy once, to learn their dtypes."""
    example = {name: each for name, each in policy.interface.example(1).items() if name != NOISE}
    actions = [leaf.tensor(ACTION) for leaf in leaves(policy.action_space)]
    outputs = policy.run(example, actions)
    return VersionSpec(
        version.name,
        version.version,
        version.run_id,
        dict(version.digests),
        redacted(version.registry),
        *(
            tuple(TensorSpec(name, each.dtype.str, each.shape[1:]) for name, each in side.items())
            for side in (example, outputs)
        ),
    )


def encode(
    version: VersionSpec,
    origin: Origin,
    observations: Batch,
    actions: Batch,
    form: Observations,
    rows: Sequence[int] | None = None,
) -> bytes:
    """Return the payload of a record with the decisions of one request.

    Args:
        version: the version that computed the actions.
        origin: where the observations come from.
        observations: what the policy received.
        actions: what it returned.
        form: how observations are recorded.
        rows: the rows to record; None for all.
    """
    episodes = origin.episodes or _no_episodes(len(observations))
    inputs = observations.tensors if isinstance(observations, Rows) else {OBSERVATIONS: observations}
    outputs = actions.tensors if isinstance(actions, Rows) else {ACTION: actions}
    flags, seed = FORM_FLAGS[form], 0
    row_seeds: Sequence[int] = ()
    if origin.seeds is not None:
        flags |= EXPLORED if origin.seeds.seed is None else EXPLORED | SEEDED
        seed, row_seeds = origin.seeds.seed or 0, origin.seeds.rows
    if origin.arm is not None:
        flags |= ARM_FLAGS[origin.arm.name]
    if rows is not None:
        episodes, row_seeds = _picked(episodes, rows), [row_seeds[row] for row in rows] if row_seeds else ()
        inputs, outputs = ({name: each[list(rows)] for name, each in side.items()} for side in (inputs, outputs))
    parts = _input_parts(version, inputs, form)
    parts.extend(outputs[spec.name].tobytes() for spec in version.outputs)
    return decisions_payload(
        version, origin.protocol, time.time_ns(), episodes, parts, flags=flags, seed=seed, row_seeds=row_seeds
    )


def _no_episodes(batch: int) -> Episodes:
    return Episodes([NO_EPISODE] * batch, [NO_STEP] * batch)


def _picked(episodes: Episodes, rows: Sequence[int]) -> Episodes:
    rewards = episodes.rewards and [episodes.rewards[row] for row in rows]
    return Episodes([episodes.ids[row] for row in rows], [episodes.steps[row] for row in rows], rewards)


def _input_parts(version: VersionSpec, inputs: Tensors, form: Observations) -> list[bytes]:
    if form == "none":
        return []
    tensors = (inputs[spec.name] for spec in version.inputs)
    if form == "full":
        return [tensor.tobytes() for tensor in tensors]
    return [b"".join(map(_digest, tensor)) for tensor in tensors]


def _digest(row: NDArray[Any]) -> bytes:
    """Return the hash of one observation's bytes, little-endian in C order."""
    return blake2b(np.ascontiguousarray(row).tobytes(), digest_size=DIGEST_BYTES).digest()
