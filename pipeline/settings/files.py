"""Files of settings: those of the user, and those in `pipeline/tuned`, each of which is tuned for one environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import convert
from pipeline.errors import UnreadableConfig

_TUNED = Path(__file__).parents[1] / "tuned"


@dataclass(frozen=True)
class TunedFile:
    """A shipped file of settings.

    Attributes:
        name: Its path in the repository.
        env_id: The environment that it is tuned for.
        settings: Its other settings by name.
    """

    name: str
    env_id: str
    settings: Mapping[str, Any]


def read(file: str | Path) -> dict[str, Any]:
    """Return the content of a YAML file of settings, with one NAME: VALUE per line. Raises UnreadableConfig."""
    try:
        content = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError as error:
        raise UnreadableConfig(str(file), " ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise UnreadableConfig(str(file), "expected one NAME: VALUE per line.")
    return content


def tuned_for(env_id: str) -> TunedFile | None:
    """Return the shipped file for an environment, or None if there is none.

    The file for `CartPole-v1` is also that for `module:CartPole-v1`, which imports a module first, and for
    `gym:CartPole-v1`. It is not that for `CartPole-v0`: a version differs in its task or in its time limit.
    """
    return _shipped().get(env_id.rpartition(":")[2])


@cache
def _shipped() -> Mapping[str, TunedFile]:
    """Return the shipped files by the id of their environment."""
    found = {}
    for file in sorted(_TUNED.glob("*.yaml")):
        settings = {name: convert(name, value) for name, value in read(file).items()}
        env_id = settings.pop("env_id")
        found[env_id] = TunedFile(f"pipeline/tuned/{file.name}", env_id, settings)
    return found
