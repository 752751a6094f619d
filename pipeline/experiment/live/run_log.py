"""The MLflow run of an experiment: its settings, its figures by time, and its result; and the links to it."""

import contextlib
import logging
import math
import os
import re
from collections.abc import Iterator

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.experiment.chart import METRICS, draw
from pipeline.experiment.live.figures import Arm, Figures
from pipeline.experiment.live.settings import JUDGED
from pipeline.experiment.live.state import Live
from pipeline.registry.target import Target
from pipeline.tracking.run import NOT_FOUND
from serving.errors import redacted
from serving.registry.tracking import check_artifact_uri

logger = logging.getLogger(__name__)

CHART = "experiment.png"
"""The artifact with the chart."""

RUN_TAG = "experiment.run"
"""The tag of the champion's and the challenger's version with the id of the run."""

ROLE, DECISION, WHY, VERDICT = "experiment.role", "experiment.decision", "experiment.why", "experiment.verdict"
"""The tags of the run; the first one is of the versions."""

_BEGIN, _END = "<!-- experiment: written by `pipeline experiment` -->", "<!-- end of experiment -->"
_SECTION = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", flags=re.DOTALL)
_MAX_DESCRIPTION = 5000
"""MLflow stores no longer description in most databases."""


def create(target: Target, champion: int, challenger: int, trained: str | None) -> str:
    """Create the run, in the MLflow experiment of the challenger's training if that is known; return its id."""
    client = mlflow.MlflowClient()
    experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
    with contextlib.suppress(MlflowException):
        run = client.get_run(trained) if trained else None
        if run is not None and run.info.lifecycle_stage == "active":
            experiment_id = run.info.experiment_id
    name = f"experiment {target.model} {challenger} against {champion}"
    note = (
        f"Version {challenger} of {target.model} acts in a share of the live episodes of version {champion}. The "
        f"metrics by time are in the charts; their step is the time since the start in seconds. The artifact `{CHART}` "
        "has the most important ones in one picture."
    )
    return str(client.create_run(experiment_id, run_name=name, tags={MLFLOW_RUN_NOTE: note}).info.run_id)


def log_settings(live: Live) -> None:
    """Log the parameters of the experiment, and link its versions to the run."""
    experiment, settings, rules = live.experiment, live.settings, live.settings.rules
    params = {
        "experiment": experiment.id,
        "model": live.target.model,
        "target": str(live.target),
        "champion": experiment.champion,
        "challenger": experiment.challenger,
        "shares": ", ".join(f"{share:g}" for share in settings.shares),
        "margin": rules.margin,
        "alpha": rules.alpha,
        "budget": rules.budget,
        "expected_return": rules.expected_return,
        "default_return": rules.unreported_return,
        "return_bounds": rules.return_bounds,
        "minimum_episodes": rules.minimum_episodes,
        "step_episodes": settings.step_episodes,
        "reward_wait_s": settings.reward_wait_s,
        "expires_s": experiment.expires_s,
        "experience": settings.experience,
        "decide": settings.decide,
        "by": settings.started_by,
    }
    logged = [Param(key, str(value)) for key, value in params.items()]
    mlflow.MlflowClient().log_batch(settings.run_id, params=logged)
    link(live)


def log(live: Live, figures: Figures) -> None:
    """Log the figures of a moment."""
    step, now = int(figures.at_s - live.settings.started_s), int(figures.at_s * 1000)
    values = {
        "share": figures.share,
        "difference/estimate": figures.difference,
        "difference/lower_bound": figures.lower,
        "difference/upper_bound": figures.upper,
        "sample_ratio/log10_e_value": figures.ratio / math.log(10),
        **_of_arm("champion", figures.champion),
        **_of_arm("challenger", figures.challenger),
        "served/challenger": figures.served,
    }
    metrics = [Metric(key, value, now, step) for key, value in values.items() if math.isfinite(value)]
    with _if_exists():
        mlflow.MlflowClient().log_batch(live.settings.run_id, metrics=metrics)


def draw_chart(live: Live) -> None:
    """Replace the chart of the run. Whatever fails in the artifact store is logged: the experiment needs no chart."""
    client, run_id, experiment = mlflow.MlflowClient(), live.settings.run_id, live.experiment
    title = f"{live.target.model}: version {experiment.challenger} against {experiment.champion}"
    try:
        found = {key: client.get_metric_history(run_id, key) for key in METRICS}
        points = {key: sorted((float(each.step), each.value) for each in history) for key, history in found.items()}
        check_artifact_uri(client.get_run(run_id).info.artifact_uri)
        client.log_figure(run_id, draw(title, live.settings.rules.margin, points), CHART)
    except Exception as error:  # noqa: BLE001  # each artifact store raises exceptions of its own
        logger.warning("the chart of the experiment was not uploaded: %s", redacted(str(error)))


def _of_arm(name: str, arm: Arm) -> dict[str, float]:
    reported = arm.reported / arm.settled if arm.settled else math.nan
    return {
        f"episodes/{name}": arm.episodes,
        f"settled/{name}": arm.settled,
        f"reported/{name}": reported,
        f"return/{name}": arm.return_mean,
    }


def tag_verdict(live: Live, verdict: str) -> None:
    """Write what the figures would decide, for an experiment that is only reported."""
    with _if_exists():
        mlflow.MlflowClient().set_tag(live.settings.run_id, VERDICT, verdict)


def finish(live: Live) -> None:
    """Write the decision to the run and end it, and update the links of the versions. Repeating it changes nothing."""
    client, run_id = mlflow.MlflowClient(), live.settings.run_id
    decision = str(live.experiment.decision)
    with _if_exists():
        client.set_tag(run_id, DECISION, decision)
        client.set_tag(run_id, WHY, live.settings.why)
        client.set_terminated(run_id, "FINISHED" if decision in JUDGED else "KILLED")
    link(live)
    draw_chart(live)


def abandon(run_id: str) -> None:
    """End the run of an experiment that did not start, or whose tag was removed."""
    with _if_exists():
        mlflow.MlflowClient().set_terminated(run_id, "KILLED")


def link(live: Live) -> None:
    """Write the link to the run into the descriptions and the tags of both versions."""
    client = mlflow.MlflowClient()
    with _if_exists():
        info = client.get_run(live.settings.run_id).info
        text = _text(live, f"#/experiments/{info.experiment_id}/runs/{info.run_id}/model-metrics")
        for number, role in ((live.experiment.champion, "champion"), (live.experiment.challenger, "challenger")):
            model, version = live.target.model, str(number)
            description = client.get_model_version(model, version).description or ""
            changed = _with_section(description, text)
            if changed != description and len(changed) <= _MAX_DESCRIPTION:
                client.update_model_version(model, version, changed)
            for key, value in ((RUN_TAG, info.run_id), (ROLE, role)):
                client.set_model_version_tag(model, version, key, value)


def _text(live: Live, url: str) -> str:
    experiment = live.experiment
    how = experiment.decision or "running"
    return (
        f"**Experiment** on the {live.target}: [version {experiment.challenger} against {experiment.champion}]({url}), "
        f"{how}{': ' if live.settings.why else ''}{live.settings.why}."
    )


def _with_section(description: str, text: str) -> str:
    section = f"{_BEGIN}\n{text}\n{_END}"
    if _SECTION.search(description):
        return _SECTION.sub(lambda _: section, description, count=1)
    return f"{description.rstrip()}\n\n{section}".lstrip()


@contextlib.contextmanager
def _if_exists() -> Iterator[None]:
    """Do without what somebody has deleted: a run, or a version."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in NOT_FOUND:
            raise
