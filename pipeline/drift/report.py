"""Writes the drift of a version to MLflow: one run per version, whose metrics have a point for each measurement."""

import os
import time
from dataclasses import asdict
from typing import Any

import mlflow
from mlflow.entities import LoggedModelInput, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.drift.chart import draw
from pipeline.drift.measure import Drift
from pipeline.tracking.run import NOT_FOUND, model_id_of
from serving.registry.tracking import check_artifact_uri

CHART, TABLE = "drift.png", "drift.json"
VERSION_TAG, STATE_TAG = "drift.version", "drift.digest"
"""The tags of a run: the version, such as `cartpole-ppo/3`, and the last measurement that was written."""

_NOTE = (
    "How far the observations of live episodes are from those of the version's final evaluation, written by "
    f"`pipeline drift`. `{CHART}` and `{TABLE}` are those of the last measurement; the metrics have all of them."
)


def report(drift: Drift) -> str:
    """Write a measurement to the run of its version, and return the run's id. Repeating it adds nothing twice.

    The metrics are linked to the logged model of the version, so MLflow shows them there as well.
    """
    client = mlflow.MlflowClient()
    version = client.get_model_version(drift.model, str(drift.version))
    model_id = model_id_of(drift.model, drift.version)
    run = _run(client, drift, version.run_id, model_id)
    run_id: str = run.info.run_id
    state = f"{drift.digest} {drift.comparison.alpha:g} {len(drift.live.sketches)} {drift.reference.episodes}"
    if run.data.tags.get(STATE_TAG) == state:
        return run_id
    check_artifact_uri(run.info.artifact_uri)
    step, now = drift.live.last_ns // 10**9, int(time.time() * 1000)
    metrics = [
        Metric(f"drift/{key}", value, now, step, model_id=model_id, run_id=run_id)
        for key, value in _figures(drift).items()
    ]
    client.log_batch(run_id, metrics=metrics)
    client.log_figure(run_id, draw(drift), CHART)
    client.log_dict(run_id, content(drift), TABLE)
    client.set_tag(run_id, STATE_TAG, state)
    return run_id


def content(drift: Drift) -> dict[str, Any]:
    """Return a measurement as JSON."""
    comparison = drift.comparison
    return {
        "model": drift.model,
        "version": drift.version,
        "alarm": comparison.alarms,
        "alpha": comparison.alpha,
        "p_value": comparison.p_value,
        "experience": drift.digest,
        "reference_episodes": drift.reference.episodes,
        "live_episodes": len(drift.live.sketches),
        "left_out": drift.live.left_out,
        "dimensions": [_finite(asdict(each)) | {"ratio": each.ratio} for each in comparison.dimensions],
    }


def _finite(content: dict[str, Any]) -> dict[str, Any]:
    """Return a dict with None in place of numbers that JSON does not have."""
    return {
        key: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not abs(value) < float("inf")
        else value
        for key, value in content.items()
    }


def _figures(drift: Drift) -> dict[str, float]:
    dimensions = drift.comparison.dimensions
    return {
        "ratio": drift.comparison.ratio,
        "alarm": float(drift.comparison.alarms),
        "p_value": drift.comparison.p_value,
        "psi_max": max(each.psi.value for each in dimensions),
        "distance_max": max(each.distance.value for each in dimensions),
        "dimensions": float(len({each.dimension for each in dimensions if each.ratio > 1})),
        "episodes": float(len(drift.live.sketches)),
    }


def _run(client: mlflow.MlflowClient, drift: Drift, trained_in: str | None, model_id: str | None) -> Run:
    """Return the run of a version, in the experiment of its training; create it if there is none."""
    experiment_id = _experiment_of(client, trained_in)
    value = f"{drift.model}/{drift.version}"
    quote = '"' if "'" in value else "'"
    found = client.search_runs([experiment_id], f"tags.`{VERSION_TAG}` = {quote}{value}{quote}", max_results=1)
    if found:
        return found[0]
    name = f"drift of {drift.model} version {drift.version}"
    run = client.create_run(experiment_id, tags={VERSION_TAG: value, MLFLOW_RUN_NOTE: _NOTE}, run_name=name)
    if model_id:
        client.log_inputs(run.info.run_id, models=[LoggedModelInput(model_id)])
    client.update_run(run.info.run_id, status="FINISHED")
    return run


def _experiment_of(client: mlflow.MlflowClient, run_id: str | None) -> str:
    default = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    if not run_id:
        return default
    try:
        return str(client.get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if error.error_code not in NOT_FOUND:
            raise
        return default
