import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve

from serving import app
from serving.app import Arguments, build
from serving.ray import settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "configure", lambda *_, **__: None)


def deployment_of(application: Any) -> Any:
    return application._bound_deployment


def test_serve_finds_the_type_of_the_arguments() -> None:
    assert inspect.signature(build).parameters["arguments"].annotation is Arguments


@pytest.mark.usefixtures("store")
def test_autoscaling_becomes_that_of_the_deployment() -> None:
    arguments = Arguments.model_validate({"autoscaling": {"max_replicas": 4, "target_ongoing_requests": 3}})
    scaling = deployment_of(build(arguments))._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 3)


def test_the_config_file_names_arguments_that_exist() -> None:
    config = yaml.safe_load((Path(app.__file__).parent / "config.yaml").read_text())
    (application,) = config["applications"]
    assert application["import_path"] == "serving.app:build"
    assert Arguments.model_validate(application["args"]).autoscaling is not None
    assert (config["proxy_location"], config["http_options"]["host"]) == ("EveryNode", "0.0.0.0")


@pytest.mark.usefixtures("store")
def test_arguments_become_options_of_the_deployment() -> None:
    deployment = deployment_of(build(Arguments(num_replicas=3, max_ongoing_requests=7)))
    assert isinstance(deployment, serve.Deployment)
    assert (deployment.name, deployment.num_replicas) == ("policy", 3)
    assert deployment.max_ongoing_requests > 7, (
        "requests above the limit must reach the application, which rejects them"
    )
    assert deployment._deployment_config.max_surge_percent == 100, "a release must not take replicas out of service"
    assert deployment.logging_config["enable_access_log"] is False


def test_the_replica_gets_an_absolute_uri_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    arguments, _ = deployment_of(build(Arguments(auth_token_file="token", cache_dir="cache"))).init_args
    assert arguments.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert arguments.auth_token_file == f"{tmp_path}/token"
    assert arguments.cache_dir == f"{tmp_path}/cache"


@pytest.mark.parametrize("given", [{}, {"registry_uri": "sqlite:///registry.db", "workspace": "team"}])
def test_the_replica_gets_the_registry_and_the_workspace_of_the_command(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///other.db" if given else "sqlite:///registry.db")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "other" if given else "team")
    arguments, _ = deployment_of(build(Arguments.model_validate(given))).init_args
    assert (arguments.registry_uri, arguments.workspace) == (f"sqlite:///{tmp_path}/registry.db", "team")


def test_the_password_of_the_registry_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "postgresql+psycopg2://robot:secret@127.0.0.1/registry")
    arguments, _ = deployment_of(build(Arguments())).init_args
    assert arguments.registry_uri == "postgresql+psycopg2://robot@127.0.0.1/registry"


@pytest.mark.parametrize(("named", "expected"), [("MLFLOW_TRACKING_URI", None), ("MLFLOW_TRACKING_TOKEN", "shell")])
def test_a_tracking_uri_in_the_credentials_file_stays_out_of_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, expected: str | None
) -> None:
    (tmp_path / "credentials").touch(0o600)
    (tmp_path / "credentials").write_text(f"{named}=http://user:secret@mlflow:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://shell:5000")
    monkeypatch.chdir(tmp_path)
    arguments, _ = deployment_of(build(Arguments(credentials_file="credentials"))).init_args
    assert arguments.tracking_uri == (expected and f"http://{expected}:5000")
    assert arguments.credentials_file == f"{tmp_path}/credentials"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("given", "num_gpus"),
    [
        ({}, 0),
        ({"execution_provider": "cuda"}, 1),
        ({"execution_provider": "cuda", "gpus_per_replica": "0.25"}, 0.25),  # `serve run` passes text
    ],
)
def test_a_replica_reserves_a_cpu_and_with_cuda_its_share_of_a_gpu(given: dict[str, Any], num_gpus: float) -> None:
    deployment = deployment_of(build(Arguments.model_validate(given)))
    assert deployment.ray_actor_options == {"num_cpus": 1, "num_gpus": num_gpus}


def test_serve_stores_no_password_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:1")
    deployment = deployment_of(build(Arguments()))
    assert deployment.init_args[0].tracking_uri == "http://127.0.0.1:1"
    assert b"secret" not in pickle.dumps(deployment.init_args)
