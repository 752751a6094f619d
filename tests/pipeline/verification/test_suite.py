"""Trained policies of every kind pass the conformance suite: the served graph acts as RLlib does."""

import contextlib
import threading
import time
import warnings

import onnx
import pytest
import uvicorn
from click.testing import CliRunner

from pipeline.bundle import assemble as bundle
from pipeline.commands.evaluate import verify
from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.rllib.trainer import Trainer
from pipeline.verification.errors import ServerAnswered, ServesAnother
from pipeline.verification.over_http import VerifiedServer, check_over_http
from pipeline.verification.subject import Subject
from pipeline.verification.suite import check_in_process
from serving.arguments import Arguments
from serving.client.errors import ServerUnreachable
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.replica.auth import BearerToken
from tests.pipeline.cases import CASES, IN_SHORT
from tests.serving.asking import served
from tests.workshop import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

_TOKEN = "abc"

_SMALL = {
    "fcnet_hiddens": "8",
    "num_envs_per_env_runner": 4,
    "train_batch_size_per_learner": 64,
    "minibatch_size": 32,
    "num_epochs": 1,
}


@contextlib.contextmanager
def answering(policy_bundle):
    """Serve a bundle as version 3, without Ray Serve and with a token required, and yield the URL."""
    app = PolicyApp(served(policy_bundle), Arguments(max_body_bytes=64 << 20), token=BearerToken(_TOKEN))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


def trained(case, directory):
    """Train a case for one iteration into a directory, and return its bundle and environment."""
    settings = {"env_id": case, **CASES[case][0]}
    settings["env_id"] = settings["env_id"].replace("zoo:", "tests.pipeline.zoo:")
    settings |= {name: setting == "true" for name, setting in settings.items() if setting in ("true", "false")}
    config = TrainConfig.of(_SMALL | settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment = environments.describe(config.env_id, config.environment_kwargs, config.wrappers)
        with Trainer(config, environment) as trainer:
            next(trainer.iterations())
            trainer.save(directory / bundle.CHECKPOINT_DIRECTORY)
    bundle.assemble(directory, environment, config.value_estimates)
    return Bundle.read(directory), environment


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """A policy for CartPole: its directory, its bundle and its environment."""
    directory = tmp_path_factory.mktemp("cartpole")
    return directory, *trained("CartPole-v1", directory)


@pytest.mark.parametrize(
    "case", [case if case in IN_SHORT else pytest.param(case, marks=pytest.mark.conformance) for case in CASES]
)
def test_the_graph_acts_as_rllib_does(case, tmp_path):
    policy_bundle, environment = trained(case, tmp_path)
    checkpoint = tmp_path / bundle.CHECKPOINT_DIRECTORY
    subject = Subject(Policy.load(policy_bundle), checkpoint, environment, count=1000, seed=0)
    checks = list(check_in_process(subject))
    with answering(policy_bundle) as url:
        checks += check_over_http(subject, VerifiedServer(url, "cartpole-ppo", 3, _TOKEN))
        if case == "CartPole-v1":
            with pytest.raises(ServesAnother, match="serves cartpole-ppo version 3, not cartpole-ppo version 4"):
                list(check_over_http(subject, VerifiedServer(url, "cartpole-ppo", 4, _TOKEN)))
            with pytest.raises(ServerAnswered, match="answered 401"):
                list(check_over_http(subject, VerifiedServer(url, "cartpole-ppo", 3)))
    assert [check for check in checks if check.failure is not None] == []


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(ServerUnreachable, match=r"answers at http://127.0.0.1:1/x \(connection refused"):
        VerifiedServer("http://127.0.0.1:1/x", "x", 1).query(observation=[0])


def test_verify_reports_what_is_wrong_with_the_token_file(tmp_path):
    (tmp_path / "token").write_bytes(b"\xff")
    arguments = ["models:/x/1", "--url", "http://127.0.0.1:1/x", "--auth-token-file", str(tmp_path / "token")]
    result = CliRunner().invoke(verify, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot read a bearer token from {tmp_path}/token: it is not ASCII text.")


@pytest.mark.parametrize(
    ("operator", "instead", "failures"),
    [
        ("ArgMax", "ArgMin", ["actions differ by 1"] * 3 + ["samples are not from RLlib's distribution"]),
        ("Tanh", "Softsign", ["distribution inputs differ by"] * 3),
    ],
)
def test_a_graph_with_other_operators_fails_the_suite(operator, instead, failures, cartpole):
    directory, policy_bundle, environment = cartpole
    graph = onnx.load_from_string(policy_bundle.graph)
    for node in graph.graph.node:
        if node.op_type == operator:
            node.op_type = instead
    other = Policy.load(Bundle(graph.SerializeToString(), policy_bundle.policy))
    subject = Subject(other, directory / bundle.CHECKPOINT_DIRECTORY, environment, count=200, seed=0)
    found = [check.failure for check in check_in_process(subject) if check.failure is not None]
    assert all(expected in failure for expected, failure in zip(failures, found, strict=False))
    assert len(found) >= len(failures)
