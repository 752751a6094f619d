"""Starts and ends MLflow runs, and reads and writes their parameters, tags, metrics and files."""

import contextlib
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import mlflow
import yaml
from mlflow.entities import LoggedModelInput, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline import signals
from pipeline.tracking.errors import ExperimentUnusable, NotResumable, RelativeStore, RunNotJoinable
from pipeline.tracking.outages import Notify, retry_through_outages
from serving.registry.tracking import bounded_retries, check_artifact_uri

if TYPE_CHECKING:
    from pipeline.evaluation.evaluation import Evaluation

#: Artifacts of a run.
LEARNING_CURVE = "figures/learning_curve.png"
DISTRIBUTION = "figures/evaluation_returns.png"
RECORDING = "episode.gif"
CONFIG_FILE = "config.yaml"
SEARCH_FILE = "search.yaml"
BEST_FILE = "best.yaml"

_ORIGIN_TAG = "from"

#: MLflow's codes for a run or an experiment that does not exist, and for an id that cannot exist.
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@contextlib.contextmanager
def run(
    name: str,
    params: Mapping[str, Any] | None = None,
    *,
    resumed: str | None = None,
    notify: Notify = click.echo,
) -> Iterator[str]:
    """Start or resume the MLflow run of a command, and end it with the block.

    The run is the one that `mlflow run` started, or the resumed one, or a new one. It ends as FINISHED, as KILLED after
    a signal, or as FAILED after any other exception. `mlflow run` itself marks the run of a command that fails as
    FAILED, which overwrites KILLED.

    Args:
        name: The name of a new run.
        params: The parameters of a new run, which are logged.
        resumed: The id of a run to resume.
        notify: Receives a line if the end of the run has to wait for the tracking server.

    Yields:
        The id of the run.

    Raises:
        RelativeStore: If `mlflow run` uses another SQLite file than this process would open.
        RunNotJoinable: As `require_joinable`.
        ExperimentUnusable: If the experiment of a new run does not exist.
    """
    parent_run_id = os.environ.get("MLFLOW_RUN_ID")
    require_joinable({"resume": resumed} if resumed else params or {})
    new_name = None if parent_run_id or resumed else name
    run_id = _start(resumed, new_name)
    if parent_run_id and resumed:
        mlflow.MlflowClient().set_tag(parent_run_id, "resumed", resumed)
    try:
        if params is not None:
            log_params(run_id, params)
        yield run_id
    except BaseException:
        # The original error matters more than a tracking server that cannot receive the status.
        with contextlib.suppress(Exception), bounded_retries():
            mlflow.end_run("KILLED" if signals.received() else "FAILED")
        raise
    _finish(run_id, notify)


def _start(resumed: str | None, name: str | None) -> str:
    try:
        run_id: str = mlflow.start_run(run_id=resumed, run_name=name).info.run_id
    except MlflowException as error:
        if name is None or error.error_code not in NOT_FOUND:
            raise
        # A workspace of MLflow has no default experiment.
        raise ExperimentUnusable(os.environ.get("MLFLOW_EXPERIMENT_ID", "0"), "there is none with this id") from error
    return run_id


def _finish(run_id: str, notify: Notify) -> None:
    def send() -> None:
        if mlflow.active_run() is not None:
            mlflow.end_run("FINISHED")
        else:  # an earlier try failed, and MLflow has forgotten which run was active
            mlflow.MlflowClient().set_terminated(run_id, "FINISHED")

    with bounded_retries():
        retry_through_outages(send, notify, "the end of the run")


def require_joinable(params: Mapping[str, Any]) -> None:
    """Check that the run of MLFLOW_RUN_ID, if it is set, is one that `mlflow run` started for a command.

    Args:
        params: The parameters of the command; those that the run has must be equal.

    Raises:
        RelativeStore: If `mlflow run` uses another SQLite file than this process would open.
        RunNotJoinable: If there is no such run, it is not running, or has other parameters. The variable was then left
            by something else, and the command would write into an unrelated run.
    """
    require_store()
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in NOT_FOUND:
            raise
        raise RunNotJoinable(run_id, "does not exist") from error
    if run.info.lifecycle_stage != "active":
        raise RunNotJoinable(run_id, "is deleted")
    if run.info.status != "RUNNING":
        raise RunNotJoinable(run_id, f"is {run.info.status}")
    for name, value in params.items():
        logged = run.data.params.get(name)
        if logged is not None and not _agrees(logged, value):
            raise RunNotJoinable(run_id, f"has {name}={logged} instead of {value}")


def _agrees(logged: str, value: Any) -> bool:
    """Return whether a parameter that `mlflow run` logged, as the user wrote it, has this value."""
    try:
        # MLflow quotes the parameters of a project for the shell, and logs them so.
        written = " ".join(shlex.split(logged))
        if written.lower() == str(value).lower() or (value is None and written == "auto"):
            return True
        return float(written) == float(value)
    except (TypeError, ValueError):
        return False


def require_store() -> None:
    """Check that this process opens the SQLite file of `mlflow run`, if that started it. Raises RelativeStore."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    uri = mlflow.get_tracking_uri()
    path = uri.removeprefix("sqlite:///")
    if not run_id or path == uri or Path(path).is_absolute():
        return
    with contextlib.suppress(MlflowException):
        if Path(path).exists() and mlflow.get_run(run_id):
            return
    raise RelativeStore(uri, str(Path.cwd()))


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log the parameters that the run does not have yet; `mlflow run` has logged those that the user gave."""
    logged = mlflow.get_run(run_id).data.params
    mlflow.log_params({name: value for name, value in params.items() if name not in logged})


def log_settings(run_id: str, settings: dict[str, Any], file: str) -> None:
    """Log settings as `CONFIG_FILE`, `SEARCH_FILE` or `BEST_FILE` of the run. Raises ArtifactsBehindServer."""
    check_artifact_uri(mlflow.get_run(run_id).info.artifact_uri)
    mlflow.log_dict(settings, file, run_id)


def load(run_id: str, file: str) -> dict[str, Any]:
    """Return the content of `CONFIG_FILE` or `SEARCH_FILE` of an unfinished run.

    Raises:
        NotResumable: If the run does not exist, finished, or has no such file.
        ArtifactsBehindServer: If its artifacts are reached through another MLflow server.
    """
    try:
        run = mlflow.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in NOT_FOUND:
            raise
        raise NotResumable(run_id, "there is no such run.") from error
    if run.info.status == "FINISHED":
        raise NotResumable(run_id, "it finished. Start from its policy: python -m pipeline train --from models:/NAME/N")
    check_artifact_uri(run.info.artifact_uri)
    try:
        content: dict[str, Any] = yaml.safe_load(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{file}"))
    except (MlflowException, OSError) as error:
        kind = "training run" if file == CONFIG_FILE else "search"
        raise NotResumable(run_id, f"it has no {file}, so it was not a {kind}.") from error
    return content


def start_child(parent_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Create a child run with parameters, `config.yaml` and tags, and return its id."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(parent_id).info.experiment_id
    run_id: str = client.create_run(
        experiment_id, tags={MLFLOW_PARENT_RUN_ID: parent_id, **tags}, run_name=name
    ).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
    client.log_dict(run_id, dict(params), CONFIG_FILE)
    return run_id


def children(parent_id: str) -> list[Run]:
    """Return the child runs of a run, the oldest first."""
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(parent_id).info.experiment_id
    condition = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}'"
    return list(client.search_runs([experiment_id], condition, max_results=50_000, order_by=["start_time ASC"]))


def log_origin(run_id: str, model_uri: str, model_id: str | None) -> None:
    """Log the registered policy that training starts from, as a tag and as an input of the run."""
    client = mlflow.MlflowClient()
    client.set_tag(run_id, _ORIGIN_TAG, model_uri)
    if model_id:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])


def origin_of(run_id: str) -> str | None:
    """Return the URI of the registered policy that a run started from, or None."""
    uri: str | None = mlflow.get_run(run_id).data.tags.get(_ORIGIN_TAG)
    return uri


def model_id_of(name: str, version: int) -> str | None:
    """Return the id of the logged model of a version, from its source: MLflow's stores leave `model_id` empty."""
    found = mlflow.MlflowClient().get_model_version(name, str(version))
    logged = re.fullmatch(r"models:/(m-\w+)", found.source or "")
    return found.model_id or (logged[1] if logged else None)


def log_evaluation(run_id: str, evaluation: "Evaluation", model_id: str | None) -> None:
    """Log the statistics and the returns (step = episode) of an evaluation, linked to a logged model."""
    mlflow.log_metrics(statistics(evaluation), model_id=model_id)
    now = int(time.time() * 1000)
    returns = [
        Metric("evaluation/return", value, now, episode, model_id=model_id, run_id=run_id)
        for episode, value in enumerate(evaluation.returns)
    ]
    mlflow.MlflowClient().log_batch(run_id, metrics=returns)


def statistics(evaluation: "Evaluation") -> dict[str, float]:
    """Return the metrics of an evaluation by name."""
    return {
        "evaluation/return_mean": evaluation.mean,
        "evaluation/return_std": evaluation.std,
        "evaluation/return_min": evaluation.minimum,
        "evaluation/episodes": float(len(evaluation.returns)),
    }


def version_tags(evaluation: "Evaluation") -> dict[str, str]:
    """Return the tags of a model version for an evaluation, such as `evaluation.return_mean`."""
    return {name.replace("/", "."): f"{value:g}" for name, value in statistics(evaluation).items()}
