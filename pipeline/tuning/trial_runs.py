"""The MLflow runs of a search's trials: a child run for each, written by the process that searches."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import mlflow

from pipeline.tracking import checkpoint_store as checkpoints
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import Outbox, Say, patiently
from pipeline.tuning.ray_tune import Plan, Report
from pipeline.tuning.trial_status import Standing, TrialState

NUMBER_TAG = "trial.number"
SETTINGS_TAG = "trial.settings"
STANDING_TAG = "trial.standing"
_ERROR_TAG = "trial.error"

#: Seconds that interrupted trials give their last checkpoints to arrive, each.
_LAST_UPLOAD_S = 60.0


class TrialBook:
    """Listens to trials, and writes what they report into their runs: a request per report, not one per metric.

    Args:
        run_id: Of the parent run.
        standings: Of all trials; kept up to date.
        plans: Of those that are to be run.
        say: Is told what a person should know.
        show: Is called after each change.
    """

    def __init__(
        self,
        run_id: str,
        standings: Sequence[Standing],
        plans: Sequence[Plan],
        say: Say,
        show: Callable[[Standing], None],
    ) -> None:
        self._run_id = run_id
        self._standings = {each.number: each for each in standings}
        self._plans = {plan.number: plan for plan in plans}
        self._outboxes: dict[int, Outbox] = {}
        self._say = say
        self._show = show

    def started(self, number: int) -> None:
        """Begin the trial's run, or go on with the one that it has."""
        standing = self._standings[number]
        if standing.run_id is None:
            patiently(functools.partial(self._begin_run, standing), self._say)
        else:
            run_id = standing.run_id
            patiently(lambda: mlflow.MlflowClient().update_run(run_id, status="RUNNING"), self._say)
        standing.state = TrialState.RUNNING
        assert standing.run_id is not None  # noqa: S101  # it has begun
        self._outboxes[number] = Outbox(standing.run_id, self._say, samples_system=False)
        self._outboxes[number].open()
        self._show(standing)

    def reported(self, number: int, report: Report) -> None:
        """Send the metrics and the checkpoint."""
        standing, outbox = self._standings[number], self._outboxes[number]
        standing.env_steps, standing.best_mean = report.env_steps, report.best_mean
        standing.best_step, standing.best_perfect = report.best_step, report.best_perfect
        for timestamp_ms, step, metrics in report.metrics:
            outbox.metrics(metrics, step, timestamp_ms)
        archive = self._archive(number)
        outbox.file("checkpoint", functools.partial(checkpoints.upload, outbox.run_id, archive))
        self._show(standing)

    def ended(self, number: int, *, is_over: bool) -> None:
        """End the trial's run."""
        self._end(number, TrialState.FINISHED if is_over else TrialState.STOPPED_EARLY)

    def failed(self, number: int, reason: str) -> None:
        """End the trial's run, FAILED, and say why."""
        if number not in self._outboxes:
            self.started(number)
        run_id = self._outboxes[number].run_id
        self._outboxes[number].file(
            "error", functools.partial(mlflow.MlflowClient().set_tag, run_id, _ERROR_TAG, reason[:5000])
        )
        self._say(f"Trial {number} failed: {reason}")
        self._end(number, TrialState.FAILED)

    def end_the_rest(self, state: TrialState) -> None:
        """End the runs of trials that did not end."""
        for number in list(self._outboxes):
            self._end(number, state)

    def _begin_run(self, standing: Standing) -> None:
        config = self._plans[standing.number].config
        tags = {NUMBER_TAG: str(standing.number), SETTINGS_TAG: json.dumps(dict(standing.settings))}
        name = f"trial {standing.number}"
        standing.run_id = tracking.begin_child(self._run_id, name, config.as_params(), tags)

    def _end(self, number: int, state: TrialState) -> None:
        standing, outbox = self._standings[number], self._outboxes.pop(number)
        standing.state = state
        outbox.file("end", functools.partial(_end_run, standing))
        interrupted = state == TrialState.INTERRUPTED
        if not outbox.flush(_LAST_UPLOAD_S if interrupted else None):
            self._say(f"The last checkpoint of trial {number} did not arrive; it goes on from an earlier one")
        outbox.close()
        self._show(standing)

    def _archive(self, number: int) -> Path:
        directory = self._plans[number].directory
        return directory.with_name(f"{directory.name}.tar")


def _end_run(standing: Standing) -> None:
    assert standing.run_id is not None  # noqa: S101  # it has begun
    status = {TrialState.FAILED: "FAILED", TrialState.INTERRUPTED: "KILLED"}.get(standing.state, "FINISHED")
    client = mlflow.MlflowClient()
    client.set_tag(standing.run_id, STANDING_TAG, standing.as_tag())
    client.set_terminated(standing.run_id, status)


def read(run_id: str, standings: Sequence[Standing]) -> None:
    """Bring standings up to date with what an earlier process wrote below a parent run."""
    by_number = {standing.number: standing for standing in standings}
    for run in tracking.children(run_id):
        number = int(run.data.tags.get(NUMBER_TAG, 0))
        if number not in by_number:
            continue
        standing, tag = by_number[number], run.data.tags.get(STANDING_TAG)
        if tag is not None:
            vars(standing).update(vars(Standing.from_tag(tag)))
        if not standing.state.is_final:
            standing.state, standing.run_id = TrialState.WAITING, run.info.run_id
