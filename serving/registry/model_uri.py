"""Parses `models:/` URIs."""

import re
from dataclasses import dataclass

from serving.registry.errors import ModelUriInvalid

_NOT_IN_PATHS = re.compile(r"[^A-Za-z0-9._~-]")

STAGES = {stage.lower(): stage for stage in ("None", "Staging", "Production", "Archived")}


def route_prefix(name: str) -> str:
    """Return the path prefix at which a model is served: `/` and its name, other characters than A-Za-z0-9._~- as `-`.

    These characters mean the same in URLs, in HAProxy's configuration and in shells. Serve compares the prefix with
    decoded paths and HAProxy with encoded ones, so no prefix with other characters works through both.
    """
    return "/" + _NOT_IN_PATHS.sub("-", name)


def is_route_prefix(prefix: str) -> bool:
    """Return whether an application can be served at a path prefix: `/`, or segments of the characters above."""
    return prefix == "/" or bool(re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+", prefix))


@dataclass(frozen=True)
class ModelUri:
    """A parsed `models:/` URI: a name with a number, an alias or a stage, or with none of them for the latest."""

    name: str
    number: int | None = None
    alias: str | None = None
    stage: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "ModelUri":
        """Parse `models:/NAME/NUMBER`, `models:/NAME/STAGE`, `models:/NAME/latest` or `models:/NAME@ALIAS`.

        Raises:
            ModelUriInvalid: the URI has another form.
        """
        match = re.fullmatch(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<which>[^/@]+))", uri)
        if match is None:
            raise ModelUriInvalid(uri)
        name, alias, which = match["name"], match["alias"], match["which"]
        if alias is not None:
            return cls(name, alias=alias)
        if which.isdecimal():
            return cls(name, number=int(which))
        if which.lower() == "latest":
            return cls(name)
        if which.lower() in STAGES:
            return cls(name, stage=STAGES[which.lower()])
        raise ModelUriInvalid(uri)
