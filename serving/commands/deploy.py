"""`python -m serving deploy` and `delete`: change the applications of a Serve config file, and leave all others alone.

Serve's own `serve deploy` deletes each application that is not in the file. These commands send Serve the
configurations of the other applications as well, which it then finds unchanged.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from serving.arguments import Arguments
from serving.commands.errors import ConfigInvalid, DeploymentReplaced
from serving.errors import one_line
from serving.ray.errors import (
    ApplicationMissing,
    ApplicationOfServer,
    ClusterUnreachable,
    DeploymentFailed,
    RouteTaken,
    failure_reason,
)
from serving.ray.node import delete_left_behind
from serving.release import release

IMPORT_PATH = "serving.app:build"
POLL_S = 0.5

Config = dict[str, Any]
"""The configuration of one application, or of a whole file, as JSON."""


def deploy(file: Path, address: str, timeout_s: float) -> None:
    """Deploy the applications of a file, and wait until Serve has replaced their replicas.

    Raises:
        ConfigInvalid: The file is no valid configuration.
        ClusterUnreachable: Ray's dashboard does not answer at `address`.
        ApplicationOfServer, RouteTaken: An application would replace one that is not in the file.
        DeploymentFailed: A replica failed to start, or Serve was not ready in time. Replicas of before still answer.
        DeploymentReplaced: Another deployment changed the applications meanwhile.
    """
    config = read_config(file)
    serve = _Dashboard(address)
    before = serve.applications()
    serve.put(merged(config, before, serve.target_capacity))
    deadline = time.monotonic() + timeout_s
    for wanted in config["applications"]:
        name = wanted["name"]
        same = name in before and _is_same(before[name].get("deployed_app_config"), wanted, "deployments")
        click.echo(f"{name}: {'unchanged,' if same else 'deploying'} release {one_line(wanted['args']['release'])} ...")
        _wait(serve, wanted, deadline, timeout_s)
        click.echo(f"{name}: answers at {wanted.get('route_prefix', '/')}")


def delete(name: str, address: str, ray_address: str | None = None) -> None:
    """Delete an application that was deployed from a file, and leave all others as they are.

    With the address of the Ray cluster, it is one whose server joined the cluster and was killed.

    Raises:
        The errors of `delete_left_behind`, if there is a `ray_address`.
        ClusterUnreachable: Ray's dashboard does not answer at `address`.
        ApplicationMissing: No application of that name was deployed from a file.
        ApplicationOfServer: It is that of a server that joined the cluster.
    """
    if ray_address is not None:
        delete_left_behind(name, ray_address)
        click.echo(f"{name}: deleted")
        return
    serve = _Dashboard(address)
    running = serve.applications()
    if name not in running:
        raise ApplicationMissing(name, ", ".join(sorted(running)) or "none")
    if running[name]["source"] == "imperative":
        raise ApplicationOfServer(name)
    files = [each for key, each in running.items() if key != name and each["source"] != "imperative"]
    others = [each["deployed_app_config"] for each in files]
    serve.put({"applications": others, "target_capacity": serve.target_capacity})
    click.echo(f"{name}: deleted, requests in progress are answered first")


def read_config(file: Path) -> Config:
    """Return the content of a Serve config file. Applications without a release get that of this code.

    Raises:
        ConfigInvalid: The file is no valid configuration.
    """
    from ray.serve.schema import ServeDeploySchema

    try:
        content = yaml.safe_load(file.read_text())
        schema = ServeDeploySchema.model_validate(content)
        applications = [each.model_dump(mode="json", exclude_unset=True) for each in schema.applications]
        for each in applications:
            each["args"] = {"release": release(), **each.get("args", {})}
            if each["import_path"] == IMPORT_PATH:
                Arguments.model_validate(each["args"])
    except ValidationError as error:
        fault = error.errors()[0]
        reason = ": ".join([*(".".join(map(str, fault["loc"])).split() or ()), fault["msg"]])
        raise ConfigInvalid(str(file), reason) from None
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigInvalid(str(file), one_line(getattr(error, "strerror", None) or str(error))) from error
    return {**content, "applications": applications}


def merged(config: Config, running: Mapping[str, Config], target_capacity: float | None = None) -> Config:
    """Return a configuration of the file's applications and of all others that run.

    Settings of Serve itself are those of the file only if it is the first: others would change with them.

    Raises:
        ApplicationOfServer, RouteTaken: An application would replace one that is not in the file.
    """
    wanted = {each["name"]: each for each in config["applications"]}
    others = []
    for name, application in running.items():
        if name in wanted:
            if application["source"] == "imperative":
                raise ApplicationOfServer(name)
            continue
        for each in wanted.values():
            if application["route_prefix"] is not None and each.get("route_prefix", "/") == application["route_prefix"]:
                raise RouteTaken(application["route_prefix"], name)
        if application["source"] != "imperative":
            others.append(application["deployed_app_config"])
    if not running:
        return config
    logging = {"logging_config": config["logging_config"]} if config.get("logging_config") else {}
    own = [{**logging, **each} for each in wanted.values()]
    return {"applications": [*others, *own], "target_capacity": target_capacity}


class _Dashboard:
    """Serve's REST API, which Ray's dashboard offers."""

    def __init__(self, address: str) -> None:
        from serving.ray.internals import serve_client

        self._address = address
        try:
            self._client = serve_client(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise self._unreachable(error) from error
        self.target_capacity: float | None = None

    def applications(self) -> dict[str, Config]:
        """Return the applications that run, by name.

        Raises:
            ClusterUnreachable: The dashboard does not answer, or not for all applications.
        """
        try:
            details = self._client.get_serve_details()
        except (OSError, RuntimeError) as error:
            raise self._unreachable(error) from error
        self.target_capacity = details.get("target_capacity")
        running = {name: each for name, each in details["applications"].items() if each["status"] != "DELETING"}
        for name, each in running.items():
            if each["source"] != "imperative" and not each.get("deployed_app_config"):
                raise ClusterUnreachable(self._address, f"Serve starts and does not know its application {name} yet")
        return running

    def put(self, config: Config) -> None:
        """Make Serve's applications those of the configuration."""
        try:
            self._client.deploy_applications(config)
        except (OSError, RuntimeError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ClusterUnreachable:
        return ClusterUnreachable(self._address, one_line(next(iter(str(error).splitlines()), repr(error))))


def _wait(serve: _Dashboard, wanted: Config, deadline: float, timeout_s: float) -> None:
    """Wait until all replicas of an application are those of the configuration."""
    while True:
        found = serve.applications().get(wanted["name"])
        if found is None or not _is_same(found["deployed_app_config"], wanted):
            raise DeploymentReplaced(wanted["name"])
        deployments = found["deployments"].values()
        details = "\n".join([found["message"], *(each["message"] for each in deployments)])
        if found["status"] == "RUNNING" and all(each["status"] == "HEALTHY" for each in deployments):
            return
        if found["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise DeploymentFailed(failure_reason(details), details)
        if time.monotonic() > deadline:
            raise DeploymentFailed(f"{wanted['name']} is not ready within {timeout_s:g} s", details)
        time.sleep(POLL_S)


def _is_same(found: Config | None, wanted: Config, *more: str) -> bool:
    """Return whether two configurations of an application have the same code, arguments, and `more` keys."""
    keys = ("import_path", "args", "runtime_env", *more)
    return found is not None and all((found.get(key) or {}) == (wanted.get(key) or {}) for key in keys)
