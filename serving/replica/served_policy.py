"""What a replica answers with: a policy, the version it came from, all that is computed beforehand."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from serving.policy.policy import Policy
from serving.policy.spaces import Json, space_to_json
from serving.policy.state_tokens import StateCodec
from serving.protocols.native.json_codec import JsonCodec
from serving.protocols.open_inference.model import InferenceModel
from serving.registry.registry import ModelVersion

Headers = list[tuple[bytes, bytes]]


class ServedPolicy:
    """A policy with its codec and its prepared answers. Immutable: a promotion replaces the whole of it."""

    def __init__(self, policy: Policy, version: ModelVersion, *, loaded_at: float | None = None) -> None:
        self.policy = policy
        self.version = version
        states = StateCodec(policy.interface.state_shapes, f"{version.name}/{version.version}", policy.digest)
        self.codec = JsonCodec(
            policy.observation_space, policy.action_space, noise=policy.interface.noise, states=states
        )
        self.inference = InferenceModel(policy, version)
        self.loaded_at = datetime.fromtimestamp(time.time() if loaded_at is None else loaded_at, UTC)
        self.labels = _labels(version)
        self.headers = [(b"content-type", b"application/json"), *self.labels]
        self.description = self._description()

    def answer(self, body: bytes) -> bytes:
        """Return the body that answers a request's. Raises RequestError and PolicyFailed."""
        observations, batched = self.codec.decode(body)
        actions = self.policy.act(observations) if len(observations) else observations
        return self.codec.encode(actions, batched=batched)

    def _description(self) -> Mapping[str, Json]:
        policy, version = self.policy, self.version
        return {
            "name": version.name,
            "version": version.version,
            "model_uri": version.uri,
            "stage": version.stage,
            "run_id": version.run_id,
            "environment": policy.environment.to_json(),
            "observation_space": space_to_json(policy.observation_space),
            "action_space": space_to_json(policy.action_space),
            "explores": policy.interface.noise is not None,
            "recurrent": bool(policy.interface.state_shapes),
            "evaluation": version.evaluation,
            "loaded_at": self.loaded_at.isoformat(timespec="seconds"),
        }


def _labels(version: ModelVersion) -> Headers:
    return [
        # Header values are ASCII; model names need not be.
        (b"x-model-name", quote(version.name, safe=" !#$&'()*+,;=?[]").encode("ascii")),
        (b"x-model-version", b"%d" % version.version),
    ]
