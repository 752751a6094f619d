"""Journals for tests: segments with the decisions that a replica would answer, and what became of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from serving.experience.conversion.audit import Auditor
from serving.experience.conversion.converter import Converter
from serving.experience.episodes import NO_EPISODE, NO_STEP, EpisodeHasher, Episodes
from serving.experience.journal.records import (
    EXPLORED,
    FEEDBACK,
    SEEDED,
    VERSION,
    TensorSpec,
    VersionSpec,
    decisions_payload,
    json_payload,
)
from serving.experience.journal.segment import SegmentWriter
from serving.experience.store import open_store
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.policy.tensors import NOISE, STATE_OUT, Tensors
from serving.registry.cache import BundleCache
from serving.registry.model_version import DIGEST_TAG, ModelVersion

REGISTRY = "http://127.0.0.1:5000"
CREATED_NS = 1_796_083_200_000_000_000
DAY = "2026-12-01"
HASHER = EpisodeHasher(b"key")


def put_into_cache(cache: Path, name: str, number: int, bundle: Bundle) -> Path:
    """Put a bundle where a replica would have put it, and return its directory."""
    tags = {DIGEST_TAG + file: digest for file, digest in bundle.digests.items()}
    version = ModelVersion(f"models:/{name}/{number}", name, number, None, "None", tags, REGISTRY)
    path = BundleCache(cache).path(version)
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(bundle.graph)
    (path / "policy.json").write_bytes(bundle.policy)
    return path


@dataclass
class Actor:
    """Answers requests with a policy, and describes the answers as records."""

    bundle: Bundle
    name: str = "cartpole-ppo"
    number: int = 3
    policy: Policy = field(init=False)
    spec: VersionSpec = field(init=False)

    def __post_init__(self) -> None:
        self.policy = Policy.load(self.bundle)
        example = {name: t for name, t in self.policy.interface.example(1).items() if name != NOISE}
        outputs = self.policy.run(self.policy.interface.example(1), self.actions)
        self.spec = VersionSpec(
            self.name, self.number, "run", self.bundle.digests, REGISTRY, _specs(example), _specs(outputs)
        )

    @property
    def actions(self) -> tuple[str, ...]:
        required = self.policy.interface.required_outputs
        return tuple(name for name in required if not name.startswith(STATE_OUT))

    def inputs(self, rows: int, generator: np.random.Generator) -> Tensors:
        """Random observations, and random states of a recurrent policy."""
        inputs = {}
        for spec in self.spec.inputs:
            if spec.dtype == "<f4":
                inputs[spec.name] = generator.normal(0, 0.1, (rows, *spec.shape)).astype("<f4")
            else:
                inputs[spec.name] = generator.integers(0, 2, (rows, *spec.shape)).astype(spec.dtype)
        return inputs

    def act(self, inputs: Tensors, seed: int | None = None, row_seeds: Sequence[int] = ()) -> Tensors:
        """The actions as a server computes them: greedy ones, or with the noise of a seed."""
        rows, noise = len(next(iter(inputs.values()))), self.policy.interface.noise
        if row_seeds:
            inputs = inputs | {NOISE: np.concatenate([noise.draw(1, each) for each in row_seeds])}
        elif seed is not None:
            inputs = inputs | {NOISE: noise.draw(rows, seed)}
        return self.policy.run(inputs, self.actions)

    def record(
        self,
        inputs: Tensors,
        outputs: Tensors,
        episodes: Episodes,
        time_ns: int = CREATED_NS,
        seed: int | None = None,
        row_seeds: Sequence[int] = (),
        protocol: int = 0,
        flags: int = 0,
    ) -> bytes:
        flags |= EXPLORED * (seed is not None or bool(row_seeds)) | SEEDED * (seed is not None)
        parts = [inputs[spec.name].tobytes() for spec in self.spec.inputs if spec.name in inputs]
        parts += [np.asarray(outputs[spec.name], spec.dtype).tobytes() for spec in self.spec.outputs]
        return decisions_payload(
            self.spec, protocol, time_ns, episodes, parts, flags=flags, seed=seed or 0, row_seeds=row_seeds
        )


def _specs(tensors: Tensors) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in tensors.items())


def episodes(rows: int, name: str = "e", first: int = 0) -> Episodes:
    """One episode, the observations of a batch being its consecutive steps."""
    return Episodes([HASHER(name)] * rows, list(range(first, first + rows)))


NO_EPISODES = Episodes([NO_EPISODE], [NO_STEP])


def write_segment(
    journal: Path, number: int, payloads: Sequence[bytes], *, replica: str = "r1", size: int = 1 << 20, **header: Any
) -> Path:
    """Write a sealed segment."""
    journal.mkdir(exist_ok=True, parents=True)
    content = {"format": 1, "model": "cartpole-ppo", "application": "app", "replica": replica, "segment": number}
    path = journal / f"{replica}-{number}.segment"
    writer = SegmentWriter(path, size, content | {"created_ns": CREATED_NS} | header)
    for payload in payloads:
        assert writer.append(payload)
    writer.close()
    return path


def version_record(spec: VersionSpec) -> bytes:
    return json_payload(VERSION, spec.to_json())


def feedback_record(**content: Any) -> bytes:
    base = {"time_ns": CREATED_NS, "episode": HASHER("e").hex(), "rewards": [], "return": None, "length": None}
    return json_payload(FEEDBACK, base | {"done": None, "version": None, "final_observation": None} | content)


def simple_segment(journal: Path, number: int, actor: Actor, count: int = 10, **options: Any) -> Path:
    """Write a segment with greedy decisions of one row each, which carry their number as their step."""
    generator = np.random.default_rng(number)
    payloads = [version_record(actor.spec)]
    for step in range(count):
        inputs = actor.inputs(1, generator)
        payloads.append(actor.record(inputs, actor.act(inputs), episodes(1, f"{number}", step)))
    return write_segment(journal, number, payloads, **options)


def converter(store: Path, cache: Path) -> Converter:
    return Converter(open_store(str(store)), Auditor(cache))


def tables(store: Path, kind: str = "decisions") -> list[Path]:
    return sorted(store.glob(f"{kind}/*/*/*.parquet"))


def rows(store: Path, kind: str = "decisions") -> list[dict[str, Any]]:
    """All rows of a kind of table in a store."""
    return [row for file in tables(store, kind) for row in pq.ParquetFile(file).read().to_pylist()]


def identities(store: Path) -> list[tuple[Any, ...]]:
    return sorted((row["replica"], row["segment"], row["offset"], row["row"]) for row in rows(store))


def manifests(store: Path) -> dict[str, dict[str, Any]]:
    """The manifests by their segment's number."""
    return {str(file.relative_to(store)): json.loads(file.read_text()) for file in store.glob("manifests/*/*/*.json")}
