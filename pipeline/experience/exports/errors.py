"""Errors of exports."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class DirectoryNotEmpty(PipelineError):
    """The directory of an export has files, or is none."""

    directory: str

    template: ClassVar[str] = "{directory} is not an empty directory. Name one that does not exist yet."


@dataclass(eq=False)
class DirectoryUnwritable(PipelineError):
    """The export cannot be written to the disk."""

    directory: str
    reason: str

    template: ClassVar[str] = "Cannot write the export to {directory}: {reason}."


@dataclass(eq=False)
class ExportPackageMissing(PipelineError):
    """A format needs a package that is not installed."""

    library: str
    package: str

    template: ClassVar[str] = (
        "An export for {library} needs the package {package}, which is not installed: "
        "pip install 'cartpole-ppo[exports]'"
    )


@dataclass(eq=False)
class RewardsUnreported(PipelineError):
    """Episodes have steps whose rewards nobody reported, and the user has not said what becomes of them."""

    unreported: int
    episodes: int

    template: ClassVar[str] = (
        "{unreported} of {episodes} episodes have steps without a reported reward. Pass --unreported drop (of "
        "`promote`: --ope-unreported) to leave these episodes out, or keep to use the default reward of compaction."
    )


@dataclass(eq=False)
class ObservationsNotRecorded(PipelineError):
    """The server recorded digests of the observations, or none of them."""

    model: str
    setting: str

    template: ClassVar[str] = (
        "The observations of '{model}' were not recorded (experience_observations: {setting}), so there is nothing to "
        "learn from. Record with experience_observations: full."
    )


@dataclass(eq=False)
class SpaceNotExportable(PipelineError):
    """A library has no form for a space of the policy."""

    library: str
    role: str
    space: str
    expected: str

    template: ClassVar[str] = "{library} cannot take the {role} space {space}; it takes {expected}."


@dataclass(eq=False)
class NothingToExport(PipelineError):
    """No episode is left after the selection."""

    model: str
    reasons: str

    template: ClassVar[str] = "No episode of '{model}' can be exported: {reasons}."


@dataclass(eq=False)
class VersionNotExportable(PipelineError):
    """A chosen version has no whole episodes, or its observations or actions have other arrays."""

    model: str
    version: int
    versions: str

    template: ClassVar[str] = (
        "Version {version} of '{model}' has no whole episodes with the same arrays as the other versions. These can be "
        "exported together: {versions}."
    )
