"""Errors of the commands themselves."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ImportRefused(ServingError):
    """The server names an environment for which code outside Gymnasium would run in the client's process."""

    template = (
        "to make the environment '{env_id}', Python modules that the server names would be imported here. Add "
        "--allow-import if you trust it, or name the environment yourself with --env-id"
    )

    env_id: str


@dataclass(eq=False)
class EpisodeFailed(ServingError):
    """The environment raised an exception, possibly because the server's action is none of its own."""

    seed: int
    step: int
    action: str
    reason: str

    template = (
        "the environment failed in step {step} of the episode with seed {seed}, after the server's action {action}: "
        "{reason}. Check that the server's policy was trained in this environment"
    )
