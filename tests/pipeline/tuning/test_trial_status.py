"""The best trial has the best greedy return; of equal ones, a perfect trial wins, then the one with fewer steps."""

from pipeline.tuning.trial_status import TrialState, TrialStatus, best


def trial(number, mean, **attributes):
    return TrialStatus(number, {"lr": 0.1}, TrialState.FINISHED, f"run {number}", 9000, mean, **attributes)


def test_the_highest_return_wins():
    assert best([trial(1, 100.0), trial(2, 300.0), trial(3, 200.0)]).number == 2


def test_of_equal_returns_the_perfect_one_wins_then_the_one_with_fewer_steps():
    quick, slow = trial(1, 500.0, best_step=4000), trial(2, 500.0, best_step=8000)
    assert best([slow, quick]) is quick
    perfect = trial(3, 500.0, best_step=9000, best_perfect=True)
    assert best([quick, perfect]) is perfect


def test_a_trial_that_failed_or_was_never_evaluated_is_not_the_best():
    failed = trial(1, 900.0)
    failed.state = TrialState.FAILED
    assert best([failed, TrialStatus(2, {})]) is None


def test_a_status_is_restored_from_its_tag():
    status = trial(4, 12.5, best_step=3)
    assert TrialStatus.from_tag(status.as_tag()) == status


def test_only_trials_that_ended_stay_when_a_search_is_resumed():
    final = {state for state in TrialState if state.is_final}
    assert final == {TrialState.FINISHED, TrialState.STOPPED_EARLY, TrialState.OUT_OF_TIME, TrialState.FAILED}
