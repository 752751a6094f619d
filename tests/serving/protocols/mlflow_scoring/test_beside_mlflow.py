"""`/invocations` compared with MLflow's own scoring server, for the same versions and requests."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests

from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.registry.registry import fetch, resolve
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import Answer, served
from tests.serving.invocations import BUNDLES, CONTENT_TYPES, ONE, SAME, STRICTER, Sent, invoke
from tests.serving.store import Store
from tests.workshop import Workshop, answers, await_true, free_port

pytestmark = [
    pytest.mark.e2e,
    # MLflow only warns of values that this server rejects.
    pytest.mark.filterwarnings("ignore:overflow encountered in cast", "ignore:Constructing a DataFrame"),
]

MODEL = "invoked"


class Assembled(NamedTuple):
    """A bundle in a directory, as `python -m pipeline train` assembles it, without the checkpoint."""

    directory: Path
    environment: Any

    @classmethod
    def of(cls, bundle: Bundle, directory: Path) -> "Assembled":
        from pipeline.environments.make import Environment

        (directory / "checkpoint").mkdir(parents=True)
        (directory / "model.onnx").write_bytes(bundle.graph)
        (directory / "policy.json").write_bytes(bundle.policy)
        policy = Policy.load(bundle)
        spaces = policy.observation_space, policy.action_space
        environment = Environment(policy.environment.id, *spaces, reward_threshold=None, has_vector_entry_point=False)
        return cls(directory, environment)

    def register(self, experiment_id: str) -> str:
        """Return the URI of a new version of MODEL."""
        import mlflow

        from pipeline.bundle import mlflow_flavor as bundles

        with mlflow.start_run(experiment_id=experiment_id) as run:
            model_id = bundles.log(self.directory, self.environment, run.info.run_id, step=0)
            return f"models:/{MODEL}/{bundles.register(self.directory, model_id, MODEL, {}, 'a card')}"

    def save(self, path: Path) -> str:
        """Return the path of an MLflow model that is not registered."""
        from mlflow.models import Model

        from pipeline.bundle import mlflow_flavor as bundles

        bundles.save_model(str(path), Model(), self.directory, self.environment)
        return str(path)


@pytest.fixture(scope="module")
def version(shared_store: Store) -> Iterator[str]:
    """The URI of a registered version of "exploring"."""
    import mlflow

    directory = shared_store.directory / MODEL
    mlflow.set_tracking_uri(shared_store.uri)
    experiment_id = mlflow.create_experiment(MODEL, (directory / "artifacts").as_uri())
    yield Assembled.of(BUNDLES["exploring"], directory / "assembled").register(experiment_id)
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def peer(version: str, shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of `mlflow models serve` for that version. It takes seconds to start."""
    port = free_port()
    shop = Workshop(tmp_path_factory.mktemp("peer"), {"MLFLOW_TRACKING_URI": shared_store.uri})
    command = ("--model-uri", version, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port))
    shop.start(sys.executable, "-m", "mlflow", "models", "serve", *command)
    yield f"http://127.0.0.1:{port}"
    shop.end()


@pytest.fixture(scope="module")
def peers(peer: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:  # noqa: ARG001 - it starts in the meantime
    """MLflow's scoring server for each bundle, in this process."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    directory = tmp_path_factory.mktemp("peers")
    saved = {
        name: Assembled.of(bundle, directory / name).save(directory / f"{name}-saved")
        for name, bundle in BUNDLES.items()
    }
    return {name: scoring_server.init(mlflow.pyfunc.load_model(path)) for name, path in saved.items()}


def assert_same(ours: Answer, theirs: Answer) -> None:
    assert ours.status == theirs.status, (ours.body, theirs.body)
    if ours.status == 200:
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        assert same(ours.json(), theirs.json()), (ours.body, theirs.body)


def same(ours: Any, theirs: Any) -> bool:
    """Compare the keys, shapes and values of nested predictions, floats with a tolerance."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
    return np.shape(ours) == np.shape(theirs) and np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("name", "request_"), SAME, ids=[f"{name} {json.dumps(each)[:60]}" for name, each in SAME])
def test_responses_and_statuses_equal_mlflows(peers: dict[str, Any], name: str, request_: Any) -> None:
    body = json.dumps(request_).encode()
    assert_same(invoke(PolicyApp(served(BUNDLES[name])), body), invoke(peers[name], body))


@pytest.mark.parametrize(("name", "request_", "reason"), STRICTER, ids=[case[2][:40] for case in STRICTER])
def test_mlflow_accepts_values_that_this_server_rejects(
    peers: dict[str, Any], name: str, request_: Any, reason: str
) -> None:
    assert invoke(peers[name], json.dumps(request_).encode()).status == 200, reason


@pytest.mark.parametrize("sent", CONTENT_TYPES)
def test_mlflow_accepts_and_rejects_content_types_as_listed(peers: dict[str, Any], sent: Sent) -> None:
    assert invoke(peers["exploring"], sent.body, sent.content_type).status == sent.mlflow


def test_both_servers_give_the_same_responses_over_http(
    peer: str, version: str, serve_http: Callable[[Any], str], tmp_path: Path
) -> None:
    resolved = resolve(version)
    ours = serve_http(PolicyApp(ServedPolicy(Policy.load(fetch(resolved, tmp_path / "cache")), resolved)))
    await_true(lambda: answers(f"{peer}/ping"), "mlflow models serve answers")
    for path in ("/ping", "/version"):
        assert requests.get(ours + path).text == requests.get(peer + path).text
    for name, request in SAME:
        if name == "exploring":
            assert_same(*(posted(url, json.dumps(request)) for url in (ours, peer)))
    assert_same_through_the_client(ours, peer)


def posted(url: str, body: str) -> Answer:
    answer = requests.post(f"{url}/invocations", body, headers={"Content-Type": "application/json"})
    return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)


def assert_same_through_the_client(ours: str, peer: str) -> None:
    import mlflow
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    one, other = (ScoringServerClient(*url.removeprefix("http://").split(":")) for url in (ours, peer))
    one.ping()
    assert one.get_version() == mlflow.__version__
    for observations in (np.array([ONE, ONE]), pd.DataFrame([ONE], columns=list("abcd")), [ONE]):
        assert same(*(json.loads(client.invoke(observations).to_json()) for client in (one, other)))
