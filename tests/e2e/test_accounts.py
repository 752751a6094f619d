"""What an MLflow account needs for each command, with MLflow's own accounts and workspaces; reading writes nothing."""

import os
import re

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.bundle import mlflow_flavor
from pipeline.cli import cli
from pipeline.registry import history
from pipeline.registry.target import Target
from pipeline.tracking import checkpoint_store
from pipeline.tracking import run as tracking_run
from serving.arguments import Arguments
from serving.registry import tracking
from serving.registry.access import open_registry
from serving.registry.errors import AccessDenied, WorkspaceUnusable
from serving.rollout.initial_policy import load_initial_policy
from tests.mlflow_servers import ADMIN, client_of, mlflow_server
from tests.pipeline.commands.test_unreliable_mlflow import register
from tests.pipeline.experience.online.conftest import Recorder
from tests.pipeline.experience.recording import MODEL as RECORDED
from tests.serving.policies import CARTPOLE_BUNDLE

pytestmark = [pytest.mark.e2e, pytest.mark.long]

MODEL, WORKSPACE = "guarded", "team"


class Accounts:
    """An MLflow server with accounts and workspaces.

    Its workspace `team` has a model of three versions, the second with the alias `steady`, and an experiment; both are
    MODEL. `reader` may read both, `editor` may edit both, `registrar` may edit the model, and `stranger`
    may do nothing.
    """

    def __init__(self, shop):
        self.shop = shop
        self.uri = shop.environment["MLFLOW_TRACKING_URI"]

    def variables(self, name, workspace=WORKSPACE):
        """Return MLflow's variables of an account in a workspace."""
        user = {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": f"a-password-of-{name}"}
        user = ADMIN if name == "admin" else user
        chosen = {"MLFLOW_WORKSPACE": workspace} if workspace else {}
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": MODEL, **user, **chosen}

    def account(self, name, directory, workspace=WORKSPACE):
        """Return a context that makes this process a client with an account."""
        return client_of(directory, self.uri, self.variables(name, workspace))

    def prepare(self, directory):
        from mlflow.server import get_app_client

        with self.account("admin", directory, workspace=None):
            mlflow.create_workspace(WORKSPACE)
        with self.account("admin", directory):
            client, users = mlflow.MlflowClient(), get_app_client("basic-auth", tracking_uri=self.uri)
            experiment = client.create_experiment(MODEL)
            client.create_registered_model(MODEL)
            for _ in range(3):
                register(client, experiment, MODEL)
            Target(MODEL, "Production").assign(1)
            history.record(Target(MODEL, "Production"), 1, "promotion", "")
            Target(MODEL, "Production").assign(2)  # by hand: no command has recorded it
            Target(MODEL, "steady", is_alias=True).assign(2)
            for name, permission in (("reader", "READ"), ("editor", "EDIT"), ("stranger", None)):
                users.create_user(name, f"a-password-of-{name}")
                for kind, key in (("experiment", experiment), ("registered_model", MODEL)) if permission else ():
                    users.grant_user_permission(name, kind, key, permission)
            users.create_user("registrar", "a-password-of-registrar")
            users.grant_user_permission("registrar", "registered_model", MODEL, "EDIT")

    def requests(self):
        """Return the method and path of each request that the server has answered so far."""
        return re.findall(r'"([A-Z]+ [^ ?]+)[^"]*" \d{3}', self.shop.output("mlflow-server.log"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("accounts")
    with mlflow_server(directory, "--enable-workspaces", accounts=True) as shop:
        found = Accounts(shop)
        found.prepare(tmp_path_factory.mktemp("admin"))
        yield found


def run(*arguments):
    return CliRunner().invoke(cli, [word for argument in arguments for word in argument.split()])


def test_reading_needs_read_and_sends_nothing_that_writes(server, tmp_path):
    before = len(server.requests())
    with server.account("reader", tmp_path):
        for command in ("versions", "history", "history --alias champion"):
            done = run(command, f"--name {MODEL}")
            assert done.exit_code == 0, done.output
        served = load_initial_policy(Arguments(model_uri=f"models:/{MODEL}@steady"))
        version = served.admission.registry.poll(f"models:/{MODEL}@steady")
    assert served.served.version.version == version.version == 2
    sent = server.requests()[before:]
    assert len(sent) > 5
    assert not [each for each in sent if not re.search(r"^GET |/(search|get-latest-versions)$", each)]


@pytest.mark.parametrize(
    "command",
    [
        f"promote 3 --episodes 2 --force --name {MODEL}",
        f"promote 3 --stage Staging --name {MODEL}",
        f"promote 3 --episodes 2 --force --alias champion --name {MODEL}",
        f"rollback --name {MODEL}",
        f"evaluate models:/{MODEL}/1 --episodes 2",
    ],
)
def test_an_account_that_may_only_read_is_refused_in_one_line(server, tmp_path, command):
    with server.account("reader", tmp_path):
        done = run(command)
    (line,) = done.stderr.splitlines()
    assert (done.exit_code, "does not permit reader to do this" in line, "a-password" in line) == (1, True, False)


def test_a_model_that_the_account_may_not_read_is_not_called_unknown(server, tmp_path):
    with server.account("stranger", tmp_path), pytest.raises(AccessDenied, match="does not permit stranger"):
        open_registry(server.uri).resolve(f"models:/{MODEL}/1")


def test_promotion_rollback_and_evaluation_need_edit(server, tmp_path):
    alias = Target(MODEL, "edited", is_alias=True)
    with server.account("editor", tmp_path):
        for command in (
            f"promote 1 --episodes 2 --force --alias edited --name {MODEL}",
            f"promote 2 --episodes 2 --force --alias edited --name {MODEL}",
            f"rollback --alias edited --name {MODEL}",
            f"promote 3 --stage Staging --name {MODEL}",
            f"evaluate models:/{MODEL}/1 --episodes 2",
        ):
            done = run(command)
            assert done.exit_code == 0, done.output
        assert [(each.version, each.by) for each in history.events(alias)] == [
            (1, "editor"),
            (2, "editor"),
            (1, "editor"),
        ]


def test_commands_without_a_run_need_no_permission_on_the_experiment(server, tmp_path):
    with server.account("registrar", tmp_path):
        for command in (
            "versions",
            "promote 3 --stage Staging",
            "promote 1 --stage Staging",
            "rollback --stage Staging",
        ):
            done = run(command, f"--name {MODEL}")
            assert done.exit_code == 0, done.output
        assert run("history --stage Staging", f"--name {MODEL}").exit_code == 0
        assert "does not permit registrar" in run(f"promote 1 --name {MODEL} --force --alias x").output


def test_training_keeps_all_checkpoints_of_a_store_that_refuses_deletions_and_says_so_once(server, tmp_path):
    notes = []
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_text("0")
    with server.account("editor", tmp_path), tracking_run.run("train", {"seed": 0}) as run_id:
        for env_steps in (1000, 2000, 3000, 4000):
            checkpoint_store.pack(tmp_path / "checkpoint", tmp_path / "checkpoint.tar", env_steps)
            checkpoint_store.upload(run_id, tmp_path / "checkpoint.tar", notes.append)
        assert checkpoint_store.restore_newest(run_id, tmp_path / "restored") == 4000
        assert len(mlflow.MlflowClient().list_artifacts(run_id, "checkpoints")) == 8
    assert len(notes) == 1
    assert "does not delete old checkpoints (status 403" in notes[0]


def test_an_account_that_may_create_no_models_registers_a_version_of_one_that_exists(server, tmp_path):
    (tmp_path / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
    (tmp_path / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
    with server.account("editor", tmp_path):
        client = mlflow.MlflowClient()
        logged = client.create_logged_model(client.get_experiment_by_name(MODEL).experiment_id, "policy")
        client.finalize_logged_model(logged.model_id, "READY")
        number = mlflow_flavor.register(tmp_path, logged.model_id, MODEL, {"seed": "0"}, "a card")
        again = mlflow_flavor.register(tmp_path, logged.model_id, MODEL, {"seed": "0"}, "a card")
        version = client.get_model_version(MODEL, str(number))
        assert (version.description, version.tags["seed"], again) == ("a card", "0", number)
        assert str(number) in client.get_logged_model(logged.model_id).tags["mlflow.modelVersions"]
        with pytest.raises(mlflow.exceptions.MlflowException, match="403"):
            mlflow_flavor.register(tmp_path, logged.model_id, "another", {}, "a card")


def test_a_report_of_the_online_return_needs_edit_and_writes_nothing_without_it(server, tmp_path):
    recorder = Recorder(tmp_path / "experience")
    recorder.record((1, 9000.0, 10.0), (1, 8000.0, 20.0))
    with server.account("admin", tmp_path):
        from mlflow.server import get_app_client

        client = mlflow.MlflowClient()
        client.create_registered_model(RECORDED)
        register(client, client.get_experiment_by_name(MODEL).experiment_id, RECORDED)
        users = get_app_client("basic-auth", tracking_uri=server.uri)
        users.grant_user_permission("reader", "registered_model", RECORDED, "READ")
        users.grant_user_permission("editor", "registered_model", RECORDED, "EDIT")
    command = f"experience report {tmp_path}/experience"
    with server.account("reader", tmp_path):
        done = run(command)
        assert (done.exit_code, "does not permit reader to do this" in done.stderr) == (1, True)
        assert len(done.stderr.splitlines()) == 1
        assert not client.get_registered_model(RECORDED).tags
    with server.account("editor", tmp_path):
        done = run(command)
        assert done.exit_code == 0, done.output
        assert client.get_model_version(RECORDED, "1").tags["online.return"] == "15"


def test_a_model_of_a_workspace_is_found_there_only(server, tmp_path):
    uri = f"models:/{MODEL}@steady"
    with server.account("editor", tmp_path):
        assert run(f"versions --name {MODEL}").exit_code == 0
    with server.account("admin", tmp_path, workspace=None):
        done = run(f"versions --name {MODEL}")
        assert (done.exit_code, f"No model '{MODEL}' is registered" in done.output) == (1, True)
        # Of two servers on one cluster, each may serve the model of another workspace.
        found = load_initial_policy(Arguments(model_uri=uri, workspace=WORKSPACE))
        assert found.served.version.version == 2


def test_without_an_experiment_in_the_workspace_the_error_names_the_variable(server, tmp_path):
    with server.account("admin", tmp_path):
        del os.environ["MLFLOW_EXPERIMENT_NAME"]
        done = run(f"evaluate models:/{MODEL}/1 --episodes 2")
        assert "MLFLOW_EXPERIMENT_NAME names another one" in done.output


@pytest.mark.parametrize("command", ["tune", f"versions --name {MODEL}", f"evaluate models:/{MODEL}/1"])
def test_a_workspace_that_does_not_exist_is_named(server, tmp_path, command):
    with server.account("editor", tmp_path, workspace="nowhere"):
        done = run(command)
    assert "cannot use the workspace 'nowhere' (Workspace 'nowhere' not found)" in done.output


def test_a_workspace_on_a_server_without_workspaces_is_an_error(tracked_workshop, tmp_path):
    uri = tracked_workshop.environment["MLFLOW_TRACKING_URI"]
    with (
        client_of(tmp_path, uri, {"MLFLOW_WORKSPACE": WORKSPACE}),
        pytest.raises(WorkspaceUnusable, match="not enabled"),
    ):
        tracking.check_tracking_server()
