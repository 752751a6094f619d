"""Which episodes count in an experiment, for which arm, and what follows from them."""

import math

import pytest

from pipeline.experiment.live.controller import may_rise, reason
from pipeline.experiment.live.figures import Arm, Figures, figures
from pipeline.experiment.live.outcomes import Outcome, Report
from pipeline.experiment.live.settings import Settings
from pipeline.experiment.live.state import Live
from pipeline.experiment.statistics.decision import Decision
from pipeline.experiment.statistics.rules import Rules
from serving.experiments.experiment import Experiment, Step
from tests.pipeline.experience.recording import HASH
from tests.pipeline.experiment.live.world import TARGET

START_S, WAIT_S, EXPIRES_S = 1_000.0, 100.0, 5_000.0
RULES = Rules(margin=20.0, budget=10_000, expected_return=100.0, expected_std=20.0)
SETTINGS = Settings("uri", RULES, (0.1, 0.5, 0.9), WAIT_S, "run", 900.0, "me", record_wait_s=50.0)


def live_of(*later: Step, settings=SETTINGS, decision=None) -> Live:
    steps = (Step(START_S, 0.5), *later)
    return Live(TARGET, Experiment("id", "salt", 1, 2, steps, EXPIRES_S, decision), settings)


def outcome(at_s, version=1, returned=100.0, reported_after=10.0) -> Outcome:
    told = [Report(int((at_s + reported_after) * 1e9), returned, is_end=True)]
    return Outcome(int(at_s * 1e9), version, told if returned is not None else [])


def arm_of(live, name, at_s):
    return live.experiment.arm(HASH(name), at_s)


def episodes(times, **options):
    return {HASH(f"e{number}"): outcome(at_s, **options) for number, at_s in enumerate(times)}


def total(found: Figures) -> int:
    return found.champion.episodes + found.challenger.episodes


@pytest.mark.parametrize(
    ("at_s", "counts"),
    [
        (START_S - 1, False),
        (START_S + 29.9, False),
        (START_S + 30.1, True),
        (2000.0 - 2.9, False),
        (2000.0 + 2.9, False),
        (2000.0 + 3.1, True),
        (EXPIRES_S - 1, True),
        (EXPIRES_S, False),
    ],
)
def test_an_episode_counts_by_the_time_of_its_first_decision(at_s, counts):
    live = live_of(Step(2000.0, 0.6))
    assert total(figures(live, episodes([at_s]), 10_000.0)) == counts


def test_a_challenger_is_not_promoted_for_settled_episodes_in_which_the_champion_acted():
    """Servers that were cut off from the registry began to let it act only a while ago."""
    live = live_of()
    early = episodes([START_S + 31 + n / 20 for n in range(1000)], version=1)
    late = {
        HASH(f"late{number}"): outcome(at_s, version=2 if arm_of(live, f"late{number}", at_s) == "challenger" else 1)
        for number, at_s in enumerate(START_S + 200 + n / 200 for n in range(20_000))
    }
    found = figures(live, early | late, START_S + 290)
    assert (found.settled_served, found.served > 0.9, found.recently_served) == (0.0, True, 1.0)
    assert (found.statistics, found.decision) == (Decision.PROMOTE, Decision.CONTINUE)
    assert figures(live, early | late, START_S + 1000).decision == Decision.PROMOTE


def test_a_challenger_is_not_promoted_for_champions_episodes_in_which_another_version_acted():
    """Another server, such as that of Staging, has the challenger for all its episodes, and records to the same URI."""
    live = live_of()
    mixed = {
        HASH(f"e{number}"): outcome(START_S + 31 + number / 20, version=2 if number % 2 or is_challenger else 1)
        for number in range(20_000)
        for is_challenger in [arm_of(live, f"e{number}", START_S + 31 + number / 20) == "challenger"]
    }
    found = figures(live, mixed, 10_000.0)
    assert (found.statistics, found.served) == (Decision.PROMOTE, 1.0)
    assert 0.49 < found.champion_served < 0.51
    assert found.decision == Decision.BLOCKED
    assert reason(live, found).startswith("version 1 began only 50% of the champion's episodes: ")


def test_episodes_after_the_decision_do_not_count_and_those_before_still_do():
    decided = live_of().decided("stopped", "1970-01-01T00:25:00Z", "why")  # 1,500 s
    assert total(figures(decided, episodes([1400.0, 1600.0]), 10_000.0)) == 1


def test_an_episode_counts_for_its_arm_whichever_version_answered():
    live = live_of()
    found = figures(live, episodes([1100.0 + n for n in range(200)], version=1), 10_000.0)
    expected = sum(arm_of(live, f"e{n}", 1100.0 + n) == "challenger" for n in range(200))
    assert found.challenger.episodes == expected
    assert found.served == 0.0


def test_an_episode_is_settled_when_its_wait_and_that_for_its_record_are_over():
    live = live_of()
    found = [figures(live, episodes([1100.0]), 1100.0 + WAIT_S + 50 + shift) for shift in (-0.1, 0.1)]
    assert [each.settled for each in found] == [0, 1]


def test_what_is_reported_too_late_or_never_counts_as_the_default_return():
    live = live_of()
    late = episodes([1100.0], reported_after=WAIT_S + 1)
    never = episodes([1100.0], returned=None)
    for each in (late, never):
        found = figures(live, each, 10_000.0)
        (arm,) = [arm for arm in (found.champion, found.challenger) if arm.episodes]
        assert (arm.settled, arm.reported, arm.return_mean) == (1, 0, RULES.unreported_return)


def test_reports_without_a_decision_are_no_episode():
    live = live_of()
    assert total(figures(live, {HASH("e"): Outcome(None, 0, outcome(1100.0).reports)}, 10_000.0)) == 0


def test_returns_outside_the_known_bounds_count_as_the_bounds():
    rules = Rules(20.0, 1000, 100.0, 20.0, return_bounds=(0.0, 500.0))
    live = live_of(settings=Settings("uri", rules, (0.5,), WAIT_S, "run", 900.0, "me"))
    found = figures(live, episodes([1100.0], returned=1e9), 10_000.0)
    assert (found.clipped, max(found.champion.settled, found.challenger.settled)) == (1, 1)
    assert 500.0 in {found.champion.return_mean, found.challenger.return_mean}


def test_an_absurd_return_decides_nothing_and_breaks_nothing():
    live = live_of()
    many = episodes([1100.0 + n for n in range(200)], version=2)
    many[HASH("e0")] = outcome(1100.0, returned=1.7e308)
    assert figures(live, many, 10_000.0).decision in {Decision.CONTINUE, Decision.BLOCKED}


def test_the_first_seconds_do_not_count_in_who_answered():
    live = live_of()
    begun = [START_S + 4 + n / 100 for n in range(400)]
    assert math.isnan(figures(live, episodes(begun, version=1), 10_000.0).served)


@pytest.mark.parametrize(
    ("statistics", "served", "recent", "settled", "champion", "decision"),
    [
        (Decision.PROMOTE, 1.0, 1.0, 1.0, 1.0, Decision.PROMOTE),
        (Decision.PROMOTE, 0.89, 1.0, 1.0, 1.0, Decision.BLOCKED),
        (Decision.PROMOTE, 0.95, 0.49, 1.0, 1.0, Decision.BLOCKED),
        (Decision.PROMOTE, 0.95, 1.0, 0.89, 1.0, Decision.CONTINUE),
        (Decision.PROMOTE, 1.0, 1.0, 1.0, 0.89, Decision.BLOCKED),
        (Decision.PROMOTE, math.nan, math.nan, 1.0, 1.0, Decision.CONTINUE),
        (Decision.PROMOTE, 1.0, 1.0, math.nan, 1.0, Decision.CONTINUE),
        (Decision.PROMOTE, 1.0, 1.0, 1.0, math.nan, Decision.CONTINUE),
        (Decision.CONTINUE, 0.5, 0.5, 0.5, 1.0, Decision.BLOCKED),
        (Decision.ROLL_BACK, 0.5, 0.5, 0.5, 0.5, Decision.ROLL_BACK),
        (Decision.INCONCLUSIVE, math.nan, math.nan, math.nan, math.nan, Decision.INCONCLUSIVE),
    ],
)
def test_a_challenger_is_promoted_only_if_both_versions_acted(statistics, served, recent, settled, champion, decision):
    parts = {"served": served, "recently_served": recent, "settled_served": settled, "champion_served": champion}
    assert Figures(2000.0, 0.5, statistics=statistics, **parts).decision == decision


@pytest.mark.parametrize(
    ("changes", "rises"),
    [
        ({}, True),
        ({"settled_at_share": 49}, False),
        ({"settled_served": 0.89}, False),
        ({"difference": -5.0, "error": 2.0}, False),
        ({"difference": -5.0, "error": 3.0}, True),
        ({"statistics": Decision.BLOCKED}, False),
        ({"at_s": EXPIRES_S + 1}, False),
    ],
)
def test_the_share_rises_after_enough_episodes_without_a_sign_of_harm(changes, rises):
    known = {"at_s": 2000.0, "share": 0.5, "settled_at_share": 50, "difference": 1.0, "error": 1.0}
    assert may_rise(live_of(), Figures(**{**known, **changes})) == rises


def test_the_share_does_not_rise_beyond_the_last_step():
    live = live_of(Step(2000.0, 0.6), Step(3000.0, 0.9))
    assert not may_rise(live, Figures(4000.0, 0.9, settled_at_share=1000, difference=1.0, error=1.0))


def test_the_reason_of_a_block_names_the_parts_that_were_reported():
    found = Figures(2000.0, 0.5, Arm(300, 200, 198, 100.0), Arm(300, 200, 100, 99.0), statistics=Decision.BLOCKED)
    assert reason(live_of(), found).startswith(
        "the arms do not report alike: 50.0% of the challenger's episodes and 99.0% of the champion's; return 99.0"
    )
