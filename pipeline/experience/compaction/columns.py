"""The columns of whole episodes: which arrays a layout has, and the schema of its parts."""

from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from serving.experience.tables import DIGEST_KEY, EXPERIMENT_FIELDS, INPUT, OUTPUT
from serving.policy.tensors import ACTION, OBSERVATIONS, STATE_IN

OBS, ACTIONS, NEW_OBS = "obs", "actions", "new_obs"

_TIME = pa.timestamp("ns", "UTC")
_FIRST = [pa.field("eps_id", pa.string(), nullable=False), pa.field("t", pa.int64(), nullable=False)]
_REWARDS = [pa.field("rewards", pa.float64(), nullable=False)]
_LAST = [
    pa.field("terminateds", pa.bool_(), nullable=False),
    pa.field("truncateds", pa.bool_(), nullable=False),
    pa.field("action_logp", pa.float32()),
    pa.field("action_dist_inputs", pa.list_(pa.float32())),
    pa.field("version", pa.int32(), nullable=False),
    pa.field("mode", pa.string(), nullable=False),
    pa.field("propensity", pa.float32()),
    *EXPERIMENT_FIELDS,
    pa.field("time", _TIME, nullable=False),
    pa.field("reward_reported", pa.bool_(), nullable=False),
]


@dataclass(frozen=True)
class Arrays:
    """The columns with arrays of a table of decisions, named as in whole episodes."""

    fields: tuple[pa.Field, ...]
    sources: tuple[str, ...]
    """The name of each field's column in the table of decisions."""

    @classmethod
    def of(cls, schema: pa.Schema) -> Self:
        """Return the arrays of a decision table with a schema."""
        fields = [field for field in schema if field.name.startswith((INPUT, OUTPUT))]
        renamed = [field.with_name(_name(field.name)) for field in fields]
        return cls(tuple(renamed), tuple(field.name for field in fields))

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal arrays: names, types and metadata."""
        return tuple((each.name, str(each.type), tuple(sorted((each.metadata or {}).items()))) for each in self.fields)

    @property
    def observations(self) -> list[pa.Field]:
        """The arrays of the observations."""
        return self._beginning(OBS)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the parts."""
        new = [field.with_name(NEW_OBS + field.name.removeprefix(OBS)) for field in self.observations]
        actions, states = self._beginning(ACTIONS), self._beginning(STATE_IN.rstrip("."))
        return pa.schema([*_FIRST, *self.observations, *actions, *_REWARDS, *new, *_LAST, *states])

    def _beginning(self, root: str) -> list[pa.Field]:
        return [field for field in self.fields if field.name == root or field.name.startswith(f"{root}.")]


def is_digest(field: pa.Field) -> bool:
    """Return whether a column holds hashes of arrays instead of the arrays."""
    return DIGEST_KEY in (field.metadata or {})


def tensor_name(field: pa.Field) -> str:
    """Return the name of the graph's input that a column of observations was, as final observations name it."""
    return OBSERVATIONS + str(field.name).removeprefix(OBS)


def _name(column: str) -> str:
    """Return the name in whole episodes of a column of decisions: `obs.arm` for `input.observations.arm`."""
    if column.startswith(OUTPUT):
        return ACTIONS + column.removeprefix(OUTPUT).removeprefix(ACTION)
    name = column.removeprefix(INPUT)
    return OBS + name.removeprefix(OBSERVATIONS) if name.split(".")[0] == OBSERVATIONS else name
