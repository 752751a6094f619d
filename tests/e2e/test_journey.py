"""The whole journey, as `make run` takes it, and every command and example of the documents against it."""

import re
import shlex
import signal
import sys

import numpy as np
import psutil
import pytest
import requests
from mlflow import MlflowClient

from pipeline.cli import cli as pipeline_cli
from serving.cli import main as serving_cli
from tests.docs.pages import commands_to_run, examples_to_run
from tests.workshop import Workshop, await_true, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: What `make run` and CI run themselves, servers, which other tests start and stop.
RUN_ELSEWHERE = ("make ", "source ", "export ", "python -m serving run", "serve run")


class Journey:
    """`python -m pipeline journey` under way, on ports of its own."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.mlflow_url = f"http://127.0.0.1:{free_port()}"
        self.policy_url = f"http://127.0.0.1:{free_port()}/cartpole-ppo"

    def start(self, *options: str) -> None:
        ports = ("--mlflow-port", self.mlflow_url.rsplit(":", 1)[1])
        ports += ("--serving-port", self.policy_url.rsplit(":", 1)[1].split("/")[0])
        self.process = self.shop.start(sys.executable, "-m", "pipeline", "journey", *ports, *options)
        await_true(lambda: "Ctrl-C ends both." in self.shop.output(), "the journey arrives", timeout_s=240)
        self.shop.environment["MLFLOW_TRACKING_URI"] = self.mlflow_url

    def here(self, text: str) -> str:
        """Return a text of the documents with the ports and directory of this test, and with a shorter training."""
        text = re.sub(r"http://(127\.0\.0\.1|localhost):8000/cartpole-ppo", self.policy_url, text)
        text = text.replace("127.0.0.1:8000/cartpole-ppo", self.policy_url.removeprefix("http://"))
        text = re.sub(r"serving (query|status)", rf"serving \1 --url {self.policy_url}", text)
        text = text.replace("train --seed 2", "train --seed 2 --target-return 20 --max-env-steps 5000")
        # Without -f, curl succeeds whatever the status of the response.
        return re.sub(r"\bcurl -s ", "curl -sf ", text)

    def run(self, line: str) -> tuple[int, str]:
        """Run a command line of the documents. Return its exit status and what it printed.

        Commands of ours run in this process: the journey itself, and other tests, show that they are processes too.
        """
        if line.startswith("mlflow run ."):
            # test_mlflow_run.py runs it. Here a copy of version 1 stands for the version that it registers.
            MlflowClient(self.mlflow_url).copy_model_version("models:/cartpole-ppo/1", "cartpole-ppo")
            return 0, ""
        words = shlex.split(self.here(line))
        if words[:2] == ["python", "-m"]:
            result = self.shop.invoke({"pipeline": pipeline_cli, "serving": serving_cli}[words[2]], *words[3:])
            return result.exit_code, result.output
        done = self.shop.run(*words)
        return done.returncode, done.stdout + done.stderr

    def mean_return(self, episodes: int) -> float:
        """Return what the journey printed of the episodes that it played through HTTP."""
        mean = re.search(rf"\b{episodes} episodes: mean return ([\d.]+)", self.shop.output())
        assert mean is not None
        return float(mean[1])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.shop.output()
        await_true(lambda: not self.shop.processes(), "every process has ended")


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("journey"))
    under_way = Journey(shop)
    try:
        under_way.start("--episodes", "20")  # after the 100 with which training ends
        yield under_way
    finally:
        shop.end()


def test_the_waiting_process_loads_neither_mlflow_nor_rllib(journey):
    assert psutil.Process(journey.process.pid).memory_info().rss < 100e6


def test_its_commands_and_those_typed_later_share_one_experiment(journey):
    client = MlflowClient(journey.mlflow_url)
    assert [each.name for each in client.search_experiments()] == ["Default"]
    assert client.search_runs(["0"])


def test_it_trains_promotes_and_serves_a_policy_that_balances_the_pole(journey):
    assert journey.mean_return(episodes=20) >= 475
    version = MlflowClient(journey.mlflow_url).get_model_version("cartpole-ppo", "1")
    assert version.current_stage == "Production"
    assert float(version.tags["evaluation.return_mean"]) >= 475


@pytest.mark.parametrize("package", ["gymnasium", "gym"])
def test_the_client_of_the_tutorial_works_unchanged(journey, package):
    """As in Ray's tutorial "Serving RLlib Models", but for the port; gym needs its environment checker off."""
    if package == "gym":
        # gym 0.26 meets numpy 2 with an attribute that is gone.
        np.bool8 = np.bool_  # type: ignore[attr-defined]
    gym = pytest.importorskip(package)
    url = journey.policy_url.replace("127.0.0.1", "localhost")
    env = gym.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    for _ in range(50):
        answer = requests.get(url, json={"observation": obs.tolist()}, timeout=10).json()
        assert set(answer) == {"action"}
        obs, _, terminated, _, _ = env.step(answer["action"])
        assert not terminated
    env.close()


def test_loading_as_a_replica_does_imports_neither_torch_nor_rllib_and_unpickles_nothing(journey):
    """What a replica's constructor runs, on the version that training registered, watched by an audit hook."""
    script = """
import sys
from serving.app import Arguments
from serving.protocols.native.json_codec import JsonCodec
from serving.rollout.initial_policy import load_initial_policy

unpickled = []
sys.addaudithook(lambda event, what: unpickled.append(what) if event == "pickle.find_class" else None)
served = load_initial_policy(Arguments(cache_dir="cache-of-its-own")).served
codec = served.prepared(JsonCodec)
observations, *_ = codec.decode(b'{"observation": [0, 0, 0.1, 0.5]}')
assert codec.encode(served.policy.act(observations), batched=False) == b'{"action":1}'
assert not unpickled, unpickled
heavy = [name for name in sys.modules if name.split(".")[0] in ("torch", "pipeline") or name.startswith("ray.rllib")]
assert not heavy, heavy
"""
    done = journey.shop.run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in commands_to_run() if not line.startswith(RUN_ELSEWHERE)])
def test_a_command_of_the_documents_runs(journey, line):
    status, output = journey.run(line)
    assert status == 0, output
    assert "did not reach" not in output


@pytest.mark.parametrize("example", examples_to_run())
def test_an_example_of_the_documents_runs(journey, example):
    with journey.shop.inside():
        exec(journey.here(example), {"__name__": "__main__"})


def test_a_port_that_is_taken_is_named(journey):
    port = journey.mlflow_url.rsplit(":", 1)[1]
    done = journey.shop.python("pipeline", "journey", "--mlflow-port", port)
    assert done.returncode == 1
    assert done.stderr == f"Error: Port {port} is taken. Choose another: make run MLFLOW_PORT=PORT\n"


def test_ctrl_c_leaves_no_process(journey):
    """The last test of this file but for the next: it stops what the others use."""
    journey.stop()


@pytest.mark.long
def test_the_second_time_it_serves_the_promoted_version(journey):
    if journey.process.poll() is None:
        journey.stop()
    del journey.shop.environment["MLFLOW_TRACKING_URI"]
    journey.start()
    assert "A version of 'cartpole-ppo' is already in Production." in journey.shop.output()
    assert "pipeline train" not in journey.shop.output()
    assert journey.mean_return(episodes=100) >= 475
    journey.stop()
