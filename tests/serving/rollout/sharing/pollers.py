"""Replicas of one node without their policies: threads of a process, each polling as the watcher of a replica does.

    python -m tests.serving.rollout.sharing.pollers CACHE MODEL_URI NUMBER INTERVAL_S

It prints `poll` for each request to the registry and `seen VERSION` for each thread that sees another version.
"""

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

from serving.errors import ServingError
from serving.registry import tracking
from serving.registry.access import open_registry
from serving.registry.model_version import ModelVersion
from serving.registry.node.scope import scope
from serving.rollout.sharing.polls import Poll, SharedPolls
from serving.rollout.watcher import _backoff_s


def say(*words: object) -> None:
    os.write(1, " ".join(map(str, [*words, os.getpid(), time.time()])).encode() + b"\n")


def noted(poll: Poll, model_uri: str) -> ModelVersion:
    say("poll")
    return poll(model_uri)


def follow(polls: SharedPolls, model_uri: str, interval_s: float) -> None:
    seen, failures = None, 0
    while not polls.wait(_backoff_s(interval_s, failures), threading.Event()):
        try:
            version, failures = polls.poll(model_uri).version, 0
        except ServingError as error:
            say("failed", type(error).__name__)
            failures += 1
            continue
        if version != seen:
            seen = version
            say("seen", version)


def main(cache: str, model_uri: str, number: str, interval_s: str) -> None:
    uri = tracking.tracking_uri()
    threads = []
    for _ in range(int(number)):
        poll = partial(noted, open_registry(uri).poll)
        polls = SharedPolls(Path(cache), scope(uri, model_uri, "pollers"), poll)
        threads.append(threading.Thread(target=follow, args=(polls, model_uri, float(interval_s))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # MLflow cannot be imported once the main thread has ended


if __name__ == "__main__":
    main(*sys.argv[1:])
