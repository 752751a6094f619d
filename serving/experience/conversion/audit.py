"""Computes decisions again with the bundle that made them, and compares the actions.

The bundle, the recorded observation and state, and the noise, which follows from the recorded seed, determine the
action, its log-probability and the inputs of its distribution. The bundle is the one in the cache of the node, whose
files are verified before they are used.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.experience.conversion.agreement import ActionComparison
from serving.experience.conversion.decisions import NO_NOISE, Chunk
from serving.experience.journal.records import VersionSpec
from serving.experience.tables import DIFFERS, INPUT, OK, OUTPUT, UNCHECKED
from serving.policy.bundle import BUNDLE_FILES, Bundle
from serving.policy.noise import Noise
from serving.policy.policy import Policy
from serving.policy.tensors import ACTION_DIST_INPUTS, ACTION_LOGP, NOISE, STATE_OUT, Tensors
from serving.registry.cache import BundleCache
from serving.registry.errors import DigestMismatch, DigestMissing
from serving.registry.model_version import DIGEST_TAG, ModelVersion

logger = logging.getLogger(__name__)

OUTCOMES = (OK, DIFFERS, UNCHECKED)
"""The outcomes in the order of their numbers in `Audit.outcomes`."""
_OK, _DIFFERS, _UNCHECKED = range(3)

BATCH_ROWS = 4096
BATCH_BYTES = 4 << 20
"""The most observations, and bytes of them, that ONNX Runtime computes at once: an image takes far more memory in the
network than it has bytes."""
MAX_POLICIES = 4
"""The policies that stay loaded. A segment seldom has decisions of more than two versions."""


@dataclass(frozen=True)
class Audit:
    """What the bundle computes for the decisions of a chunk."""

    outcomes: NDArray[np.int8]
    """`[rows]`: the index of each outcome in OUTCOMES."""
    inputs: NDArray[np.float32] | None = None
    """The inputs of the action's distribution, `[rows, n]`; None if they are unknown."""
    logp: NDArray[np.float32] | None = None
    """The log-probability of the served action, `[rows]`, NaN where it is unknown; None if no one is known."""

    @classmethod
    def unchecked(cls, rows: int) -> "Audit":
        """Return the audit of decisions that cannot be computed again."""
        return cls(np.full(rows, _UNCHECKED, np.int8))

    @property
    def counts(self) -> dict[str, int]:
        """The number of decisions by outcome."""
        found = np.bincount(self.outcomes, minlength=len(OUTCOMES)).tolist()
        return dict(zip(OUTCOMES, found, strict=True))


class Auditor:
    """Audits decisions with the bundles in a cache. It keeps the policies of the last versions.

    Args:
        cache: the directory of the node's bundle cache.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = BundleCache(cache)
        self._policies: OrderedDict[Path, _Recomputation] = OrderedDict()
        self._warned: set[tuple[str, int, str]] = set()

    def audit(self, chunk: Chunk) -> Audit:
        """Return the audit of a chunk. Decisions whose bundle is gone or does not run are unchecked."""
        version = chunk.table.version
        if chunk.table.flags:  # the observations were not recorded
            return Audit.unchecked(len(chunk))
        try:
            return self._recomputation(version)(chunk)
        except ServingError as error:
            self._warn_once(version, error)
            return Audit.unchecked(len(chunk))

    def _recomputation(self, version: VersionSpec) -> "_Recomputation":
        for file in BUNDLE_FILES:
            if file not in version.digests:
                raise DigestMissing(file, version.name, version.version)
        path = self._cache.path(_model_version(version))
        if path not in self._policies:
            self._policies[path] = _Recomputation(Policy.load(_verified(path, version)))
            if len(self._policies) > MAX_POLICIES:
                self._policies.popitem(last=False)
        self._policies.move_to_end(path)
        return self._policies[path]

    def _warn_once(self, version: VersionSpec, error: ServingError) -> None:
        key = version.name, version.version, str(error)
        if key not in self._warned:
            self._warned.add(key)
            name, number, _ = key
            logger.warning("decisions of version %d of '%s' stay unchecked: %s", number, name, error)


class _Recomputation:
    """Computes the decisions of one version again."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._compare = policy, ActionComparison(policy.interface)
        self._actions = tuple(name for name in policy.interface.required_outputs if not name.startswith(STATE_OUT))
        self._details = tuple(name for name in (ACTION_DIST_INPUTS, ACTION_LOGP) if name in policy.details)

    def __call__(self, chunk: Chunk) -> Audit:
        inputs, served = chunk.tensors(INPUT), chunk.tensors(OUTPUT)
        if served.keys() != set(self._actions):
            return Audit.unchecked(len(chunk))
        drawn = self._noise(chunk)
        if drawn is not None:
            inputs[NOISE] = drawn
        outputs = self._run(inputs)
        found, logp = outputs.get(ACTION_DIST_INPUTS), outputs.get(ACTION_LOGP)
        agreement = self._compare(served, outputs, found, drawn)
        outcomes = np.where(agreement.same, _OK, _DIFFERS).astype(np.int8)
        # A sampled action without the seed of its noise, or of a graph without noise, cannot be computed.
        lost = chunk.columns["explored"] & ((chunk.columns["noise_row"] == NO_NOISE) | (drawn is None))
        outcomes[lost] = _UNCHECKED
        if logp is not None:
            logp = np.where(agreement.identical & ~lost, logp, np.nan).astype(np.float32)
        return Audit(outcomes, found if found is None else found.reshape(len(chunk), -1).astype(np.float32), logp)

    def _noise(self, chunk: Chunk) -> NDArray[np.float32] | None:
        """Return the noise of each row, `[rows, size]`, zeros where the action is greedy; None if all are."""
        noise, rows = self._policy.interface.noise, chunk.columns["noise_row"]
        noisy = np.flatnonzero(rows != NO_NOISE)
        if noise is None or not len(noisy):
            return None
        drawn = np.zeros((len(rows), noise.size), np.float32)
        drawn[noisy] = _draw(noise, chunk.columns["seed"][noisy], rows[noisy])
        return drawn

    def _run(self, inputs: Tensors) -> Tensors:
        """Compute batches of a size that fits into memory. Raises PolicyFailed."""
        rows = len(next(iter(inputs.values())))
        row_bytes = sum(tensor.nbytes for tensor in inputs.values()) // rows
        size = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, row_bytes)))
        names = *self._actions, *self._details
        parts = [
            self._policy.run({name: tensor[at : at + size] for name, tensor in inputs.items()}, names)
            for at in range(0, rows, size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _draw(noise: Noise, seeds: NDArray[np.uint64], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return row `rows[i]` of the noise of `seeds[i]`. Each seed is drawn once."""
    unique, inverse = np.unique(seeds, return_inverse=True)
    sizes = np.zeros(len(unique), np.int64)
    np.maximum.at(sizes, inverse, rows + 1)
    starts = np.cumsum(sizes) - sizes
    drawn = np.empty((int(sizes.sum()), noise.size), np.float32)
    is_single = sizes == 1
    drawn[starts[is_single]] = noise.draw_rows(unique[is_single].tolist())
    for index in np.flatnonzero(~is_single).tolist():
        size, start = int(sizes[index]), int(starts[index])
        drawn[start : start + size] = noise.draw(size, int(unique[index]))
    return drawn[starts[inverse] + rows]  # type: ignore[no-any-return]


def _model_version(version: VersionSpec) -> ModelVersion:
    tags: dict[str, Any] = {DIGEST_TAG + file: digest for file, digest in version.digests.items()}
    uri = f"models:/{version.name}/{version.version}"
    return ModelVersion(uri, version.name, version.version, version.run_id, "None", tags, version.registry)


def _verified(path: Path, version: VersionSpec) -> Bundle:
    """Return the bundle in a directory of the cache. Raises BundleFileMissing, DigestMismatch."""
    bundle = Bundle.read(path)
    for file, found in bundle.digests.items():
        if found != version.digests[file]:
            raise DigestMismatch(file, version.name, version.version, version.digests[file], found)
    return bundle
