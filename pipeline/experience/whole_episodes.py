"""Whole episodes: the result of `python -m pipeline experience compact`, and how to read it.

Below the experience URI:

    episodes/<model>/<digest>/part-<layout>-<number>.parquet
    episodes/<model>/<digest>/summary.parquet
    episodes/<model>/current.json

A part has one row per step, sorted by (`eps_id`, `t`), and holds only whole episodes; the parts are sorted by `eps_id`
too. The columns are `eps_id, t, obs, actions, rewards, new_obs, terminateds, truncateds, action_logp,
action_dist_inputs, version, mode, propensity, experiment, arm, share, time, reward_reported`. For nested spaces there
is one column per array (`obs.<path>`), and for recurrent policies `state_in.<name>`. Tensor columns are those of
`serving.experience.tables.column_of`; `tensor_of(table[name], schema.field(name))` turns those without nulls into
arrays. A null in `new_obs` says that nobody reported the observation.

Versions whose observations or actions differ in their arrays have different layouts, which lie in different parts.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.experience.errors import EpisodesReplaced, ExperienceDamaged, NotCompacted, VersionNotRecorded
from serving.experience.store import Store
from serving.experience.tables import EXPERIMENT_FIELDS, model_directory

FORMAT = 1
SUMMARY_FILE = "summary.parquet"

TERMINATED, TRUNCATED, UNREPORTED = "terminated", "truncated", "unreported"
"""How an episode ended, as its client reported it."""

SUMMARY_SCHEMA = pa.schema(
    [
        pa.field("eps_id", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),  # of its first decision
        pa.field("versions", pa.int32(), nullable=False),  # how many versions decided
        pa.field("start", pa.timestamp("ns", "UTC"), nullable=False),  # its first decision
        pa.field("end", pa.timestamp("ns", "UTC"), nullable=False),  # its last decision
        pa.field("length", pa.int64(), nullable=False),  # as reported, else the last step + 1
        pa.field("return", pa.float64(), nullable=False),  # as reported, else the sum of the rewards
        pa.field("done", pa.string(), nullable=False),  # TERMINATED, TRUNCATED or UNREPORTED
        pa.field("rewards_reported", pa.int64(), nullable=False),  # how many of its decisions have a reported reward
        pa.field("complete", pa.bool_(), nullable=False),  # there is a decision for each of the steps 0..length-1
        pa.field("decisions", pa.int64(), nullable=False),  # the rows of the episode
        pa.field("layout", pa.int32(), nullable=False),
        *EXPERIMENT_FIELDS,  # of its first decision
        pa.field("reported", pa.timestamp("ns", "UTC")),  # the last report of its client, null if there is none
    ]
)
"""The schema of the table with one row per episode."""


def directory_of(model: str) -> str:
    """Return the directory with the whole episodes of a model."""
    return f"episodes/{model_directory(model)}"


def current_file(model: str) -> str:
    """Return the path of the file that names the digest of a model's whole episodes."""
    return f"{directory_of(model)}/current.json"


@dataclass(frozen=True)
class Layout:
    """The arrays of observations and actions that some versions have in common."""

    number: int
    versions: tuple[int, ...]
    """The versions with this layout, ascending."""
    schema: pa.Schema
    """The schema of the parts, with the shapes of the arrays in the fields' metadata."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of one of `layouts` in current.json."""
        schema = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        return {"number": self.number, "versions": list(self.versions), "schema": schema}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Return the layout that `to_json` described."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
        return cls(content["number"], tuple(content["versions"]), schema)


@dataclass(frozen=True)
class WholeEpisodes:
    """The whole episodes of one model with one layout."""

    store: Store
    model: str
    digest: str
    """Names this set of episodes: it follows from the content of the files."""
    layout: Layout
    """The layout whose episodes `tables` and `summary` return."""
    content: dict[str, Any]
    """The content of current.json: `created_at`, `episodes`, `decisions`, `files` and more, for all layouts."""

    @classmethod
    def open(cls, store: Store, model: str, version: int | None = None) -> Self:
        """Open the whole episodes that have the layout of a version, by default of the newest one.

        Raises:
            NotCompacted: there are no whole episodes of the model.
            VersionNotRecorded: there are none of this version.
            StoreUnavailable: the store cannot be read.
        """
        content = read_current(store, model)
        layouts = [Layout.from_json(each) for each in content["layouts"]] if content else []
        if content is None or not layouts:
            raise NotCompacted(store.uri, model)
        fitting = [each for each in layouts if version is None or version in each.versions]
        if not fitting:
            recorded = sorted({number for each in layouts for number in each.versions})
            raise VersionNotRecorded(model, version or 0, ", ".join(map(str, recorded)))
        return cls(store, model, content["digest"], fitting[-1], content)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the tables of steps."""
        return self.layout.schema

    @property
    def parts(self) -> Sequence[str]:
        """The names of the files with the steps, in the order of `eps_id`."""
        return [name for name in sorted(self.content["files"]) if name.startswith(part_prefix(self.layout.number))]

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the steps part by part, some hundred thousand each; an episode lies in one part.

        Raises:
            EpisodesReplaced: a newer compaction has replaced the files.
            ExperienceDamaged: a file does not have its digest.
        """
        for name in self.parts:
            table = pq.ParquetFile(pa.BufferReader(self._read(name))).read(columns=columns)
            yield table.cast(pa.schema([self.schema.field(column) for column in table.column_names]))

    def summary(self) -> pa.Table:
        """Return one row per episode: a table of SUMMARY_SCHEMA, sorted by `eps_id`. Raises as `tables`."""
        table = pq.read_table(pa.BufferReader(self._read(SUMMARY_FILE)))
        return table.filter(pc.equal(table["layout"], self.layout.number)).sort_by("eps_id")

    def _read(self, name: str) -> bytes:
        return read_file(self.store, self.model, self.content, name)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of the files for a schema of parts: `new_obs` as lists of any size.

    Up to release 25, pyarrow cannot read lists of a fixed size with nulls from Parquet (Arrow's issue 35692).
    """
    for index, field in enumerate(schema):
        if field.name.split(".")[0] == "new_obs" and pa.types.is_fixed_size_list(field.type):
            schema = schema.set(index, field.with_type(pa.list_(field.type.value_type)))
    return schema


def part_prefix(layout: int) -> str:
    """Return how the names of a layout's parts begin."""
    return f"part-{layout}-"


def has_parts(files: Iterable[str], layout: int) -> bool:
    """Return whether there is a part of a layout among files."""
    return any(name.startswith(part_prefix(layout)) for name in files)


def read_current(store: Store, model: str) -> dict[str, Any] | None:
    """Return the content of current.json, None if there is none. Raises ExperienceDamaged, StoreUnavailable."""
    path = current_file(model)
    try:
        content = json.loads(store.read(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ExperienceDamaged(path, f"it is not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ExperienceDamaged(path, f"it is not of format {FORMAT}, which this release reads")
    return content


def read_file(store: Store, model: str, content: dict[str, Any], name: str) -> bytes:
    """Return one of the `files` of current.json's content. Raises as `WholeEpisodes.tables`."""
    path = f"{directory_of(model)}/{content['digest']}/{name}"
    try:
        read = store.read(path)
    except FileNotFoundError as error:
        raise EpisodesReplaced(path) from error
    if hashlib.sha256(read).hexdigest() != content["files"][name]:
        raise ExperienceDamaged(path, "its sha256 is not the one in current.json")
    return read
