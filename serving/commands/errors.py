"""Errors of the commands themselves."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ImportRefused(ServingError):
    """The server names an environment for which code outside Gymnasium would run in the client's process."""

    template = (
        "to make the environment '{env_id}', this command would import what the server names. If you trust it, add "
        "--environment-modules {modules}; or name the environment yourself with --env-id"
    )

    env_id: str
    modules: str
    """The modules, quoted for a shell."""


@dataclass(eq=False)
class ConfigInvalid(ServingError):
    """A Serve config file is missing, or Serve or the application would reject it."""

    template = "{file} is no valid Serve config file: {reason}"

    file: str
    reason: str


@dataclass(eq=False)
class DeploymentReplaced(ServingError):
    """Someone else has changed or deleted an application while it was deployed."""

    template = (
        "another deployment has replaced the application '{name}' meanwhile; run the command again if this one is to "
        "be served"
    )

    name: str
