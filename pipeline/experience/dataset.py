"""Whole episodes as a dataset of MLflow, an input of the runs that use them."""

import json
from typing import Any

import mlflow
import mlflow.data.sources
import pyarrow as pa
import pyarrow.compute as pc
from mlflow.data.dataset import Dataset
from mlflow.data.filesystem_dataset_source import FileSystemDatasetSource
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag
from mlflow.types.schema import Array, ColSpec, DataType, Schema
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from pipeline.experience.whole_episodes import WholeEpisodes, directory_of
from serving.errors import redacted

CONTEXT = "experience"
"""The context of the input."""

DIGEST_TAG, VERSIONS_TAG = "experience.digest", "experience.versions"
"""The tags of a run, and of its input, with the digest of the episodes and the versions that acted in them."""

_TYPES = {
    "bool": DataType.boolean,
    "float": DataType.float,
    "double": DataType.double,
    "string": DataType.string,
    "int64": DataType.long,
    "uint32": DataType.long,
    "uint64": DataType.long,
}
"""MLflow's type of each of Arrow's; all other numbers are integers."""


class ExperienceDataset(Dataset):
    """The whole episodes of one model with one layout, for `mlflow.log_input(dataset, context="experience")`.

    Its digest is that of the compaction: equal digests mean equal episodes.

    Args:
        episodes: The whole episodes.

    Raises:
        EpisodesReplaced, ExperienceDamaged, StoreUnavailable: As `WholeEpisodes.summary`.
    """

    def __init__(self, episodes: WholeEpisodes) -> None:
        self._episodes = episodes
        self._profile = _profile(episodes.summary())
        path = f"{directory_of(episodes.model)}/{episodes.digest}"
        source = _source(f"{redacted(episodes.store.uri).rstrip('/')}/{path}")
        super().__init__(source, name=f"experience of {episodes.model}", digest=episodes.digest)

    @property
    def versions(self) -> str:
        """The versions that made the first decisions of the episodes, such as `3, 4`."""
        return ", ".join(self._profile["episodes_by_version"])

    @property
    def profile(self) -> dict[str, Any]:
        """The numbers of episodes and decisions, the mean return and length, and the episodes by version and end."""
        return self._profile

    @property
    def schema(self) -> Schema:
        """The columns of the steps."""
        return Schema([_column(field) for field in self._episodes.schema])

    def to_dict(self) -> dict[str, str]:
        """Return what MLflow stores of the dataset."""
        schema = json.dumps({"mlflow_colspec": self.schema.to_dict()})
        return {**super().to_dict(), "schema": schema, "profile": json.dumps(self._profile)}

    def _compute_digest(self) -> str:
        return self._episodes.digest


def log_experience(run_id: str, episodes: WholeEpisodes) -> ExperienceDataset:
    """Log whole episodes as an input of a run, and tag the run with their digest and the versions that made them."""
    dataset = ExperienceDataset(episodes)
    client = mlflow.MlflowClient()
    lineage = {DIGEST_TAG: dataset.digest, VERSIONS_TAG: dataset.versions}
    tags = [InputTag(key, value) for key, value in {MLFLOW_DATASET_CONTEXT: CONTEXT, **lineage}.items()]
    client.log_inputs(run_id, datasets=[DatasetInput(DatasetEntity(**dataset.to_dict()), tags)])
    for key, value in lineage.items():
        client.set_tag(run_id, key, value)
    return dataset


def _profile(summary: pa.Table) -> dict[str, Any]:
    by_version = summary.group_by("version").aggregate([([], "count_all")]).sort_by("version").to_pylist()
    ends = summary.group_by("done").aggregate([([], "count_all")]).sort_by("done").to_pylist()
    return {
        "episodes": summary.num_rows,
        "decisions": pc.sum(summary["decisions"]).as_py() or 0,
        "return_mean": pc.mean(summary["return"]).as_py(),
        "length_mean": pc.mean(summary["length"]).as_py(),
        "episodes_by_version": {str(each["version"]): each["count_all"] for each in by_version},
        "episodes_by_end": {each["done"]: each["count_all"] for each in ends},
    }


def _source(location: str) -> FileSystemDatasetSource:
    sources: Any = mlflow.data.sources  # MLflow makes these classes when it is imported
    kind = sources.S3ArtifactDatasetSource if location.startswith("s3://") else sources.LocalArtifactDatasetSource
    source: FileSystemDatasetSource = kind(location)
    return source


def _column(field: pa.Field) -> ColSpec:
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return ColSpec(Array(_type(kind.value_type)), field.name, required=not field.nullable)
    return ColSpec(_type(kind), field.name, required=not field.nullable)


def _type(kind: pa.DataType) -> DataType:
    return DataType.datetime if pa.types.is_timestamp(kind) else _TYPES.get(str(kind), DataType.integer)
