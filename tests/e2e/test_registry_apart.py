"""The model registry may be elsewhere than the tracking server, which keeps the files of its versions."""

import os
import re
from unittest import mock

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.bundle import mlflow_flavor
from pipeline.cli import cli
from pipeline.tracking import preconditions
from pipeline.tracking.errors import RegistryApart
from serving.arguments import Arguments
from serving.registry import tracking
from serving.registry.errors import DatabaseUnreachable, TrackingServerUnreachable
from serving.rollout.initial_policy import load_initial_policy
from tests.mlflow_servers import client_of, mlflow_server
from tests.serving.policies import CARTPOLE_BUNDLE

pytestmark = [pytest.mark.e2e, pytest.mark.long]

MODEL = "apart"


@pytest.fixture
def database(tmp_path, new_database):
    """The URI of an empty registry in a database."""
    new_database(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def log_model(directory):
    """Log the files of a policy to the tracking server, and return the id of the logged model."""
    (directory / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
    (directory / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
    client = mlflow.MlflowClient()
    logged = client.create_logged_model("0", "policy")
    client.log_model_artifacts(logged.model_id, str(directory))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id


@pytest.mark.parametrize("given", ["variable", "option"])
def test_a_registry_in_a_database_serves_files_of_the_tracking_server(tracked_workshop, database, tmp_path, given):
    variables = {"MLFLOW_REGISTRY_URI": database} if given == "variable" else {}
    option = f" --registry-uri {database}" if given == "option" else ""
    files = tmp_path / "files"
    files.mkdir()
    with client_of(tmp_path, tracked_workshop.environment["MLFLOW_TRACKING_URI"], variables):
        with mock.patch.dict(os.environ, {"MLFLOW_REGISTRY_URI": database}):
            mlflow_flavor.register(files, log_model(files), MODEL, {"seed": "0"}, "a card")
        for command in (
            f"promote 1 --name {MODEL} --episodes 2 --force",
            f"versions --name {MODEL}",
            f"history --name {MODEL}",
            f"evaluate models:/{MODEL}/1 --episodes 2",
        ):
            with mock.patch.dict(os.environ):
                done = CliRunner().invoke(cli, f"{command}{option}".split())
            assert done.exit_code == 0, done.output
        assert not mlflow.MlflowClient(registry_uri=tracking.tracking_uri()).search_model_versions(f"name='{MODEL}'")
        arguments = Arguments(model_uri=f"models:/{MODEL}/Production", registry_uri=database)
        served = load_initial_policy(arguments).served
    assert served.version.version == 1
    assert served.version.digests.items() >= CARTPOLE_BUNDLE.digests.items()


def test_a_registry_server_that_cannot_register_what_is_trained_is_found_before_training(
    tracked_workshop, tmp_path_factory
):
    with mlflow_server(tmp_path_factory.mktemp("other")) as other:
        here, there = (shop.environment["MLFLOW_TRACKING_URI"] for shop in (tracked_workshop, other))
        directory = tmp_path_factory.mktemp("client")
        apart = client_of(directory, here, {"MLFLOW_REGISTRY_URI": there})
        with apart, pytest.raises(RegistryApart, match="with another backend store"):
            preconditions.check(MODEL, {})
        # The same server at another address is no other server.
        with client_of(directory, here, {"MLFLOW_REGISTRY_URI": here.replace("127.0.0.1", "localhost")}):
            preconditions.check(MODEL, {})


@pytest.mark.parametrize(
    ("uri", "error"),
    [("http://127.0.0.1:1", TrackingServerUnreachable), ("postgresql+psycopg2://127.0.0.1:1/x", DatabaseUnreachable)],
)
def test_a_registry_that_does_not_answer_is_named_with_its_variable(tracked_workshop, tmp_path, uri, error):
    if uri.startswith("postgresql"):
        pytest.importorskip("psycopg2")
    with client_of(tmp_path, tracked_workshop.environment["MLFLOW_TRACKING_URI"], {"MLFLOW_REGISTRY_URI": uri}):
        for check in (tracking.check_registry, tracking.check_tracking_server):
            with pytest.raises(error, match=f"{re.escape(uri)} .*set MLFLOW_REGISTRY_URI to"):
                check()


def test_reading_a_registry_apart_needs_no_tracking_server(database, tmp_path):
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": database}):
        mlflow.set_tracking_uri(None)
        mlflow.MlflowClient().create_registered_model(MODEL)
        mlflow.MlflowClient().create_model_version(MODEL, str(tmp_path))
    with client_of(tmp_path, "http://127.0.0.1:1", {"MLFLOW_REGISTRY_URI": database}):
        done = CliRunner().invoke(cli, ["versions", "--name", MODEL])
    assert done.exit_code == 0, done.output
