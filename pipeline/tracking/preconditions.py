"""Checks of MLflow before RLlib is loaded: what MLflow would otherwise refuse minutes later, or after training."""

import os
from collections.abc import Mapping
from typing import Any

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_EXPERIMENT_NAME_LENGTH

from pipeline.errors import InvalidConfig
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import ExperimentUnusable, LoggedModelsUnsupported, RegistryApart
from serving.registry.mlflow_api import mlflow_errors
from serving.registry.tracking import check_artifact_uri, check_tracking_server, is_remote

#: How MLflow reports that a server does not have a part of its API.
_NO_SUCH_PART = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")


def check(model: str, params: Mapping[str, Any]) -> None:
    """Check that a training with these parameters can be tracked, and its policy be registered as a model.

    Raises:
        RegistryError: If MLflow does not answer or cannot be used, or the artifact store needs a missing package.
        InvalidConfig: If MLflow does not accept the model's name.
        ExperimentUnusable: If the experiment does not exist or is deleted.
        LoggedModelsUnsupported: If the server is older than MLflow 3.
        RegistryApart: If the registry is a server that cannot register what the tracking server holds.
        RunNotJoinable, RelativeStore: If the run of MLFLOW_RUN_ID is not that of this training.
    """
    tracking.require_store()  # before a relative URI creates another file
    check_tracking_server()
    with mlflow_errors(mlflow.get_tracking_uri()):
        tracking.require_joinable(params)
        experiment = _experiment()
        if experiment is not None:
            check_artifact_uri(experiment.artifact_location)
        _check_logged_models(experiment)
        _check_registry(experiment)
        _check_model_name(model)


def check_resumable(run_id: str, file: str) -> None:
    """Check that an unfinished run can be resumed from its settings in `file`. Raises NotResumable, and as `check`."""
    tracking.require_store()
    check_tracking_server()
    with mlflow_errors(mlflow.get_tracking_uri()):
        tracking.require_joinable({"resume": run_id})
        tracking.load(run_id, file)


def _experiment() -> Experiment | None:
    """Return the experiment of a new run; None if MLflow will create it."""
    client = mlflow.MlflowClient()
    name, number = os.environ.get("MLFLOW_EXPERIMENT_NAME"), os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    if name is not None and not 0 < len(name) <= MAX_EXPERIMENT_NAME_LENGTH:
        raise ExperimentUnusable(name, f"its name has {len(name)} characters, of at most {MAX_EXPERIMENT_NAME_LENGTH}")
    try:
        experiment = client.get_experiment(number) if name is None else client.get_experiment_by_name(name)
    except MlflowException as error:
        if error.error_code not in tracking.NOT_FOUND:
            raise
        raise ExperimentUnusable(number, "there is none with this id") from error
    if experiment is not None and experiment.lifecycle_stage != "active":
        restore = f"it is deleted. Restore it: mlflow experiments restore -x {experiment.experiment_id}"
        raise ExperimentUnusable(experiment.name, restore)
    return experiment


def _check_logged_models(experiment: Experiment | None) -> None:
    try:
        mlflow.MlflowClient().search_logged_models([experiment.experiment_id if experiment else "0"], max_results=1)
    except MlflowException as error:
        if error.error_code in _NO_SUCH_PART:
            raise LoggedModelsUnsupported(mlflow.get_tracking_uri()) from error
        if experiment is not None:  # the default one may be deleted, or closed to this account
            raise


def _check_registry(experiment: Experiment | None) -> None:
    """Compare an experiment as the tracking server and a registry server apart from it know it."""
    registry, tracking_uri = mlflow.get_registry_uri(), mlflow.get_tracking_uri()
    if registry == tracking_uri or not is_remote(registry):
        return
    here = experiment or next(iter(mlflow.MlflowClient().search_experiments(max_results=1)), None)
    if here is None:
        return
    try:
        there = mlflow.MlflowClient(registry).get_experiment(here.experiment_id)
    except MlflowException as error:
        if error.error_code not in tracking.NOT_FOUND:
            return  # an account may be refused to read it, or the gateway passes the registry's paths only
        there = None
    if there is None or there.creation_time != here.creation_time:
        raise RegistryApart(registry, tracking_uri)


def _check_model_name(name: str) -> None:
    """Have MLflow look for the model, for which it checks the name first."""
    try:
        mlflow.MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            expected = f"a name that MLflow accepts: {error.message.rstrip('.')}"
            raise InvalidConfig("registered_model_name", name, expected) from error
        # An account without access to a model that does not exist may still be permitted to create it.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"):
            raise
