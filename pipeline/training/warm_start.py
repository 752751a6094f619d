"""The registered policy that a training run starts from."""

from dataclasses import dataclass
from pathlib import Path

import mlflow

from pipeline.bundle import assemble as bundle
from pipeline.environments.make import Environment
from pipeline.export.observation_filter import FrozenFilter
from pipeline.rllib.trainer import Trainer
from pipeline.tracking import run as tracking
from pipeline.training.errors import CannotContinueFrom
from serving.policy.policy import Policy
from serving.registry.registry import fetch, resolve


@dataclass(frozen=True)
class Origin:
    """A version whose weights training starts with.

    Attributes:
        uri: The version, pinned to its number.
        model_id: Of MLflow's logged model.
        checkpoint: Downloaded.
    """

    uri: str
    model_id: str | None
    checkpoint: Path

    def hand_over(self, trainer: Trainer) -> None:
        """Give the trainer the weights.

        Raises:
            CannotContinueFrom: If its network has another shape, or either is filtered.
        """
        if trainer.is_filtered or FrozenFilter.of_checkpoint(self.checkpoint) is not None:
            reason = "the figures of its mean/std filter would not come along. Train anew."
            raise CannotContinueFrom(self.uri, reason)
        try:
            trainer.load_weights(self.checkpoint)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CannotContinueFrom(self.uri, f"its network has another shape. {reason}") from error


def find(model_uri: str, environment: Environment, directory: Path) -> Origin:
    """Resolve a registered policy and download its checkpoint.

    Args:
        model_uri: `models:/NAME/VERSION`, or a stage, an alias, `latest`.
        environment: What it is to be trained on.
        directory: For the download.

    Raises:
        ServingError: If the version cannot be resolved, fetched or verified.
        CannotContinueFrom: If its spaces are not those of the environment.
    """
    version = resolve(model_uri)
    policy = Policy.load(fetch(version))
    _require_same_spaces(version.pinned_uri, policy, environment)
    checkpoint = mlflow.artifacts.download_artifacts(
        f"{version.pinned_uri}/{bundle.CHECKPOINT_DIRECTORY}", dst_path=str(directory)
    )
    return Origin(version.pinned_uri, tracking.model_id_of(version.name, version.version), Path(checkpoint))


def _require_same_spaces(uri: str, policy: Policy, environment: Environment) -> None:
    for role in ("observation", "action"):
        its, ours = (getattr(each, f"{role}_space") for each in (policy, environment))
        if its != ours:
            reason = f"its {role} space is {its}, that of {environment.id} is {ours}."
            raise CannotContinueFrom(uri, " ".join(reason.split()))
