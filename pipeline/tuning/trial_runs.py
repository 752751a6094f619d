"""Writes the MLflow runs of trials, one child run each, from the process that runs the search."""

import contextlib
import functools
import json
import time
from collections.abc import Sequence

import mlflow

from pipeline.tracking import checkpoint_store
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import LAST_UPLOAD_S, MetricQueue
from pipeline.tracking.outages import retry_through_outages
from pipeline.tuning.progress import TuningTable
from pipeline.tuning.trial import TrialPlan, TrialReport
from pipeline.tuning.trial_status import TrialState, TrialStatus
from serving.errors import ExpectedError, redacted

NUMBER_TAG = "trial.number"
SETTINGS_TAG = "trial.settings"
STATUS_TAG = "trial.standing"
_ERROR_TAG = "trial.error"


class TrialRuns:
    """Receives the events of trials and writes their reports into their runs, one request per report.

    Args:
        run_id: The id of the parent run.
        statuses: The statuses of all trials, which are kept up to date.
        plans: The plans of the trials to run.
        progress: Shows each status that changed.
    """

    def __init__(
        self, run_id: str, statuses: Sequence[TrialStatus], plans: Sequence[TrialPlan], progress: TuningTable
    ) -> None:
        self._run_id = run_id
        self._statuses = {each.number: each for each in statuses}
        self._plans = {plan.number: plan for plan in plans}
        self._queues: dict[int, MetricQueue] = {}
        self._progress = progress

    def started(self, number: int) -> None:
        """Start the run of a trial, or resume the one that it has."""
        status = self._statuses[number]
        if not status.run_id:
            retry_through_outages(functools.partial(self._start_run, status), self._progress.note, f"trial {number}")
        else:
            resume = functools.partial(mlflow.MlflowClient().update_run, status.run_id, status="RUNNING")
            retry_through_outages(resume, self._progress.note, f"trial {number}")
        status.state = TrialState.RUNNING
        self._queues[number] = MetricQueue(status.run_id, self._progress.note, logs_system_metrics=False)
        self._queues[number].open()
        self._progress.changed(status)

    def reported(self, number: int, report: TrialReport) -> None:
        """Enqueue the metrics and the checkpoint of a trial."""
        status, queue = self._statuses[number], self._queues[number]
        status.env_steps, status.best_mean = report.env_steps, report.best_mean
        status.best_step, status.best_perfect = report.best_step, report.best_perfect
        for timestamp_ms, step, metrics in report.metrics:
            queue.log_metrics(metrics, step, timestamp_ms)
        archive = self._plans[number].workspace.archive
        queue.upload(
            "checkpoint", functools.partial(checkpoint_store.upload, queue.run_id, archive, self._progress.note)
        )
        self._progress.changed(status)

    def ended(self, number: int, *, is_finished: bool) -> None:
        """End the run of a trial that finished, or that the scheduler stopped."""
        self._end(number, TrialState.FINISHED if is_finished else TrialState.STOPPED_EARLY)

    def failed(self, number: int, reason: str) -> None:
        """End the run of a trial as FAILED, with the reason in the tag `trial.error`."""
        if number not in self._queues:
            self.started(number)
        reason = redacted(reason)
        queue = self._queues[number]
        set_error = functools.partial(mlflow.MlflowClient().set_tag, queue.run_id, _ERROR_TAG, reason[:5000])
        queue.upload("error", set_error)
        self._progress.note(f"Trial {number} failed: {reason}")
        self._end(number, TrialState.FAILED)

    def end_remaining(self, state: TrialState) -> None:
        """End the runs of all trials that are still running; interrupted ones wait for MLflow a minute in total."""
        deadline = time.monotonic() + LAST_UPLOAD_S
        errors = []
        for number in list(self._queues):
            limit_s = max(0.0, deadline - time.monotonic()) if state == TrialState.INTERRUPTED else None
            try:
                self._end(number, state, limit_s)
            except ExpectedError as error:  # the other trials end nevertheless
                errors.append(error)
                self._abandon(number)
            except BaseException:  # a second signal
                for each in list(self._queues):
                    self._abandon(each)
                raise
        if errors and state != TrialState.INTERRUPTED:
            raise errors[0]

    def _abandon(self, number: int) -> None:
        """End the run of a trial without what its queue has not sent."""
        status = self._statuses[number]
        status.state = TrialState.INTERRUPTED
        self._queues.pop(number).close()
        with contextlib.suppress(Exception):
            _end_run(status)

    def _start_run(self, status: TrialStatus) -> None:
        config = self._plans[status.number].config
        tags = {NUMBER_TAG: str(status.number), SETTINGS_TAG: json.dumps(dict(status.settings))}
        status.run_id = tracking.start_child(self._run_id, f"trial {status.number}", config.as_params(), tags)

    def _end(self, number: int, state: TrialState, limit_s: float | None = None) -> None:
        status, queue = self._statuses[number], self._queues[number]
        status.state = state
        try:
            # The run ends after its checkpoint has arrived: a trial that ended is not run again.
            queue.flush(limit_s)
            queue.upload("end", functools.partial(_end_run, status))
            queue.flush(limit_s)
        finally:
            archive = self._plans[number].workspace.archive
            if archive.exists() and state != TrialState.FAILED:
                where = checkpoint_store.secure(status.run_id, archive)
                if state == TrialState.INTERRUPTED or not where.endswith("is in MLflow"):
                    self._progress.note(f"The newest checkpoint of trial {number}, {where}")
        del self._queues[number]
        queue.close()
        self._progress.changed(status)


def _end_run(status: TrialStatus) -> None:
    run_status = {TrialState.FAILED: "FAILED", TrialState.INTERRUPTED: "KILLED"}.get(status.state, "FINISHED")
    client = mlflow.MlflowClient()
    client.set_tag(status.run_id, STATUS_TAG, status.as_tag())
    client.set_terminated(status.run_id, run_status)


def read(run_id: str, statuses: Sequence[TrialStatus]) -> None:
    """Update the statuses with the child runs of a run, which an earlier process wrote."""
    by_number = {status.number: status for status in statuses}
    for run in tracking.children(run_id):
        number = int(run.data.tags.get(NUMBER_TAG, 0))
        if number not in by_number:
            continue
        status, tag = by_number[number], run.data.tags.get(STATUS_TAG)
        if tag is not None:
            vars(status).update(vars(TrialStatus.from_tag(tag)))
        if not status.state.is_final:
            status.state, status.run_id = TrialState.WAITING, run.info.run_id
