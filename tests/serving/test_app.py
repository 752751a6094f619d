import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray import serve

from serving import app
from serving.app import Arguments, build
from serving.ray import settings as engine


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "configure", lambda _: None)


def deployment_of(application: Any) -> Any:
    return application._bound_deployment


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Arguments.model_validate({"model_url": "models:/m/1"})


def test_arguments_are_typed_and_described() -> None:
    assert Arguments.model_validate({"num_replicas": "2"}).num_replicas == 2
    assert all(field.description for field in Arguments.model_fields.values())
    assert inspect.signature(build).parameters["arguments"].annotation is Arguments, "Serve reads it"


@pytest.mark.usefixtures("store")
def test_autoscaling_becomes_the_deployments() -> None:
    arguments = Arguments.model_validate({"autoscaling": {"max_replicas": 4, "target_ongoing_requests": 3}})
    scaling = deployment_of(build(arguments))._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 3)


def test_the_config_file_names_arguments_that_exist() -> None:
    config = yaml.safe_load((Path(app.__file__).parent / "config.yaml").read_text())
    (application,) = config["applications"]
    assert application["import_path"] == "serving.app:build"
    assert Arguments.model_validate(application["args"]).autoscaling is not None


@pytest.mark.usefixtures("store")
def test_arguments_become_the_deployments_settings() -> None:
    deployment = deployment_of(build(Arguments(num_replicas=3, max_ongoing_requests=7)))
    assert isinstance(deployment, serve.Deployment)
    assert (deployment.name, deployment.num_replicas) == ("policy", 3)
    assert deployment.max_ongoing_requests > 7, "requests past our limit must reach us, to be refused"
    assert deployment.logging_config["enable_access_log"] is False


def test_the_replica_gets_a_uri_and_a_path_that_mean_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    arguments, _ = deployment_of(build(Arguments(auth_token_file="token"))).init_args
    assert arguments.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert arguments.auth_token_file == f"{tmp_path}/token"


def test_arguments_survive_the_way_to_the_replica() -> None:
    assert pickle.loads(pickle.dumps(Arguments(num_threads=2))) == Arguments(num_threads=2)
    assert app.DEPLOYMENT_NAME == "policy"
