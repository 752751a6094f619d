"""An MLflow run: its parameters, metrics, figures and how it ends."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from matplotlib.figure import Figure
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from pipeline.aftermath import keep_killed
from pipeline.errors import Interrupted, RelativeStore
from pipeline.evaluation import Evaluation

_SQLITE = "sqlite:///"

#: MLflow's limit of metrics in one request.
_BATCH = 1000


@contextlib.contextmanager
def run(name: str) -> Iterator[str]:
    """The MLflow run of a command: the one that `mlflow run` began, else a new one.

    It ends FINISHED, KILLED after a signal, or FAILED after any other exception.

    Args:
        name: Of a new run.

    Yields:
        The run's id.

    Raises:
        RelativeStore: If `mlflow run` means another SQLite file than this process would open.
    """
    parent_run_id = os.environ.get("MLFLOW_RUN_ID")
    if parent_run_id:
        _require_store_of(parent_run_id)
    run_id = mlflow.start_run(run_name=None if parent_run_id else name).info.run_id
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        mlflow.end_run(status)
        if parent_run_id and status == "KILLED":
            keep_killed(run_id)


def _require_store_of(run_id: str) -> None:
    uri = mlflow.get_tracking_uri()
    path = uri.removeprefix(_SQLITE)
    if not uri.startswith(_SQLITE) or Path(path).is_absolute():
        return
    with contextlib.suppress(MlflowException):
        if Path(path).exists() and mlflow.get_run(run_id):
            return
    raise RelativeStore(uri, str(Path.cwd()))


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log the parameters that the run does not have yet: `mlflow run` has logged those that it was given."""
    logged = mlflow.get_run(run_id).data.params
    mlflow.log_params({name: value for name, value in params.items() if name not in logged})


def log_metrics(metrics: Mapping[str, float], step: int) -> None:
    """Log the metrics of one step (environment steps since training began) in one request."""
    mlflow.log_metrics(dict(metrics), step=step)


def log_figure(figure: Figure, file: str) -> None:
    """Log a figure; one logged before under this name is replaced."""
    mlflow.log_figure(figure, f"figures/{file}")


def log_config(config: Mapping[str, Any]) -> None:
    """Log the resolved configuration as `config.yaml`."""
    mlflow.log_dict(dict(config), "config.yaml")


def log_evaluation(run_id: str, evaluation: Evaluation, model_id: str | None) -> None:
    """Log the statistics of an evaluation and each return (step = episode), linked to the model that played."""
    mlflow.log_metrics(statistics(evaluation), model_id=model_id)
    now = int(time.time() * 1000)
    returns = [
        Metric("evaluation/return", value, now, episode, model_id=model_id, run_id=run_id)
        for episode, value in enumerate(evaluation.returns)
    ]
    for start in range(0, len(returns), _BATCH):
        mlflow.MlflowClient().log_batch(run_id, metrics=returns[start : start + _BATCH])


def statistics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as metrics."""
    return {
        "evaluation/return_mean": evaluation.mean,
        "evaluation/return_std": evaluation.std,
        "evaluation/return_min": evaluation.minimum,
        "evaluation/episodes": float(len(evaluation.returns)),
    }


def version_tags(evaluation: Evaluation) -> dict[str, str]:
    """An evaluation as tags of a model version, as `evaluation.return_mean`."""
    return {name.replace("/", "."): f"{value:g}" for name, value in statistics(evaluation).items()}
