"""Errors of the model registry, its artifacts and the bundle cache."""

from dataclasses import dataclass

from serving.client.proxies import through_proxy
from serving.errors import ServingError
from serving.policy.errors import BundleError


@dataclass(eq=False)
class DigestMissing(BundleError):
    """The version has no tag with the digest of the file, so it was not registered by this project."""

    code = "digest_missing"
    template = (
        "version {version} of '{name}' has no tag 'sha256.{file}', so its files cannot be verified. "
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
    template = (
        "cannot write the bundle cache {directory}: {reason}. Choose another directory with --cache-dir "
        "or XDG_CACHE_HOME"
    )

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
    """No healthy MLflow server answers at the tracking URI, or at that of the registry; `variable` holds it."""

    uri: str
    reason: str
    variable: str = "MLFLOW_TRACKING_URI"

    def __str__(self) -> str:
        return (
            f"no MLflow server answers at {self.uri} ({through_proxy(self.uri, self.reason)}). Start it, or set "
            f"{self.variable} to the URI of another one"
        )


@dataclass(eq=False)
class CredentialsRejected(RegistryError):
    """The MLflow server, or a gateway before it, answers 401."""

    template = (
        "the MLflow server at {uri} requires credentials, or others than it was given (status 401). Set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    )

    uri: str


@dataclass(eq=False)
class AccessDenied(RegistryError):
    """The account of the user lacks a permission in MLflow."""

    template = (
        "the MLflow server at {uri} does not permit {account} to do this ({reason}). Ask its administrator for the "
        "permission, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of another account"
    )

    uri: str
    account: str
    reason: str


@dataclass(eq=False)
class WorkspaceUnusable(RegistryError):
    """The MLflow server has no workspace of this name, or no workspaces at all."""

    template = (
        "the MLflow server at {uri} cannot use the workspace '{workspace}' ({reason}). Set MLFLOW_WORKSPACE to another "
        "one, or unset it"
    )

    uri: str
    workspace: str
    reason: str


@dataclass(eq=False)
class DatabaseUnreachable(RegistryError):
    """The tracking URI, or that of the registry, names a database, and no connection to it is possible."""

    template = "no database answers at {uri} ({reason}). Start it, or set {variable} to the URI of another one"

    uri: str
    reason: str
    variable: str = "MLFLOW_TRACKING_URI"


@dataclass(eq=False)
class PackageMissing(RegistryError):
    """MLflow needs a package that is not installed, for a store or a way of authentication."""

    module: str
    package: str

    def __str__(self) -> str:
        user = _NEEDED_FOR.get(self.module, "MLflow's configuration")
        return f"{user} needs the module {self.module}, which is not installed: pip install {self.package}"


_NEEDED_FOR = {
    "boto3": "the artifact store at s3://",
    "psycopg2": "the database at postgresql+psycopg2://",
}
"""What an extra of this project is for, by the module that it installs."""


@dataclass(eq=False)
class ArtifactsBehindServer(RegistryError):
    """The store's artifacts are kept by an MLflow server, and the tracking URI names its database instead."""

    template = (
        "an MLflow server keeps the artifacts of this store, and MLFLOW_TRACKING_URI does not name it. Start that "
        "server and set its URL, such as: export MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
    )


@dataclass(eq=False)
class RegistryFailed(RegistryError):
    """MLflow raised an error, whose message is `reason`."""

    template = "the model registry at {uri} failed: {reason}"

    uri: str
    reason: str


@dataclass(eq=False)
class PollFailed(RegistryError):
    """A poll failed in another process, in a way that only the log of that process describes in full."""

    template = "{reason}"

    reason: str


@dataclass(eq=False)
class ModelUnknown(RegistryError):
    """No model of that name is registered. `registered` lists the existing ones."""

    template = (
        "No model '{name}' is registered at {registry} (registered: {registered}). Train one: python -m pipeline train"
    )

    name: str
    registry: str
    registered: str


@dataclass(eq=False)
class VersionMissing(RegistryError):
    """The requested version does not exist. `criterion` is the predicate, such as "has the number 7"."""

    template = "No version of '{name}' {criterion}. {remedy}"

    name: str
    criterion: str
    remedy: str
