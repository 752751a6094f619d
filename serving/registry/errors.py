"""Errors of the model registry, its artifacts and the bundle cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import ServingError
from serving.policy.errors import BundleError


@dataclass(eq=False)
class BundleFileMissing(BundleError):
    """The bundle lacks a file; `reason` says what was tried."""

    file: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"cannot read {self.file} of {self.where}: {self.reason}"


@dataclass(eq=False)
class DigestMissing(BundleError):
    """The registry does not vouch for the file, so it isn't one of ours."""

    file: str
    name: str
    version: int

    def __str__(self) -> str:
        return (
            f"version {self.version} of '{self.name}' has no tag 'sha256.{self.file}', so its files cannot "
            f"be verified. Register it with: python -m pipeline train"
        )


@dataclass(eq=False)
class DigestMismatch(BundleError):
    """The file is not the one that was registered."""

    file: str
    name: str
    version: int
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.file} of version {self.version} of '{self.name}' was changed after it was registered: "
            f"sha256 is {self.found[:12]}..., the registry says {self.expected[:12]}..."
        )


@dataclass(eq=False)
class CacheUnwritable(ServingError):
    """The bundle cache cannot be written."""

    directory: str
    reason: str

    def __str__(self) -> str:
        return f"cannot write the bundle cache {self.directory}: {self.reason}. Choose another with --cache-dir"


class RegistryError(ServingError):
    """The registry has no answer, or not the one that was hoped for."""


@dataclass(eq=False)
class ModelUriInvalid(RegistryError):
    """Not a URI of a registered model."""

    uri: str

    def __str__(self) -> str:
        return (
            f"'{self.uri}' names no registered model, expected models:/NAME/STAGE, models:/NAME@ALIAS, "
            f"models:/NAME/NUMBER or models:/NAME/latest"
        )


@dataclass(eq=False)
class TrackingServerUnreachable(RegistryError):
    """Nothing healthy answers at the tracking URI."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return (
            f"no MLflow server answers at {self.uri} ({self.reason}). Start it, or set MLFLOW_TRACKING_URI "
            f"to the one you mean"
        )


@dataclass(eq=False)
class RegistryFailed(RegistryError):
    """MLflow refused or failed; `reason` is its own."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return f"the model registry at {self.uri} failed: {self.reason}"


@dataclass(eq=False)
class ModelUnknown(RegistryError):
    """No model of that name is registered."""

    name: str
    registry: str
    registered: Sequence[str]

    def __str__(self) -> str:
        known = ", ".join(f"'{name}'" for name in self.registered) or "none yet"
        return (
            f"No model '{self.name}' is registered at {self.registry} (registered: {known}). Train one: "
            f"python -m pipeline train"
        )


@dataclass(eq=False)
class VersionMissing(RegistryError):
    """The version asked for is not there; `asked` completes "No version of 'x' ..."; None where nobody listed them."""

    name: str
    asked: str
    remedy: str
    versions: Sequence[str] | None

    def __str__(self) -> str:
        known = f" Versions: {', '.join(self.versions) or 'none'}." if self.versions is not None else ""
        return f"No version of '{self.name}' {self.asked}. {self.remedy}{known}"
