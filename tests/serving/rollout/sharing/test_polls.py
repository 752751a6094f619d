import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from serving.registry.errors import RegistryFailed, VersionMissing
from serving.registry.model_version import ModelVersion
from serving.registry.node.wanted import RECENT_S, Outcome, WantedFile
from serving.rollout.sharing import polls as module
from serving.rollout.sharing.polls import HANGS_AFTER_S, OwnPolls, SharedPolls
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags

URI = "models:/shared/Production"
EARLY = -0.01


def version(number: int) -> ModelVersion:
    return ModelVersion(URI, "shared", number, None, "Production", digest_tags(CARTPOLE_BUNDLE), "http://registry")


class Registry:
    """Counts the polls, which may fail."""

    def __init__(self) -> None:
        self.number, self.polls = 1, 0
        self.failure: BaseException | None = None

    def poll(self, model_uri: str) -> ModelVersion:
        assert model_uri == URI
        self.polls += 1
        if self.failure is not None:
            raise self.failure
        return version(self.number)


class Node:
    """Replicas with one cache directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.registry = directory, Registry()

    def replica(self, scope: str = "scope") -> SharedPolls:
        return SharedPolls(self.directory, scope, self.registry.poll)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def elected(node: Node) -> SharedPolls:
    """A replica that has polled."""
    replica = node.replica()
    assert replica.is_ready(0)
    assert replica.poll(URI) == version(1)
    return replica


def test_one_replica_polls_and_the_others_return_what_it_saw(node: Node) -> None:
    others = [node.replica() for _ in range(3)]
    first = elected(node)
    node.registry.number = 2
    for other in others:
        assert other.is_ready(EARLY), "it need not wait until its own poll is due"
        assert other.poll(URI) == version(1)
        assert not other.is_ready(0), "it has seen this poll, and another replica polls"
    assert not first.is_ready(EARLY)
    assert first.is_ready(0)
    assert first.poll(URI) == version(2)
    assert [other.poll(URI) for other in others] == [version(2)] * 3
    assert node.registry.polls == 2


def test_a_replica_that_starts_does_not_take_an_old_poll_for_a_new_one(node: Node) -> None:
    elected(node)
    assert not node.replica().is_ready(0)


def test_another_replica_polls_when_the_elected_one_has_stopped(node: Node) -> None:
    first, other = elected(node), node.replica()
    assert not other.is_ready(0)
    first.close()
    assert not other.is_ready(EARLY)
    assert other.is_ready(0)
    node.registry.number = 2
    assert other.poll(URI) == version(2)
    assert first.is_ready(EARLY)
    assert first.poll(URI) == version(2)
    assert not first.is_ready(0)


def test_applications_on_one_node_do_not_meet(node: Node) -> None:
    elected(node)
    other = node.replica("another scope")
    assert not other.is_ready(EARLY)
    assert other.is_ready(0)
    other.poll(URI)
    assert node.registry.polls == 2


@pytest.mark.parametrize(
    "failure",
    [VersionMissing("shared", "is in stage 'Production'", "Promote one."), RegistryFailed("http://registry", "down")],
    ids=lambda error: type(error).__name__,
)
def test_all_replicas_raise_the_error_of_the_poll(node: Node, failure: Exception) -> None:
    first, other = elected(node), node.replica()
    node.registry.failure = failure
    with pytest.raises(type(failure)) as original:
        first.poll(URI)
    assert original.value is failure, "the elected one raises the error itself, with its traceback"
    with pytest.raises(type(failure)) as repeated:
        other.poll(URI)
    assert str(repeated.value) == str(failure)
    assert node.registry.polls == 2


def test_an_exit_in_the_poll_is_not_shared_and_ends_nothing(node: Node) -> None:
    first, other = elected(node), node.replica()
    node.registry.failure = SystemExit(1)
    with pytest.raises(SystemExit):
        first.poll(URI)
    assert not other.is_ready(EARLY)
    node.registry.failure = None
    assert first.is_ready(0)
    assert first.poll(URI) == version(1)


def test_replicas_poll_for_themselves_when_the_elected_one_hangs(node: Node) -> None:
    first, other = elected(node), node.replica()
    assert not other.is_ready(HANGS_AFTER_S)
    assert not other.is_ready(3600, pause_s=3600), "the elected one has another pause, which may be longer"
    assert other.is_ready(3601, pause_s=3600)
    other.close()
    assert other.is_ready(HANGS_AFTER_S + 1)
    third = node.replica()
    assert not third.is_ready(HANGS_AFTER_S + 1), "one deputy is enough"
    assert third.is_ready(2 * HANGS_AFTER_S + 1), "unless it hangs too"
    node.registry.number = 2
    assert other.poll(URI) == version(2)
    assert third.poll(URI) == version(2)
    assert third.is_ready(HANGS_AFTER_S + 1), "its deputy has done its work"
    assert first.is_ready(EARLY)
    assert first.poll(URI) == version(2)
    assert other.is_ready(0), "the one that hung leaves the polls to the others"


def test_the_answer_to_a_poll_that_hung_does_not_replace_a_later_one(node: Node) -> None:
    first, other = elected(node), node.replica()

    def hang(model_uri: str) -> ModelVersion:
        answer = node.registry.poll(model_uri)
        node.registry.number = 2
        assert other.poll(URI) == version(2)
        return answer

    first._poll = hang
    assert first.poll(URI) == version(2)
    assert not other.is_ready(EARLY)


def test_a_directory_that_cannot_be_written_costs_one_warning_and_each_replica_polls_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wanted").write_text("a file")
    node = Node(tmp_path)
    replicas = node.replica(), node.replica()
    for number in (1, 2):
        node.registry.number = number
        for replica in replicas:
            assert not replica.is_ready(EARLY)
            assert replica.is_ready(0)
            assert replica.poll(URI) == version(number)
    assert node.registry.polls == 4
    assert replicas[0].resolve(lambda: version(3)) == version(3)
    assert caplog.text.count("so this one polls for itself: ") == len(replicas)


def test_replicas_share_polls_again_once_the_disk_has_space(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = elected(node), node.replica()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(WantedFile, "write", fail)
        for replica in (first, other, first, other):
            assert replica.is_ready(0)
            assert replica.poll(URI) == version(1)
    assert node.registry.polls == 5
    first.poll(URI)
    assert other.is_ready(EARLY)
    other.poll(URI)
    assert node.registry.polls == 6


def test_a_file_of_another_release_is_no_answer(node: Node) -> None:
    first, other = elected(node), node.replica()
    (node.directory / "wanted" / "scope.json").write_text('{"format": 99}')
    assert other.is_ready(EARLY)
    assert other.poll(URI) == version(1)
    assert node.registry.polls == 2
    first.close()


def test_waiting_ends_when_another_replica_has_polled(node: Node) -> None:
    other, stopped = node.replica(), threading.Event()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(other.wait, 3600, stopped)
        elected(node)
        assert waiting.result(30) is False
        waiting = threads.submit(other.wait, 3600, stopped)
        other.poll(URI)
        stopped.set()
        assert waiting.result(30) is True


def test_waiting_ends_when_the_pause_is_over_and_nobody_polls(node: Node) -> None:
    began = time.monotonic()
    assert not node.replica().wait(0.3, threading.Event())
    assert time.monotonic() - began >= 0.3


def test_the_pause_between_two_looks_is_short_and_ends_when_a_poll_is_due() -> None:
    assert module._until_check_s(60, 60) == 0.2
    assert module._until_check_s(0.05, 60) == 0.05
    assert module._until_check_s(-1, 60) == 0.2
    assert module._until_check_s(-1, 0.01) == 0.001


def test_a_replica_without_others_polls_when_its_pause_is_over(node: Node) -> None:
    own = OwnPolls(lambda: node.registry.poll)
    assert not own.wait(0, threading.Event())
    assert own.poll(URI) == version(1)
    own.close()


def test_of_replicas_that_start_together_one_asks_the_registry(node: Node) -> None:
    number, resolved = 6, []
    barrier = threading.Barrier(number)

    def resolve() -> ModelVersion:
        resolved.append(1)
        time.sleep(0.2)  # so that the others wait
        return version(1)

    def start(_: int) -> ModelVersion:
        barrier.wait(30)
        return node.replica().resolve(resolve)

    with ThreadPoolExecutor(number) as threads:
        assert list(threads.map(start, range(number))) == [version(1)] * number
        assert len(resolved) == 1
        assert node.replica().resolve(resolve) == version(1)
    assert len(resolved) == 2, "one that starts later asks again"


def test_replicas_that_start_together_raise_the_error_of_the_one_that_asks(node: Node) -> None:
    barrier, asked = threading.Barrier(3), []

    def resolve() -> ModelVersion:
        asked.append(1)
        time.sleep(0.2)
        raise RegistryFailed("http://registry", "it is down")

    def start(_: int) -> str:
        barrier.wait(30)
        with pytest.raises(RegistryFailed) as caught:
            node.replica().resolve(resolve)
        return str(caught.value)

    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(start, range(3))) == {"the model registry at http://registry failed: it is down"}
    assert len(asked) == 1
    assert node.replica().resolve(lambda: version(1)) == version(1), "a later one does not"


def test_a_replica_that_starts_beside_others_takes_what_they_have_just_seen(node: Node) -> None:
    elected(node)
    assert node.replica().resolve(lambda: version(2)) == version(1)
    file = WantedFile(node.directory, "scope")
    file.write(replace(Outcome(version(1)), at=time.time() - RECENT_S))
    assert node.replica().resolve(lambda: version(2)) == version(2)
    file.write(Outcome.failed(RegistryFailed("http://registry", "it is down")))
    assert node.replica().resolve(lambda: version(3)) == version(3)
