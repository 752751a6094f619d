"""Parses the JSON body of a request, and the options `explore`, `seed` and `details` that several protocols accept."""

import json
import random

import orjson

from serving.experience.episodes import Origin, Seeds
from serving.policy.errors import ExploreUnsupported, OptionInvalid
from serving.policy.policy import Policy
from serving.policy.spaces import Json, describe
from serving.policy.tensors import NOISE, Tensors
from serving.protocols.errors import BodyNotJson
from serving.replica.errors import ObservationsTooMany

MAX_SEED = 2**64 - 1


def parse(body: bytes) -> Json:
    """Parse JSON. Raises BodyNotJson.

    NaN and Infinity, which Python clients may send, are accepted here, so that a later error can name their place.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    try:
        return json.loads(body)
    except RecursionError:
        raise BodyNotJson("it is nested too deeply") from None
    except ValueError:
        raise BodyNotJson(reason if body else "it is empty") from None


def counted(values: Json, limit: int) -> Json:
    """Return a list of observations, or any other value, unconverted. Raises ObservationsTooMany above the limit."""
    if type(values) is list and len(values) > limit:
        raise ObservationsTooMany(len(values), limit)
    return values


def flag(request: dict[str, Json], name: str) -> bool:
    """Return a boolean option, which is false by default. Raises OptionInvalid."""
    value = request.get(name, False)
    if type(value) is not bool:
        raise OptionInvalid(name, describe(value), "true or false")
    return value


def noise_for(
    request: dict[str, Json], policy: Policy, batch: int, origin: Origin | None = None
) -> tuple[Tensors, Origin | None]:
    """Return the graph's noise input by the options `explore` and `seed`, and the origin with the seeds of the noise.

    A request without `explore` has it if its episode is in `explore_share`, unless the policy has no noise. Without
    `seed`, the noise follows from the episodes and steps of the observations, if all are known: a request that
    is sent again draws the same actions.

    Raises:
        OptionInvalid, ExploreUnsupported.
    """
    seed = request.get("seed")
    if seed is not None and not (type(seed) is int and 0 <= seed <= MAX_SEED):
        raise OptionInvalid("seed", describe(seed), "an integer from 0 to 2**64 - 1")
    noise, is_said = policy.interface.noise, "explore" in request
    if not (flag(request, "explore") if is_said else origin is not None and origin.explores):
        return {}, origin
    if noise is None:
        if is_said:
            raise ExploreUnsupported
        return {}, origin
    if origin is None:
        return {NOISE: noise.draw(batch, seed)}, None
    rows = origin.episodes.seeds(policy.digest) if seed is None and origin.episodes else None
    if rows is not None:
        return {NOISE: noise.draw_rows(rows)}, origin._replace(seeds=Seeds(None, rows))
    seed = random.getrandbits(64) if seed is None else seed
    return {NOISE: noise.draw(batch, seed)}, origin._replace(seeds=Seeds(seed))
