"""A controller that is killed at any point and started again, two at once: one decision, one event, one promotion."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from pipeline.experiment.live.lease import Lease
from pipeline.registry import history
from tests.pipeline.experience.recording import MODEL
from tests.pipeline.experiment.live.world import CHAMPION, OTHER, TARGET

WRITES = (
    "set_model_version_tag",
    "delete_model_version_tag",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "transition_model_version_stage",
    "update_model_version",
    "log_batch",
    "log_figure",
    "set_tag",
    "set_terminated",
)


ENDED_PROCESS = 2**22 + 1  # above the largest that Linux gives


class Killed(BaseException):
    """Ends a controller as SIGKILL does: nothing that it catches, and no further write reaches MLflow."""


@contextmanager
def killed_after(write: int) -> Iterator[None]:
    """Kill whoever makes the n-th write to MLflow, after it: no later write is made."""
    made: list[str] = []
    originals = {name: getattr(mlflow.MlflowClient, name) for name in WRITES}
    dead = []

    def killing(name):
        def call(*args, **kwargs):
            if dead:
                raise Killed(name)
            result = originals[name](*args, **kwargs)
            made.append(name)
            if len(made) > write:
                dead.append(name)
                raise Killed(name)
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(mlflow.MlflowClient, name, killing(name))
        yield


def outcome():
    """Return what people see in the end: the version, the events of the experiment, and the tags that count."""
    events = [each for each in history.events(TARGET) if each.kind == "experiment"]
    tags = mlflow.MlflowClient().get_registered_model(MODEL).tags
    return TARGET.current_version(), len(events), [key for key in tags if '"confirmed": false' in tags[key]]


def kill_and_start_again(world, write) -> bool:
    """Return whether the controller was killed: whether it makes so many writes."""
    try:
        with killed_after(write):
            world.controller().run()
    except Killed:
        forget_lease(world)
        ended = world.controller().run()
        assert ended.settings.finished
        return True
    return False


def forget_lease(world) -> None:
    """The process of the lease is gone, which another one sees; in this test it is the same process."""
    key = Lease(world.live()).key
    mlflow.MlflowClient().set_model_version_tag(MODEL, str(CHAMPION), key, "{}")


PROMOTION = (100.0, "promoted")
IN_SHORT = [pytest.param(*PROMOTION, write, id=f"promoted, write {write}") for write in (2, 4, 5)]
KILLS = [
    pytest.param(*kind, write, marks=pytest.mark.long)
    for kind in (PROMOTION, (50.0, "rolled back"))
    for write in range(19)
]


@pytest.mark.parametrize(("challenger", "decision", "write"), [*IN_SHORT, *KILLS])
def test_a_controller_killed_at_a_write_and_started_again_decides_once(world, write, challenger, decision):
    world.start()
    world.play(600, challenger=challenger, std=1.0)
    was_killed = kill_and_start_again(world, write)
    live = world.live()
    assert (live.experiment.decision, live.settings.finished) == (decision, True)
    assert outcome() == (OTHER if decision == "promoted" else CHAMPION, 1, [])
    assert mlflow.MlflowClient().get_run(live.settings.run_id).info.status == "FINISHED"
    if not was_killed:
        assert write > 12, "fewer writes than an experiment has"


@pytest.mark.parametrize("leased", [True, False], ids=["with the lease", "though both have it"])
def test_two_controllers_at_once_decide_once(world, monkeypatch, leased):
    world.start()
    world.play(600, std=1.0)
    if not leased:
        monkeypatch.setattr(Lease, "acquire", lambda _: None)
    controllers = [world.controller(settle_s=0.5) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda each: each.run(), controllers))
    assert [each.experiment.decision for each in ended] == ["promoted"] * 2
    assert ended[0].settings.decided_at == ended[1].settings.decided_at
    assert outcome() == (OTHER, 1, [])


@pytest.mark.parametrize(("by_hand", "decision", "events"), [(OTHER, "promoted", 1), (3, "superseded", 0)])
def test_a_version_that_a_person_assigns_between_a_decision_and_the_promotion(
    world, registry, by_hand, decision, events
):
    """The controller was killed after its decision."""
    registry.register(MODEL)
    world.start()
    world.play(600, std=1.0)
    with pytest.raises(Killed), killed_after(2):
        world.controller().run()
    assert (world.live().experiment.decision, TARGET.current_version()) == ("promoted", CHAMPION)
    registry.promote(MODEL, by_hand)
    forget_lease(world)
    assert world.controller().run().experiment.decision == decision
    assert outcome() == (by_hand, events, [])


def test_two_decisions_that_were_carried_out_both_are_one_event(world):
    """What is left if a write takes longer than both controllers wait."""
    world.start()
    world.play(600, std=1.0)
    ended = world.controller().run()
    history.record(TARGET, OTHER, "experiment", f"{ended.experiment.id}: version 2 promoted: a moment later")
    assert outcome() == (OTHER, 1, [])


def test_a_controller_waits_while_another_one_has_the_lease_and_takes_over_when_it_is_over(world):
    world.start()
    world.play(600, std=1.0)
    first = Lease(world.live(), settle_s=0.0, lease_s=60.0, owner="other-host:1:x")
    assert first.acquire() is None
    second = world.controller()
    second.look()
    assert world.live().is_running
    assert world.lines == ["Another controller acts on the experiment (other-host, process 1); this one waits."]
    first.release()
    second.look()
    assert world.live().experiment.decision == "promoted"


def test_the_lease_of_a_process_that_is_gone_is_free(world):
    live = world.start()
    assert Lease(live, settle_s=0.0, owner=f"{socket.gethostname()}:{ENDED_PROCESS}:x").acquire() is None
    assert Lease(live, settle_s=0.0).acquire() is None


def test_a_lease_that_is_not_renewed_ends(world):
    live = world.start()
    assert Lease(live, settle_s=0.0, lease_s=0.0, owner="other-host:1:x").acquire() is None
    assert Lease(live, settle_s=0.0).acquire() is None


def test_of_two_that_take_the_lease_at_once_one_has_it(world):
    live = world.start()
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda _: Lease(live, settle_s=0.5).acquire(), range(2)))
    assert others.count(None) == 1


def test_a_lease_that_could_not_be_written_is_not_had(world, monkeypatch):
    live = world.start()
    lease = Lease(live, settle_s=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_model_version_tag", unreachable)
        with pytest.raises(MlflowException):
            lease.acquire()
    assert Lease(live, settle_s=0.0, owner="other-host:1:x").acquire() is None
    assert lease.acquire() == "other-host, process 1"


def unreachable(*_, **__):
    raise MlflowException("no answer")
