"""Releases of the code on a real cluster, under constant load: by `python -m serving deploy`, new code on the node."""

import time
from collections.abc import Iterator

import pytest

from tests.faults.arena import NAME, Load, Registry
from tests.serving.ray.head import Head
from tests.workshop import await_true

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(600)]

RATE = ("--rate", "200")
#: Room for the replicas of two releases.
CPUS = 4
LONGEST_S = 0.5
CONSTRUCTOR = "        settings.tune_replica(arguments.log_format, self._log_context)\n"


@pytest.fixture(scope="module")
def head(registry: Registry) -> Iterator[Head]:
    """A cluster on which two replicas of the release serve that is in its directory."""
    registry.promote(1)
    with Head(registry.url, CPUS) as head:
        args = {"model_uri": f"models:/{NAME}/Production", "num_replicas": 2}
        deployed = head.deploy(head.write("config.yaml", {"name": NAME, "args": args}))
        assert deployed.returncode == 0, deployed.stderr
        yield head


def install(head: Head, old: str, new: str) -> None:
    """Install another release: change the code on the node, as an upgrade does."""
    file = head.code / "serving" / "app.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def release_of(head: Head) -> set[str]:
    return {model["replica"]["release"] for model in head.replicas(NAME).values()}


def test_a_release_under_load(head: Head, tell) -> None:
    before, (old,) = head.replicas(NAME).keys(), release_of(head)
    install(head, CONSTRUCTOR, CONSTRUCTOR + "        # another release\n")
    with Load(None, *RATE, url=head.url(NAME)) as load:
        time.sleep(5)
        start = time.monotonic()
        deployed = head.deploy("config.yaml")
        took = time.monotonic() - start
        await_true(lambda: not before & head.replicas(NAME).keys(), "the old replicas have stopped")
        time.sleep(5)
    assert deployed.returncode == 0, deployed.stderr
    (new,) = release_of(head)
    assert new != old
    row = tell("a release under load", load.records, f"two replicas replaced in {took:.0f} s")
    assert (row.failed, row.wrong) == (0, 0)
    assert row.longest_ms < 1000 * LONGEST_S


def test_a_release_whose_constructor_fails(head: Head, tell) -> None:
    before = head.replicas(NAME).keys()
    broken = CONSTRUCTOR + '        raise ZeroDivisionError("a broken release")\n'
    install(head, CONSTRUCTOR, broken)
    with Load(None, *RATE, url=head.url(NAME)) as load:
        time.sleep(5)
        failed = head.deploy("config.yaml")
        time.sleep(5)
    assert failed.returncode == 1
    assert "a broken release" in failed.stderr.splitlines()[-1]
    assert head.replicas(NAME).keys() == before
    row = tell("a release whose constructor fails", load.records, "the old release goes on")
    install(head, broken, CONSTRUCTOR)
    restored = head.deploy("config.yaml")
    assert restored.returncode == 0, restored.stderr
    assert head.replicas(NAME).keys() == before, "deploying the old release again restarts nothing"
    assert (row.failed, row.wrong) == (0, 0)
    assert row.longest_ms < 1000 * LONGEST_S
