"""Errors of the model registry, its artifacts and the bundle cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import ServingError
from serving.policy.errors import BundleError
from serving.registry.model_version import DIGEST_TAG


@dataclass(eq=False)
class DigestMissing(BundleError):
    """The version has no tag with the digest of the file, so it was not registered by this project."""

    code = "digest_missing"
    template = (
        f"version {{version}} of '{{name}}' has no tag '{DIGEST_TAG}{{file}}', so its files cannot be verified. "
        "Register it with: python -m pipeline train"
    )

    file: str
    name: str
    version: int


@dataclass(eq=False)
class DigestMismatch(BundleError):
    """The file is not the one that was registered."""

    code = "digest_mismatch"
    template = (
        "{file} of version {version} of '{name}' was changed after it was registered: its sha256 is {found:.12}..., "
        "the registered one is {expected:.12}..."
    )

    file: str
    name: str
    version: int
    expected: str
    found: str


@dataclass(eq=False)
class CacheUnwritable(BundleError):
    """The bundle cache cannot be written."""

    code = "cache_unwritable"
    template = "cannot write the bundle cache {directory}: {reason}. Choose another directory with --cache-dir"

    directory: str
    reason: str


class RegistryError(ServingError):
    """Base of the reasons why the registry does not return a version."""

    code = "registry_failed"
    """The label of `policy_versions_rejected` if the registry fails while a version is fetched."""


@dataclass(eq=False)
class ModelUriInvalid(RegistryError):
    """The text is not the URI of a registered model."""

    template = (
        "'{uri}' is not the URI of a registered model, expected models:/NAME/STAGE, models:/NAME@ALIAS, "
        "models:/NAME/NUMBER or models:/NAME/latest"
    )

    uri: str


@dataclass(eq=False)
class TrackingServerUnreachable(RegistryError):
    """No healthy MLflow server answers at the tracking URI."""

    template = (
        "no MLflow server answers at {uri} ({reason}). Start it, or set MLFLOW_TRACKING_URI to the URI of another one"
    )

    uri: str
    reason: str


@dataclass(eq=False)
class RegistryFailed(RegistryError):
    """MLflow raised an error, whose message is `reason`."""

    template = "the model registry at {uri} failed: {reason}"

    uri: str
    reason: str


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
    """The requested version does not exist.

    `criterion` completes the sentence "No version of 'x' ...". `versions` lists the existing ones, None if unknown.
    """

    name: str
    criterion: str
    remedy: str
    versions: Sequence[str] | None

    def __str__(self) -> str:
        known = f" Versions: {', '.join(self.versions) or 'none'}." if self.versions is not None else ""
        return f"No version of '{self.name}' {self.criterion}. {self.remedy}{known}"
