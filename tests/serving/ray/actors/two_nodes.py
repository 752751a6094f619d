"""Replicas, as plain actors, on a Ray cluster of one node and then of two: `... two_nodes TRACKING_URI MODEL_URI`.

It prints one line of JSON for each step.
"""

import json
import os
import sys
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serving.arguments import Arguments
from serving.ray.actors import resolver
from serving.rollout.refusals import Refusal

INTERVAL_S = 0.5


class Replica:
    """Asks the resolver of its application as `ApplicationPolls` does."""

    def __init__(self, tracking_uri: str, model_uri: str) -> None:
        resolver.CONNECT_S = 0.5
        arguments = Arguments(tracking_uri=tracking_uri, model_uri=model_uri, refresh_interval_s=INTERVAL_S)
        self.ask = resolver.ResolverActor(arguments, "an application", "a deployment")
        self.seen = 0

    def pid(self) -> int:
        return os.getpid()

    def share(self, versions: list[int]) -> list[int]:
        """Share refusals of these versions; return the versions that any node has refused."""
        shared = self.ask.share([Refusal(str(version), version, "crashed", "") for version in versions])
        return [refusal.version for refusal in shared]

    def poll(self) -> tuple[int, int] | str | None:
        """The number of the poll and the version; None without a resolver, or the type of the exception."""
        try:
            answer = self.ask(self.seen)
        except Exception as error:  # noqa: BLE001
            return type(error).__name__
        if answer is None:
            return None
        self.seen, outcome = answer
        return self.seen, outcome.result().version


def start(node: str, *arguments: str) -> Any:
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(Replica).options(scheduling_strategy=here, num_cpus=0).remote(*arguments)


def polls(*replicas: Any, number: int) -> list[Any]:
    found = []
    for _ in range(number):
        found.append(ray.get([replica.poll.remote() for replica in replicas]))
        time.sleep(0.9 * INTERVAL_S)
    return found


def until_resolved(*replicas: Any) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if all(isinstance(answer, list | tuple) for answer in polls(*replicas, number=1)[0]):
            return True
    return False


def main(*arguments: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    head = ray.get_runtime_context().get_node_id()
    one = start(head, *arguments)
    say(alone=polls(one, number=5))
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    second = next(node["NodeID"] for node in ray.nodes() if node["NodeID"] != head)
    other = start(second, *arguments)
    say(resolved=until_resolved(one, other), owner=resolvers())
    say(together=polls(one, other, number=6))
    say(refused=[ray.get(each.share.remote(versions)) for each, versions in ((one, [7]), (other, [5]), (one, [7]))])
    ray.kill(one)
    say(after_its_end=until_resolved(other), answers=polls(other, number=3))
    ray.kill(other)
    deadline = time.monotonic() + 30
    while resolvers() and time.monotonic() < deadline:
        time.sleep(0.2)
    say(left=resolvers())
    ray.shutdown()
    cluster.shutdown()


def resolvers() -> list[str]:
    return [name for name in ray.util.list_named_actors() if name.startswith("resolver of")]


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
