"""Writes the online return of a registered model to MLflow. Repeating it adds nothing twice."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from pipeline.experience.errors import NotCompacted
from pipeline.experience.online import section
from pipeline.experience.online.chart import draw
from pipeline.experience.online.errors import ModelNotRegistered
from pipeline.experience.online.windows import OnlineReturn, Window, online_return
from pipeline.experience.whole_episodes import SUMMARY_FILE, read_current, read_file
from pipeline.tracking.run import NOT_FOUND, model_id_of
from serving.experience.store import Store
from serving.registry.registry import versions_of
from serving.registry.tracking import check_artifact_uri, check_tracking_server

CHART = "online_return.png"

RUN_TAG = "online.run"
"""The tag of a registered model with the id of the run that has its online return."""
RETURN_TAG, EPISODES_TAG = "online.return", "online.episodes"
"""The tags of a version."""

_VERSION, _UNTIL, _DIGEST = "online.version", "online.until", "online.digest"
"""The tags of the runs: the version, the end of the last window that was logged, the episodes that were reported."""

LATE_S = 300
"""A window is logged when it has been over for this time at the last compaction: its episodes are recorded then."""

_NOTE = (
    f"The return of the episodes that clients of the servers reported, written by `pipeline experience report`. "
    f"The chart of all versions is the artifact `{CHART}`; each version has a child run with its metrics by time."
)

_BATCH = 300
"""The number of windows in one request: MLflow takes at most 1,000 metrics."""


@dataclass(frozen=True)
class Reported:
    """What a report found and wrote."""

    run_id: str
    experiment_id: str
    online: OnlineReturn
    new_windows: dict[int, int]
    """The number of windows that were logged now, by version."""
    unregistered: Sequence[int]
    """Versions with experience that are not in the registry any more."""
    description_full: bool
    """Whether the description of the registered model has no place for the section."""


def report(store: Store, model: str, interval_s: int) -> Reported:
    """Log the online return of each version of a model, from its whole episodes.

    A run per model has the chart, and a child run per version has the metrics `online/return_mean`, `online/episodes`
    and `online/length_mean` of each window, at the version's logged model. Their step is the end of the window, in
    seconds since 1970.

    Args:
        store: The store with whole episodes.
        model: The name of the registered model.
        interval_s: The length of a window, in seconds.

    Raises:
        NotCompacted: There are no whole episodes of the model.
        ModelNotRegistered: The registry does not have the model.
        ServingError: If MLflow does not answer, or the account may not write.
    """
    check_tracking_server()
    current = read_current(store, model)
    if current is None or SUMMARY_FILE not in current["files"]:
        raise NotCompacted(store.uri, model)
    summary = pq.read_table(pa.BufferReader(read_file(store, model, current, SUMMARY_FILE)))
    online = online_return(summary, interval_s)
    closed_s = int(datetime.fromisoformat(current["created_at"]).timestamp()) - LATE_S
    writer = _Writer(model)
    new = {
        version: writer.log_windows(version, [each for each in online.windows if each.version == version], closed_s)
        for version in online.totals
        if version in writer.registered
    }
    full = writer.finish(online, interval_s, current["digest"])
    missing = [version for version in online.totals if version not in writer.registered]
    return Reported(writer.run.info.run_id, writer.run.info.experiment_id, online, new, missing, full)


class _Writer:
    """Writes to the runs, the versions and the registered model."""

    def __init__(self, model: str) -> None:
        self._client, self._model = mlflow.MlflowClient(), model
        self._registered_model = self._find_model()
        found = versions_of(model)
        self.registered = {int(each.version): dict(each.tags) for each in found}
        self.run = self._find_run() or self._create_run([each.run_id for each in found if each.run_id])
        self._children = {each.data.tags.get(_VERSION): each for each in self._find_children()}

    def log_windows(self, version: int, windows: Sequence[Window], closed_s: int) -> int:
        """Log the windows of a version that are over and were not logged before; return how many."""
        child = self._children.get(str(version))
        until = int(child.data.tags.get(_UNTIL, "0")) if child else 0
        new = [each for each in windows if each.start_s >= until and each.end_s <= closed_s]
        if not new:
            return 0
        run_id = (child or self._create_child(version)).info.run_id
        model_id = model_id_of(self._model, version)
        for begin in range(0, len(new), _BATCH):
            batch = new[begin : begin + _BATCH]
            metrics = [metric for each in batch for metric in _metrics(each, run_id, model_id)]
            self._client.log_batch(run_id, metrics=metrics)
            self._client.set_tag(run_id, _UNTIL, str(batch[-1].end_s))
        return len(new)

    def finish(self, online: OnlineReturn, interval_s: int, digest: str) -> bool:
        """Write what covers all episodes, unless they are those of the last report. Return whether there was no place.

        That is the chart, the tags of the versions and the section of the description.
        """
        info = self.run.info
        state = f"{digest} {interval_s}"
        if self.run.data.tags.get(_DIGEST) != state:
            check_artifact_uri(info.artifact_uri)
            self._client.log_figure(info.run_id, draw(online.windows, self._model, interval_s), CHART)
            self._tag_versions(online)
            self._client.set_tag(info.run_id, _DIGEST, state)
        text = self._registered_model.description or ""
        changed = section.with_section(text, section.content(info.experiment_id, info.run_id))
        if changed is not None and changed != text:
            self._client.update_registered_model(self._model, description=changed)
        return changed is None

    def _tag_versions(self, online: OnlineReturn) -> None:
        for version, figures in online.totals.items():
            tags = {RETURN_TAG: f"{figures.return_mean:g}", EPISODES_TAG: str(figures.episodes)}
            for key, value in tags.items():
                if version in self.registered and self.registered[version].get(key) != value:
                    self._client.set_model_version_tag(self._model, str(version), key, value)

    def _find_model(self) -> RegisteredModel:
        try:
            return self._client.get_registered_model(self._model)
        except MlflowException as error:
            if error.error_code not in NOT_FOUND:
                raise
            raise ModelNotRegistered(self._model, mlflow.get_registry_uri()) from error

    def _find_run(self) -> Run | None:
        run_id = self._registered_model.tags.get(RUN_TAG)
        return None if run_id is None else self._active_run(run_id)

    def _active_run(self, run_id: str) -> Run | None:
        """Return a run, None if it does not exist or is deleted."""
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in NOT_FOUND:
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _create_run(self, trained: Sequence[str]) -> Run:
        """Create the run of the model in the experiment of its newest training run, else in the default one."""
        runs = (self._active_run(run_id) for run_id in trained)
        training = next((run for run in runs if run is not None), None)
        experiment_id = training.info.experiment_id if training else os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
        name = f"online return of {self._model}"
        run = self._client.create_run(experiment_id, tags={MLFLOW_RUN_NOTE: _NOTE}, run_name=name)
        self._client.update_run(run.info.run_id, status="FINISHED")
        self._client.set_registered_model_tag(self._model, RUN_TAG, run.info.run_id)
        return run

    def _find_children(self) -> list[Run]:
        condition = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.run.info.run_id}'"
        return list(self._client.search_runs([self.run.info.experiment_id], condition, max_results=50_000))

    def _create_child(self, version: int) -> Run:
        name = f"{self._model} version {version}"
        tags = {MLFLOW_PARENT_RUN_ID: self.run.info.run_id, _VERSION: str(version)}
        run = self._client.create_run(self.run.info.experiment_id, tags=tags, run_name=name)
        self._client.update_run(run.info.run_id, status="FINISHED")
        return run


def _metrics(window: Window, run_id: str, model_id: str | None) -> list[Metric]:
    figures = window.figures
    values = {
        "online/return_mean": figures.return_mean,
        "online/episodes": float(figures.episodes),
        "online/length_mean": figures.length_mean,
    }
    step, now = window.end_s, window.end_s * 1000
    return [Metric(key, value, now, step, model_id=model_id, run_id=run_id) for key, value in values.items()]
