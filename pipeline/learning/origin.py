"""The settings of the registered policy that a training starts from."""

from typing import Any

import mlflow
import yaml
from mlflow.exceptions import MlflowException

from pipeline.config import BY_MACHINE
from pipeline.learning.errors import SettingsUnknown
from pipeline.tracking import run as tracking
from serving.registry.registry import resolve
from serving.registry.tracking import check_tracking_server

#: What belongs to a run and not to its policy.
_NOT_INHERITED = {"promote", "seed", "num_learners", *BY_MACHINE}


def settings_of(model_uri: str) -> dict[str, Any]:
    """Return the settings of the training of a registered policy: environment, wrappers, network, filter and PPO.

    Raises:
        ServingError: If the version cannot be resolved.
        SettingsUnknown: If its run or the file with the settings is gone.
    """
    check_tracking_server()
    version = resolve(model_uri)
    if not version.run_id:
        raise SettingsUnknown(version.pinned_uri, "it was not registered by a training run")
    settings = _read(version.run_id, version.pinned_uri)
    return {
        **{name: value for name, value in settings.items() if name not in _NOT_INHERITED},
        "registered_model_name": version.name,
    }


def _read(run_id: str, model_uri: str) -> dict[str, Any]:
    reason = ""
    for file in (tracking.CONFIG_FILE, tracking.BEST_FILE):
        try:
            artifacts = mlflow.get_run(run_id).info.artifact_uri
            content: dict[str, Any] = yaml.safe_load(mlflow.artifacts.load_text(f"{artifacts}/{file}"))
        except (MlflowException, OSError) as error:
            reason = reason or f"{file} of run {run_id}: {' '.join(str(error).split())}"
        else:
            return content
    raise SettingsUnknown(model_uri, reason)
