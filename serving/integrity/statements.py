"""Statements about a version, which are signed and recorded in its tags: JSON texts that name what they are about.

A statement names the model, the number of the version and the digests of its files. It is therefore about no other
version, wherever its tag is copied to.
"""

import json
from dataclasses import dataclass
from typing import Self

from serving.policy.bundle import BUNDLE_FILES
from serving.policy.spaces import Json
from serving.registry.model_uri import ModelUri
from serving.registry.model_version import ModelVersion

CHECKPOINT_MANIFEST = "checkpoint.sha256"
"""The file of a version that lists the digests of its checkpoint's files, as sha256sum writes and checks it."""

VERSION = "cartpole-ppo/version/1"
"""The type of the statement that a person vouches for a version."""
GATE = "cartpole-ppo/gate/1"
"""The type of the statement that a version passed, or did not pass, the gate of a stage or an alias."""

SIGNED_VERSION_TAG = "signature.version."
"""A version's tag `signature.version.<key id>` holds its signature."""
GATE_TAG = "gate."
"""A version's tag `gate.stage.<stage>` or `gate.alias.<alias>` holds the statement of the gate, not signed."""
SIGNED_GATE_TAG = "signature.gate."
"""A version's tag `signature.gate.stage.<stage>.<key id>` holds the signed statement of the gate."""


@dataclass(frozen=True)
class Subject:
    """The version that a statement is about: its model, its number, and the digests of its files."""

    name: str
    version: int
    digests: dict[str, str]

    @classmethod
    def of(cls, version: ModelVersion) -> Self:
        """Return the subject of a version. Tags with digests of other files, which anyone could add, are ignored.

        The name, and a pinned number, are those of the requested URI: the registry might answer with another version.
        """
        uri = ModelUri.parse(version.uri)
        files = (*BUNDLE_FILES, CHECKPOINT_MANIFEST)
        digests = {file: version.digests[file] for file in files if file in version.digests}
        return cls(uri.name, uri.number or version.version, digests)

    def statement(self, kind: str, facts: dict[str, Json] | None = None) -> str:
        """Return the text of a statement of the type `kind` about this version, with further facts."""
        about = {"type": kind, "name": self.name, "version": self.version, "digests": self.digests}
        return json.dumps({**about, **(facts or {})}, sort_keys=True)

    def difference(self, statement: dict[str, Json], kind: str) -> str | None:
        """Return why a statement is not one of the type `kind` about this version; None if it is."""
        if statement.get("type") != kind:
            return f"its type is {statement.get('type')!r}, expected {kind!r}"
        if (statement.get("name"), statement.get("version")) != (self.name, self.version):
            return f"it names version {statement.get('version')} of '{statement.get('name')}'"
        stated = statement["digests"] if isinstance(statement.get("digests"), dict) else {}
        files = sorted(stated.keys() | self.digests.keys())
        changed = [file for file in files if stated.get(file) != self.digests.get(file)]
        return f"the digests differ of {', '.join(changed)}" if changed else None


def parsed(text: str) -> dict[str, Json]:
    """Return the content of a statement. Raises ValueError."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  # the text has the wrong form
    return content
