import asyncio
import contextlib
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.registry.errors import PollFailed, RegistryFailed, VersionMissing
from serving.registry.model_version import ModelVersion
from serving.registry.node.wanted import Outcome
from serving.rollout.refusals import MAX_KEPT, Refusal, Refusals
from serving.rollout.sharing import resolver as module
from serving.rollout.sharing.polls import SharedPolls
from serving.rollout.sharing.resolver import AWAY_S, MISSED, Answer, ApplicationPolls, Ask, Resolver
from serving.rollout.watcher import _backoff_s
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags
from tests.workshop import await_true

URI = "models:/resolved/Production"


def version(number: int) -> ModelVersion:
    return ModelVersion(URI, "resolved", number, None, "Production", digest_tags(CARTPOLE_BUNDLE), "http://registry")


class Registry:
    """Notes when each poll began; a poll returns its number as the version."""

    def __init__(self, lasts_s: float = 0) -> None:
        self.began: list[float] = []
        self.lasts_s = lasts_s
        self.failure: Exception | None = None

    def poll(self, _model_uri: str = URI) -> ModelVersion:
        self.began.append(time.monotonic())
        time.sleep(self.lasts_s)
        if self.failure is not None:
            raise self.failure
        return version(len(self.began))


def numbers(answers: list[Answer]) -> list[tuple[int, int]]:
    return [(number, outcome.result().version) for number, outcome in answers]


def test_nodes_that_ask_at_the_same_time_share_one_poll_even_if_it_takes_longer_than_an_interval() -> None:
    registry = Registry(lasts_s=0.1)

    async def ask() -> list[Answer]:
        resolver = Resolver(registry.poll, 0.05)
        return await asyncio.gather(*(resolver.next(0) for _ in range(200)))

    assert numbers(asyncio.run(ask())) == [(1, 1)] * 200
    assert len(registry.began) == 1


def test_a_node_that_knows_the_last_poll_waits_for_the_next_one_and_another_does_not() -> None:
    registry = Registry()

    async def ask() -> list[Answer]:
        resolver = Resolver(registry.poll, 0.5)
        first = await resolver.next(0)
        waiting = asyncio.create_task(resolver.next(1))
        await asyncio.sleep(0.05)
        late = await resolver.next(0)
        assert not waiting.done()
        return [first, late, await waiting]

    assert numbers(asyncio.run(ask())) == [(1, 1), (1, 1), (2, 2)]
    assert registry.began[1] - registry.began[0] >= 0.5


def test_an_old_outcome_is_not_returned_again() -> None:
    registry = Registry()

    async def ask() -> list[Answer]:
        resolver = Resolver(registry.poll, 0.05)
        first = await resolver.next(0)
        await asyncio.sleep(0.1)
        return [first, await resolver.next(0)]

    assert numbers(asyncio.run(ask())) == [(1, 1), (2, 2)]


def test_an_exception_of_the_poll_is_an_outcome() -> None:
    registry = Registry()
    registry.failure = KeyError("http://user:secret@registry")
    _, outcome = asyncio.run(Resolver(registry.poll, 0.05).next(0))
    with pytest.raises(PollFailed, match=r"^KeyError; the log of process"):
        outcome.result()


class Actor:
    """Stands for Ray's actor: returns an outcome, or raises."""

    def __init__(self) -> None:
        self.answer: Answer | Exception | None = None
        self.seen: list[int] = []

    def __call__(self, seen: int) -> Answer | None:
        self.seen.append(seen)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_node_asks_the_registry_itself_until_there_is_a_resolver() -> None:
    registry, actor = Registry(), Actor()
    polls = ApplicationPolls(registry.poll, actor)
    assert polls(URI).version == 1
    actor.answer = (7, Outcome(version(3)))
    assert [polls(URI).version, polls(URI).version] == [3, 3]
    assert (len(registry.began), actor.seen) == (1, [0, 0, 7])


def test_a_node_asks_the_registry_itself_for_a_while_after_the_resolver_did_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry, actor = Registry(), Actor()
    polls = ApplicationPolls(registry.poll, actor)
    actor.answer = TimeoutError()
    assert [polls(URI).version for _ in range(3)] == [1, 2, 3]
    assert len(actor.seen) == 1
    assert caplog.text.count("does not answer (TimeoutError), so this node asks the registry for 30 s") == 1
    actor.answer = (1, Outcome(version(9)))
    monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + AWAY_S)
    assert polls(URI).version == 9


def test_a_node_asks_the_registry_too_after_the_resolver_has_failed_some_times() -> None:
    registry, actor = Registry(), Actor()
    polls = ApplicationPolls(registry.poll, actor)
    actor.answer = (1, Outcome.failed(RegistryFailed("http://registry", "it is down")))
    for _ in range(MISSED):
        with pytest.raises(RegistryFailed):
            polls(URI)
    assert not registry.began
    assert polls(URI).version == 1
    actor.answer = (2, Outcome.failed(VersionMissing("resolved", "is in stage 'Production'", "Promote one.")))
    for _ in range(MISSED + 2):
        with pytest.raises(VersionMissing):
            polls(URI)
    assert len(registry.began) == 1, "an empty stage is an answer"


def test_200_nodes_cost_one_poll_an_interval() -> None:
    """Each node is a thread, which asks as its watcher would."""
    registry, interval_s = Registry(), 0.3
    loop = asyncio.new_event_loop()
    resolver = Resolver(registry.poll, interval_s)
    serving = threading.Thread(target=loop.run_forever)
    serving.start()

    def node(_: int) -> int:
        polls = ApplicationPolls(
            registry.poll, lambda seen: asyncio.run_coroutine_threadsafe(resolver.next(seen), loop).result(30)
        )
        for _ in range(4):
            time.sleep(0.95 * interval_s)
            found = polls(URI)
        return found.version

    with ThreadPoolExecutor(200) as threads:
        found = list(threads.map(node, range(200)))
    loop.call_soon_threadsafe(loop.stop)
    serving.join()
    loop.close()
    assert min(found) >= 2
    assert all(after - before >= interval_s for before, after in itertools.pairwise(registry.began))


class SimulatedNode:
    """The polls of the replicas of a node, for which one thread looks in turn, as the thread of each would."""

    def __init__(self, cache: Path, ask: Ask, replicas: int, interval_s: float) -> None:
        def forbidden(_: str) -> ModelVersion:
            raise AssertionError("the node asks the registry although there is a resolver")

        self._replicas = [SharedPolls(cache, "scope", ApplicationPolls(forbidden, ask)) for _ in range(replicas)]
        self._interval_s = interval_s
        self._due = [time.monotonic() + _backoff_s(interval_s, 0) for _ in range(replicas)]
        self.seen = [0] * replicas

    def run(self, stopped: threading.Event) -> None:
        while not stopped.wait(0.5):
            for index, polls in enumerate(self._replicas):
                if polls.is_ready(time.monotonic() - self._due[index], self._interval_s):
                    self.seen[index] = polls.poll(URI).version
                    self._due[index] = time.monotonic() + _backoff_s(self._interval_s, 0)


@pytest.mark.long
def test_10_000_replicas_on_500_nodes_cost_one_poll_an_interval(tmp_path: Path) -> None:
    """Nodes are directories and threads; the resolver and what a replica does for its polls are real."""
    registry, interval_s, number = Registry(), 2.0, 500
    loop, stopped = asyncio.new_event_loop(), threading.Event()
    resolver = Resolver(registry.poll, interval_s)

    def ask(seen: int) -> Answer:
        return asyncio.run_coroutine_threadsafe(resolver.next(seen), loop).result(60)

    nodes = [SimulatedNode(tmp_path / str(index), ask, 20, interval_s) for index in range(number)]
    began = time.monotonic()
    threads = [threading.Thread(target=loop.run_forever)]
    threads += [threading.Thread(target=node.run, args=(stopped,)) for node in nodes]
    for thread in threads:
        thread.start()
    for target in (1, 6):
        await_true(lambda target=target: min(min(node.seen) for node in nodes) >= target, f"all see {target}", 240)
    elapsed = time.monotonic() - began
    stopped.set()
    for thread in threads[1:]:
        thread.join()
    loop.call_soon_threadsafe(loop.stop)
    threads[0].join()
    loop.close()
    assert all(after - before >= interval_s for before, after in itertools.pairwise(registry.began))
    sys.stderr.write(f"\n10,000 replicas: {len(registry.began)} polls in {elapsed:.1f} s\n")  # for `pytest -s`


def node(directory: Path, resolver: Resolver, registry: Registry) -> tuple[ApplicationPolls, Refusals]:
    """The polls of a node that asks a resolver, and the refusals of the node."""
    refusals = Refusals(directory, "an-app")
    return (
        ApplicationPolls(
            registry.poll,
            lambda seen: asyncio.run(resolver.next(seen)),
            lambda known: asyncio.run(resolver.share(known)),
            refusals,
        ),
        refusals,
    )


@pytest.mark.parametrize("failure", [None, RegistryFailed("http://registry", "it is down")])
def test_a_version_that_failed_on_one_node_is_refused_on_all_after_their_next_poll(
    tmp_path: Path, failure: Exception | None
) -> None:
    registry = Registry()
    registry.failure = failure
    resolver = Resolver(registry.poll, 0.01)
    one, of_one = node(tmp_path / "one", resolver, registry)
    other, of_other = node(tmp_path / "other", resolver, registry)
    of_one.add(version(5), "crashed", "it crashed")
    for poll in (one, other):
        with contextlib.suppress(RegistryFailed):
            poll(URI)
    assert of_other.of(version(5)) == of_one.of(version(5))
    assert Refusals(tmp_path / "other", "an-app").of(version(5)) is not None, "also after a restart"


def test_a_resolver_keeps_the_last_refusals() -> None:
    refusals = [Refusal(str(number), number, "crashed", "") for number in range(MAX_KEPT + 2)]
    assert asyncio.run(Resolver(Registry().poll, 0.01).share(refusals)) == refusals[2:]
