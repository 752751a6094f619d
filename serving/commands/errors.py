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
