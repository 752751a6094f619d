"""Reads what a server says of itself in `/model`. Any server may answer at a URL, so nothing in it is trusted."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.client.client import PolicyClient
from serving.client.errors import ServerUnreachable
from serving.policy.environments import is_allowed, modules_of
from serving.policy.spaces import Json

MAX_REPLICAS = 1000

Model = Mapping[str, Json]


class _Strict(BaseModel):
    """Values of other types are invalid, other keys are ignored."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class Environment(_Strict):
    """The environment that the policy was trained in."""

    id: str
    kwargs: dict[str, Any]
    wrappers: list[str] = []
    max_episode_steps: Annotated[int, Field(ge=1)] = 1


class Played(_Strict):
    """What `query` reads."""

    name: str
    version: int
    environment: Environment


class Replica(_Strict):
    """The replica that answered."""

    id: str
    of: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    answered: int
    errors: int
    release: str = ""


class Rejected(_Strict):
    """A version that the replica does not serve."""

    version: int


class Online(_Strict):
    """The finished episodes of a version that clients reported to a replica."""

    episodes: Annotated[int, Field(ge=1)]
    return_mean: float
    length_mean: float | None
    length_count: int


class Monitored(_Strict):
    """What `status` reads."""

    name: str
    version: int
    model_uri: str
    stage: str | None
    execution_provider: str = "cpu"
    replica: Replica
    last_refresh: str | None
    refresh_error: str | None
    refused: Rejected | None
    degraded: bool
    swaps: int
    online: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], Online] = {}


def refused_modules(environment: Mapping[str, Any], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the modules outside of the allowed ones that making an environment of `/model` would import."""
    modules = modules_of(environment["id"], environment["kwargs"], environment.get("wrappers", ()))
    return tuple(module for module in modules if not is_allowed(module, allowed))


def described(client: PolicyClient, kind: type[BaseModel]) -> Model:
    """Return `/model` of a server, with the keys of `kind`.

    Raises:
        ServerUnreachable: the answer is not that of a policy server of this release.
        RequestRefused: as `PolicyClient`.
    """
    model = client.model()
    try:
        kind.model_validate(model)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ServerUnreachable(client.url, f"in its /model, {place} is wrong: {fault['msg']}") from error
    return model
