"""Several applications on one real Ray cluster: those of two teams' config files, and a server that joins it."""

import re
import signal
import sys
from collections.abc import Iterator

import grpc
import pytest
import requests
import yaml

from serving.protocols.open_inference.protos import inference_pb2 as pb
from tests.serving.grpc_stub import Stub
from tests.serving.policies import CONTRARY_BUNDLE
from tests.serving.ray.head import Head
from tests.serving.store import Store
from tests.workshop import PROJECT, answers, await_true, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.long]

TILTED = {"observation": [0, 0, 1, 0]}
PAGE = PROJECT / "docs" / "how-to" / "run-several-policies.md"


@pytest.fixture(scope="module")
def head(shared_store: Store) -> Iterator[Head]:
    """A cluster on which the applications of the how-to guide run."""
    shared_store.register("several", stage="Production")
    shared_store.register("several", CONTRARY_BUNDLE, stage="Staging")
    shared_store.register("alone")
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    applications = yaml.safe_load(example)["applications"]
    for each in applications:
        each["args"] = {"model_uri": each["args"]["model_uri"].replace("cartpole-ppo", "several")}
    applications[1]["args"]["autoscaling"] = {"max_replicas": 3}
    with Head(shared_store.uri, cpus=6) as head:
        deployed = head.deploy(head.write("first.yaml", *applications))
        assert deployed.returncode == 0, deployed.stderr
        yield head


def test_two_applications_serve_the_production_and_the_staging_version_of_one_model(head: Head) -> None:
    found = [
        requests.post(head.url(f"cartpole-{stage}"), json=TILTED, timeout=10) for stage in ("production", "staging")
    ]
    assert [(each.json(), each.headers["X-Model-Version"]) for each in found] == [
        ({"action": 1}, "1"),
        ({"action": 0}, "2"),
    ]


def test_grpc_clients_choose_the_application_by_its_name(head: Head) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{head.grpc_port}") as channel:
        found = []
        for name in ("cartpole-production", "cartpole-staging"):
            request, metadata = pb.ModelMetadataRequest(name="several"), [("application", name)]
            answer = Stub(channel).ModelMetadata(request, metadata=metadata, timeout=10, wait_for_ready=True)
            found.append(list(answer.versions))
    assert found == [["1"], ["2"]]


def test_metrics_say_which_application_deployment_replica_and_model_they_are_of(head: Head) -> None:
    ids = {name: next(iter(head.replicas(f"cartpole-{name}"))) for name in ("production", "staging")}

    def labels() -> dict[str, dict[str, str]]:
        text = requests.get(f"http://127.0.0.1:{head.metrics_port}/metrics", timeout=10).text
        lines = re.findall(r"^ray_policy_model_version\{(.*)\} ", text, flags=re.MULTILINE)
        found = [dict(re.findall(r'(\w+)="(.*?)"', line)) for line in lines]
        return {each.get("application", ""): each for each in found}

    await_true(lambda: {f"cartpole-{name}" for name in ids} <= labels().keys(), "both are exported", 60)
    for name, replica in ids.items():
        found = labels()[f"cartpole-{name}"]
        assert (found["deployment"], found["replica"], found["model"]) == ("policy", replica, "several")


def test_an_autoscaled_replica_knows_how_many_run_at_present(head: Head) -> None:
    def numbers() -> set[int]:
        return {model["replica"]["of"] for model in head.replicas("cartpole-staging").values()}

    await_true(lambda: numbers() == {1}, "Serve tells it", 30)


def test_another_teams_file_leaves_these_applications_as_they_are(head: Head) -> None:
    before = [head.replicas(f"cartpole-{stage}").keys() for stage in ("production", "staging")]
    team = head.write("team.yaml", {"name": "team", "args": {"model_uri": "models:/alone/latest"}})
    assert "team: deploying release 0" in head.deploy(team).stdout
    assert requests.post(head.url("team"), json=TILTED, timeout=10).json() == {"action": 1}
    assert head.shop.python("serving", "delete", "team").returncode == 0
    await_true(lambda: not answers(f"{head.url('team')}/health"), "it is deleted")
    assert [head.replicas(f"cartpole-{stage}").keys() for stage in ("production", "staging")] == before


def test_a_new_release_replaces_the_replicas_and_the_same_one_does_not(head: Head) -> None:
    def application(release: str) -> str:
        args = {"model_uri": "models:/alone/latest", "release": release}
        return head.write("released.yaml", {"name": "released", "args": args})

    assert head.deploy(application("one")).returncode == 0
    (first,) = head.replicas("released")
    again = head.deploy(application("one"))
    assert "released: unchanged, release one" in again.stdout
    assert list(head.replicas("released")) == [first]
    assert head.deploy(application("two")).returncode == 0
    (second,) = head.replicas("released")
    assert second != first


@pytest.mark.long
def test_a_server_that_joins_has_a_name_of_its_own_and_deletes_only_its_own_application(head: Head) -> None:
    run = (
        *(sys.executable, "-m", "serving", "run", "--model-uri", "models:/several/Staging"),
        *("--address", head.gcs, "--port", str(free_port()), "--name", "joined"),
        *("--cache-dir", str(head.directory / "cache")),
    )
    joined = head.shop.start(*run, log="joined.log")
    head.await_up("joined")
    await_true(lambda: "Stop it:" in head.shop.output("joined.log"), "it is ready")
    assert requests.post(head.url("joined"), json=TILTED, timeout=10).json() == {"action": 0}
    refused = head.deploy(head.write("joined.yaml", {"name": "joined", "args": {"model_uri": "models:/alone/latest"}}))
    assert "the application 'joined' belongs to a `python -m serving run`" in refused.stderr
    assert "the server of the application 'joined' still runs" in delete_left_behind(head, "joined")
    joined.send_signal(signal.SIGINT)
    assert joined.wait(60) == 0
    assert not answers(f"{head.url('joined')}/health")
    for name in ("cartpole-production", "cartpole-staging"):
        assert answers(f"{head.url(name)}/health")


def delete_left_behind(head: Head, name: str) -> str:
    """Run the command, and return the line of its error, or else of its output."""
    done = head.shop.python("serving", "delete", name, "--ray-address", head.gcs)
    assert "Traceback" not in done.stderr
    return (done.stderr if done.returncode else done.stdout).splitlines()[-1]


@pytest.mark.long
def test_what_a_killed_server_leaves_on_the_cluster_is_deleted_by_a_command(head: Head) -> None:
    run = (
        *(sys.executable, "-m", "serving", "run", "--model-uri", "models:/alone/latest", "--address", head.gcs),
        *("--name", "killed", "--cache-dir", str(head.directory / "cache")),
    )
    killed = head.shop.start(*run, log="killed.log")
    await_true(lambda: "Stop it:" in head.shop.output("killed.log"), "it is ready", 90)
    killed.kill()
    killed.wait()
    assert answers(f"{head.url('killed')}/health"), "its replicas go on"
    again = head.shop.run(*run)
    assert again.stderr.splitlines()[-1].endswith("python -m serving delete killed --ray-address HOST:PORT")
    await_true(lambda: delete_left_behind(head, "killed") == "killed: deleted", "Ray notices that it has ended")
    assert not answers(f"{head.url('killed')}/health")
    assert "the cluster runs no application 'killed'" in delete_left_behind(head, "killed")
    assert "was deployed from a file" in delete_left_behind(head, "cartpole-staging")
    assert answers(f"{head.url('cartpole-staging')}/health")
