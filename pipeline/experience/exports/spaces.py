"""The spaces and the environment of the policy whose experience is exported, as its bundle declares them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gymnasium import Space

from serving.policy.bundle import parse_policy_file
from serving.policy.spaces import leaves, space_from_json
from serving.registry.registry import fetch, resolve


@dataclass(frozen=True)
class PolicySpaces:
    """What a version observes and does, and where it was trained."""

    observation: Space[Any]
    action: Space[Any]
    env_id: str
    env_kwargs: Mapping[str, Any]
    wrappers: tuple[str, ...] = ()

    @classmethod
    def of_version(cls, model: str, version: int) -> Self:
        """Read them from the version's bundle. Raises the errors of `resolve` and `fetch`, BundleInvalid."""
        bundle = fetch(resolve(f"models:/{model}/{version}"))
        description = parse_policy_file(bundle.policy)
        return cls(
            observation=space_from_json(description["observation_space"]),
            action=space_from_json(description["action_space"]),
            env_id=description["environment"]["id"],
            env_kwargs=description["environment"]["kwargs"],
            wrappers=tuple(description.get("wrappers", ())),
        )

    def columns(self, role: str, root: str) -> list[str]:
        """Return the columns with the arrays of the `observation` or `action` space, in the order of its leaves."""
        return [leaf.tensor(root) for leaf in leaves(getattr(self, role))]
