"""Every command reaches MLflow through the gateways that teams put before it, with MLflow's own settings."""

import os

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.registry import history
from pipeline.registry.history import Event
from pipeline.registry.target import Target
from serving.registry import registry, tracking
from serving.registry.access import open_registry
from serving.registry.errors import CredentialsRejected, RegistryFailed, TrackingServerUnreachable
from tests.mlflow_servers import PASSWORD, PREFIX, TOKEN, client_of, gateways
from tests.pipeline.commands.test_unreliable_mlflow import register
from tests.serving.policies import CARTPOLE_BUNDLE

pytestmark = pytest.mark.e2e

MODEL = "behind-gateways"


@pytest.fixture(scope="module")
def behind(tracked_workshop, tmp_path_factory):
    """Gateways before an MLflow server that has two versions of a model."""
    client = tracked_workshop.client()
    experiment = client.create_experiment(MODEL)
    client.create_registered_model(MODEL)
    for _ in range(2):
        register(client, experiment, MODEL)
    with gateways(tmp_path_factory.mktemp("gateways"), tracked_workshop.environment["MLFLOW_TRACKING_URI"]) as found:
        yield found


@pytest.mark.parametrize("name", ["tls", "insecure", "mutual_tls", "basic", "bearer", "prefix", "strict"])
def test_the_commands_of_the_registry_and_the_server_pass_the_gateway(behind, tmp_path, name):
    url, needed = behind.needs[name]
    with client_of(tmp_path, url, {**needed, "MLFLOW_EXPERIMENT_NAME": MODEL}):
        tracking.check_tracking_server()
        # An interrupted promotion has left an event that never came true, which the next one would delete.
        left = Event(history.now(), 2, "somebody", "promotion", "")
        history._write(Target(MODEL, name, is_alias=True), left, confirmed=False)
        for command in (
            f"promote 1 --name {MODEL} --episodes 2 --force --alias {name}",
            f"promote 2 --name {MODEL} --episodes 2 --force --alias {name}",
            f"rollback --name {MODEL} --alias {name}",
            f"versions --name {MODEL}",
            f"history --name {MODEL} --alias {name}",
            f"evaluate models:/{MODEL}/1 --episodes 2",
        ):
            done = CliRunner().invoke(cli, command.split())
            assert done.exit_code == 0, done.output
        server = open_registry(os.environ["MLFLOW_TRACKING_URI"])
        version = server.resolve(f"models:/{MODEL}@{name}")
        assert version.version == server.poll(f"models:/{MODEL}@{name}").version == 1
        assert server.fetch(version, tmp_path) == CARTPOLE_BUNDLE


@pytest.mark.parametrize(
    ("name", "lacking", "expected", "message"),
    [
        (
            "tls",
            "MLFLOW_TRACKING_SERVER_CERT_PATH",
            TrackingServerUnreachable,
            r"certificate verify failed: .*; MLFLOW_TRACKING_SERVER_CERT_PATH names a certificate to trust",
        ),
        (
            "mutual_tls",
            "MLFLOW_TRACKING_CLIENT_CERT_PATH",
            TrackingServerUnreachable,
            r"certificate required; MLFLOW_TRACKING_CLIENT_CERT_PATH names a certificate of the client",
        ),
        (
            "basic",
            "MLFLOW_TRACKING_PASSWORD",
            CredentialsRejected,
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_P",
        ),
        ("bearer", "MLFLOW_TRACKING_TOKEN", CredentialsRejected, "or MLFLOW_TRACKING_TOKEN"),
        ("prefix", PREFIX, RegistryFailed, "status 404 for /api/2.0/mlflow/"),
    ],
)
def test_the_error_names_the_setting_that_is_missing(behind, tmp_path, name, lacking, expected, message):
    url, needed = behind.needs[name]
    variables = {variable: value for variable, value in needed.items() if variable != lacking}
    with client_of(tmp_path, url.removesuffix(lacking), variables):
        with pytest.raises(expected, match=message) as caught:
            _reach()
        assert len(str(caught.value).splitlines()) == 1
        assert not any(secret in str(caught.value) for secret in (PASSWORD, TOKEN))


def _reach():
    tracking.check_tracking_server()
    registry.resolve(f"models:/{MODEL}/1")


def test_a_token_is_not_sent_while_a_user_and_a_password_are_set(behind, tmp_path):
    url, token = behind.needs["bearer"]
    _, user = behind.needs["basic"]
    with client_of(tmp_path, url, token | user), pytest.raises(CredentialsRejected):
        tracking.check_tracking_server()


def test_settings_that_contradict_each_other_are_named(behind, tmp_path):
    url, authority = behind.needs["tls"]
    both = authority | {"MLFLOW_TRACKING_INSECURE_TLS": "true"}
    with client_of(tmp_path, url, both), pytest.raises(RegistryFailed, match="only one of these environment variables"):
        tracking.check_tracking_server()
