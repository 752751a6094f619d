"""Writes episodes as RLlib's offline API reads them with `input_read_episodes=True`.

Each row of the Parquet files is one episode, the state of a `SingleAgentEpisode` packed by msgpack. In RLlib's other
formats a row is one step, of which RLlib makes an episode of its own.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.environments.nested_spaces import unstack
from pipeline.experience.exports.episodes import Arrays, Episode
from pipeline.experience.exports.errors import ExportPackageMissing
from pipeline.experience.exports.spaces import PolicySpaces
from serving.policy.spaces import leaves

DIRECTORY = "episodes"
COLUMN = "item"
"""The column that RLlib reads."""
FILE_BYTES = 64 * 2**20
"""A file ends after the episode that makes it larger than this, before compression."""

FOLLOWED = True
"""RLlib needs an observation after each action."""


def check(spaces: PolicySpaces) -> None:
    """Raise ExportPackageMissing if a package is missing. RLlib takes all spaces that policies of this project have."""
    del spaces
    try:
        import msgpack_numpy  # noqa: F401
    except ImportError as error:
        raise ExportPackageMissing("RLlib", "msgpack-numpy") from error


def write(episodes: Iterable[Episode], spaces: PolicySpaces, directory: Path, about: dict[str, Any]) -> None:
    """Write the episodes below a directory. Raises OSError."""
    del about
    (directory / DIRECTORY).mkdir()
    for number, rows in enumerate(_files(pack(episode, spaces) for episode in episodes)):
        table = pa.table({COLUMN: pa.array(rows, pa.binary())})
        pq.write_table(table, directory / DIRECTORY / f"part-{number:05}.parquet", compression="zstd")


def pack(episode: Episode, spaces: PolicySpaces) -> bytes:
    """Return the packed state of RLlib's episode."""
    import msgpack
    import msgpack_numpy
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    made = SingleAgentEpisode(
        id_=episode.id,
        observations=_values(spaces.observation, episode.all_observations),
        actions=_values(spaces.action, episode.actions),
        rewards=list(episode.rewards),
        infos=[{}] * (len(episode) + 1),
        terminated=episode.terminated,
        truncated=not episode.terminated,
        extra_model_outputs={"action_logp": list(episode.action_logp)},
        len_lookback_buffer=0,
    ).to_numpy()
    packed: bytes = msgpack.packb(made.get_state(), default=msgpack_numpy.encode)
    return packed


def next_step(directory: Path, about: dict[str, Any]) -> str:
    """Return how to load the export."""
    del about
    path = str(directory / DIRECTORY)
    return f"config.offline_data(input_=[{path!r}], input_read_episodes=True, input_read_batch_size=32)"


def _values(space: Any, arrays: Arrays) -> list[Any]:
    """Return the elements of a space, one per step."""
    names = [leaf.tensor("root") for leaf in leaves(space)]
    return unstack(space, dict(zip(names, arrays, strict=True)), "root")


def _files(packed: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the rows of each file."""
    rows: list[bytes] = []
    size = 0
    for row in packed:
        rows.append(row)
        size += len(row)
        if size > FILE_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
