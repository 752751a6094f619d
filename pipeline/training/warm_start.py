"""Starts a training run with the weights of a registered policy."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle import checkpoint_files
from pipeline.environments.make import Environment
from pipeline.rllib.checkpoint_layout import load_filter
from pipeline.rllib.trainer import Trainer
from pipeline.tracking import run as tracking
from pipeline.training.errors import CannotContinueFrom
from serving.policy.policy import Policy
from serving.policy.spaces import space_differences
from serving.registry.registry import fetch, resolve


@dataclass(frozen=True)
class InitialPolicy:
    """A registered version whose weights training starts with.

    Attributes:
        uri: The model URI with the number of the version.
        model_id: The id of MLflow's logged model, if known.
        checkpoint: The downloaded RLlib checkpoint.
    """

    uri: str
    model_id: str | None
    checkpoint: Path

    def load_into(self, trainer: Trainer) -> None:
        """Load the weights into a trainer.

        Raises:
            CannotContinueFrom: If the network has another shape, or either policy filters observations.
        """
        if trainer.is_filtered or load_filter(self.checkpoint) is not None:
            reason = "the statistics of a mean/std filter cannot be transferred. Start a new training."
            raise CannotContinueFrom(self.uri, reason)
        self.load_weights_into(trainer)

    def load_weights_into(self, trainer: Trainer) -> None:
        """Load the weights into a trainer, whatever its filter. Raises CannotContinueFrom for another network."""
        try:
            trainer.load_weights(self.checkpoint)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CannotContinueFrom(self.uri, f"its network has another shape. {reason}") from error


def download(
    model_uri: str, environment: Environment, directory: Path, *, trust_checkpoint: bool = False
) -> InitialPolicy:
    """Resolve the URI of a registered policy, and download its checkpoint into a directory.

    With `trust_checkpoint`, the version need not have a digest of its checkpoint.

    Raises:
        CheckpointDigestMissing, CheckpointChanged: If the checkpoint may not be the registered one.
        ServingError: If the version cannot be resolved, fetched or verified.
        CannotContinueFrom: If the policy has other spaces than the environment.
    """
    version = resolve(model_uri)
    policy = Policy.load(fetch(version))
    _require_same_spaces(version.pinned_uri, policy, environment)
    checkpoint = checkpoint_files.download(version, directory, trusted=trust_checkpoint)
    return InitialPolicy(version.pinned_uri, tracking.model_id_of(version.name, version.version), checkpoint)


def _require_same_spaces(uri: str, policy: Policy, environment: Environment) -> None:
    for role, found, expected in space_differences(policy, environment):
        reason = f"its {role} space is {found}, that of {environment.id} is {expected}."
        raise CannotContinueFrom(uri, " ".join(reason.split()))
