"""Writes the answer about a version to MLflow: metrics and inputs of a run, tags and the model card of the version."""

from dataclasses import dataclass

import mlflow
from mlflow.entities import LoggedModelInput

from pipeline.experience.dataset import log_experience
from pipeline.experience.online.section import with_section
from pipeline.experience.whole_episodes import WholeEpisodes
from pipeline.ope.judgement import Judgement
from pipeline.ope.reading import LeftOut
from pipeline.ope.statistics.logs import Logs
from pipeline.ope.target import Target
from pipeline.tracking.run import model_id_of

BEGIN, END = "<!-- ope: written by `pipeline ope` -->", "<!-- end of ope -->"
"""The lines around the section of the model card."""


@dataclass(frozen=True)
class Evaluated:
    """The answer about a version.

    Attributes:
        target: The version.
        against: The version that it was compared with; None for the recorded behaviour.
        judgement: The answer.
        logs: The episodes that it follows from.
        left_out: How many episodes were left out, by reason.
        whole: The whole episodes that those were read from.
    """

    target: Target
    against: Target | None
    judgement: Judgement
    logs: Logs
    left_out: LeftOut
    whole: WholeEpisodes


def record(run_id: str, evaluated: Evaluated) -> None:
    """Log the figures in a run that has the episodes and the version as inputs, and write them to the version."""
    target = evaluated.target
    log_experience(run_id, evaluated.whole)
    client = mlflow.MlflowClient()
    model_id = model_id_of(target.model, target.version)
    if model_id:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    mlflow.log_metrics(metrics(evaluated), run_id=run_id, model_id=model_id)
    answer = evaluated.judgement.answer.value
    client.set_tag(run_id, "ope.answer", answer)
    client.set_tag(run_id, "ope.reasons", "; ".join(evaluated.judgement.reasons) or "none")
    for key, value in {"ope.answer": answer, "ope.run": run_id, "ope.digest": evaluated.whole.digest}.items():
        client.set_model_version_tag(target.model, str(target.version), key, value)
    _write_card(run_id, evaluated)


def record_in_active_run(evaluated: Evaluated) -> None:
    """Record in the run of the command that is active."""
    active = mlflow.active_run()
    assert active is not None  # noqa: S101  # a promotion has a run
    record(active.info.run_id, evaluated)


def metrics(evaluated: Evaluated) -> dict[str, float]:
    """Return the figures by the name of their metric; those that are unknown are missing."""
    judgement = evaluated.judgement
    value = judgement.value
    found = {
        "ope/episodes": float(evaluated.logs.episodes),
        "ope/steps": float(evaluated.logs.steps),
        "ope/baseline": judgement.baseline.value,
        "ope/fitted_q": float(value.fitted_q.mean()),
        "ope/effective_episodes": value.effective,
        "ope/unsupported": value.unsupported,
    }
    if value.doubly_robust is not None and value.per_decision is not None:
        found["ope/doubly_robust"] = value.doubly_robust.value
        found["ope/per_decision"] = value.per_decision.value
    if judgement.against is not None and judgement.against.doubly_robust is not None:
        found["ope/against"] = judgement.against.doubly_robust.value
    if judgement.lower is not None and judgement.upper is not None:
        found |= {"ope/difference_lower": judgement.lower, "ope/difference_upper": judgement.upper}
    return found


def headline(judgement: Judgement) -> str:
    """Return the answer with the interval of the difference."""
    if judgement.lower is None or judgement.upper is None:
        return judgement.answer.value
    return f"{judgement.answer}, difference {judgement.lower:+.4g} to {judgement.upper:+.4g}"


def comparison(evaluated: Evaluated) -> str:
    """Return what the target is compared with."""
    return "what was recorded" if evaluated.against is None else f"version {evaluated.against.version}"


def _write_card(run_id: str, evaluated: Evaluated) -> None:
    """Write the section of the model card; leave it out if the card would become too long."""
    target, client = evaluated.target, mlflow.MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    value = evaluated.judgement.value
    text = (
        f"**Recorded episodes** say about it, against {comparison(evaluated)}: "
        f"**{headline(evaluated.judgement)}**. {evaluated.logs.episodes:,} episodes, which count like "
        f"{value.effective:.0f}; {value.unsupported:.1%} of its steps without support. "
        f"[Run](#/experiments/{experiment_id}/runs/{run_id})."
    )
    card = client.get_model_version(target.model, str(target.version)).description or ""
    changed = with_section(card, text, BEGIN, END)
    if changed is not None and changed != card:
        client.update_model_version(target.model, str(target.version), changed)
