"""Only a version for which a trusted key vouches is served, and each other one is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.registry.signing import record_gate, sign
from pipeline.registry.target import Target
from serving.integrity.errors import (
    GateNotPassed,
    SignatureInvalid,
    SignatureMissing,
    SignatureOfAnotherVersion,
    SignatureUntrusted,
    TrustedKeyInvalid,
)
from serving.integrity.requirements import Requirements
from serving.integrity.statements import GATE, Subject
from serving.registry.registry import resolve
from tests.serving.integrity.keys import signer, trusted
from tests.serving.policies import CONTRARY_BUNDLE
from tests.serving.store import Store

KEY, OTHER_KEY = signer(), signer()
TAG = f"signature.version.{KEY.key_id}"


@pytest.fixture
def client(store: Store) -> MlflowClient:
    return MlflowClient(store.uri)


@pytest.fixture
def demand(tmp_path: Path) -> Callable[..., None]:
    """Check a model's version against the trusted key."""
    requirements = Requirements((trusted(tmp_path, KEY),))
    return lambda name, version="latest": requirements.check(resolve(f"models:/{name}/{version}"))


def signed(store: Store, name: str, key: object = KEY) -> Subject:
    """Register a version and sign it."""
    subject = Subject.of(resolve(f"models:/{name}/{store.register(name)}"))
    sign(subject, key)  # type: ignore[arg-type]
    return subject


def test_a_version_that_a_trusted_key_signed_is_accepted(store: Store, demand: Callable[..., None]) -> None:
    signed(store, "signed")
    demand("signed")


def test_a_version_without_a_signature_is_refused_with_the_command_that_signs_it(
    store: Store, demand: Callable[..., None]
) -> None:
    store.register("unsigned")
    with pytest.raises(SignatureMissing) as caught:
        demand("unsigned")
    assert str(caught.value) == (
        "version 1 of 'unsigned' is not signed, and only signed versions are trusted. If you trust it: "
        "python -m pipeline sign 1 --name 'unsigned' --signing-key FILE"
    )


def test_a_version_that_another_key_signed_is_refused_with_both_keys(store: Store, demand: Callable[..., None]) -> None:
    signed(store, "signed-by-another", OTHER_KEY)
    with pytest.raises(SignatureUntrusted) as caught:
        demand("signed-by-another")
    expected = f"is signed with the key {OTHER_KEY.key_id}, which is not trusted (trusted: {KEY.key_id})."
    assert expected in str(caught.value)


def test_the_signature_of_another_key_under_the_id_of_a_trusted_one_is_refused(
    store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    subject = signed(store, "renamed-key", OTHER_KEY)
    tags = client.get_model_version("renamed-key", "1").tags
    client.set_model_version_tag(subject.name, "1", TAG, tags[f"signature.version.{OTHER_KEY.key_id}"])
    with pytest.raises(SignatureInvalid, match="the signature does not fit the statement"):
        demand("renamed-key")


def test_the_signature_of_another_version_is_refused(
    store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    signed(store, "moved-tag")
    store.register("moved-tag")  # the same files, so that only the number differs
    client.set_model_version_tag("moved-tag", "2", TAG, client.get_model_version("moved-tag", "1").tags[TAG])
    with pytest.raises(SignatureOfAnotherVersion) as caught:
        demand("moved-tag")
    assert str(caught.value) == (
        f"the tag '{TAG}' of version 2 of 'moved-tag' is a signature of another version: it names version 1 of "
        "'moved-tag'"
    )


def test_a_version_that_mlflow_copied_to_another_model_is_refused(
    store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    signed(store, "copied-from")
    client.copy_model_version("models:/copied-from/1", "copied-to")
    assert TAG in client.get_model_version("copied-to", "1").tags, "MLflow copies the tags"
    with pytest.raises(SignatureOfAnotherVersion, match="it names version 1 of 'copied-from'"):
        demand("copied-to")


def test_a_version_of_a_renamed_model_is_refused_until_it_is_signed_again(
    store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    signed(store, "name-before")
    client.rename_registered_model("name-before", "name-after")
    with pytest.raises(SignatureOfAnotherVersion, match="it names version 1 of 'name-before'"):
        demand("name-after")
    sign(Subject.of(resolve("models:/name-after/1")), KEY)
    demand("name-after")


@pytest.mark.parametrize("file", ["model.onnx", "policy.json", "checkpoint.sha256"])
def test_a_version_whose_digest_was_changed_after_the_signature_is_refused(
    file: str, store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    name = f"other-digest-of-{file}"
    signed(store, name)
    client.set_model_version_tag(name, "1", f"sha256.{file}", "0" * 64)
    with pytest.raises(SignatureOfAnotherVersion, match=f"the digests differ of {file}$"):
        demand(name)


def test_a_changed_statement_is_refused(store: Store, client: MlflowClient, demand: Callable[..., None]) -> None:
    signed(store, "edited")
    store.register("edited", CONTRARY_BUNDLE)
    content = json.loads(client.get_model_version("edited", "1").tags[TAG])
    content["statement"] = Subject.of(resolve("models:/edited/2")).statement("cartpole-ppo/version/1")
    client.set_model_version_tag("edited", "2", TAG, json.dumps(content))
    with pytest.raises(SignatureInvalid, match=f"the tag '{TAG}' of version 2 of 'edited'"):
        demand("edited")


@pytest.mark.parametrize(
    "tag", ["", "null", "{}", '{"statement": 1, "signature": ""}', '{"statement": "a", "signature": "ä"}']
)
def test_a_tag_of_another_form_is_refused(
    tag: str, store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    store.register("formless")
    client.set_model_version_tag("formless", str(resolve("models:/formless/latest").version), TAG, tag)
    with pytest.raises(SignatureInvalid):
        demand("formless")


def test_a_signed_statement_of_the_gate_is_no_signature_of_the_version(
    store: Store, client: MlflowClient, demand: Callable[..., None]
) -> None:
    store.register("gate-only")
    statement = Subject.of(resolve("models:/gate-only/1")).statement(GATE)
    client.set_model_version_tag("gate-only", "1", TAG, KEY.signed(statement))
    with pytest.raises(SignatureOfAnotherVersion, match="its type is 'cartpole-ppo/gate/1'"):
        demand("gate-only")


def test_one_of_the_trusted_keys_is_enough_and_a_key_is_no_longer_trusted_when_it_leaves_the_file(
    store: Store, tmp_path: Path
) -> None:
    signed(store, "rotated")
    file = Path(trusted(tmp_path, OTHER_KEY, KEY))
    requirements = Requirements((str(file),))
    requirements.check(resolve("models:/rotated/1"))
    Path(trusted(tmp_path, OTHER_KEY)).replace(file)
    with pytest.raises(SignatureUntrusted):
        requirements.check(resolve("models:/rotated/1"))


def test_an_unreadable_file_of_keys_refuses_every_version(store: Store, tmp_path: Path) -> None:
    signed(store, "no-keys")
    with pytest.raises(TrustedKeyInvalid, match="No such file or directory"):
        Requirements((str(tmp_path / "missing.pem"),)).check(resolve("models:/no-keys/1"))


def test_an_answer_of_the_registry_with_another_model_than_the_requested_one_is_refused(
    store: Store, tmp_path: Path
) -> None:
    signed(store, "answered")
    version = resolve("models:/answered/1")
    object.__setattr__(version, "uri", "models:/requested/1")
    with pytest.raises(SignatureOfAnotherVersion, match="it names version 1 of 'answered'"):
        Requirements((trusted(tmp_path, KEY),)).check(version)


@pytest.fixture
def gated(store: Store) -> Callable[..., Subject]:
    """Register a version in Production, and record that it passed the gate of a target."""

    def register(name: str, key: object = None, *, passed: bool = True, stage: str = "Production") -> Subject:
        subject = Subject.of(resolve(f"models:/{name}/{store.register(name, stage='Production')}"))
        record_gate(subject, Target(name, stage), {}, key, passed=passed)  # type: ignore[arg-type]
        return subject

    return register


def require_gate(name: str, *keys: str, uri: str = "Production") -> None:
    Requirements(keys, require_gate=True).check(resolve(f"models:/{name}/{uri}"))


def test_a_version_that_passed_the_gate_of_the_stage_is_accepted(gated: Callable[..., Subject]) -> None:
    gated("gated")
    require_gate("gated")
    require_gate("gated", uri="latest")


def test_a_version_that_was_promoted_by_hand_is_refused_with_the_command_that_promotes_it(store: Store) -> None:
    store.register("by-hand", stage="Production")
    with pytest.raises(GateNotPassed) as caught:
        require_gate("by-hand")
    assert str(caught.value) == (
        "version 1 of 'by-hand' may not be served before it has passed the gate: no result is recorded for stage "
        "Production. Promote it: python -m pipeline promote 1 --name 'by-hand'"
    )
    with pytest.raises(GateNotPassed):
        require_gate("by-hand", uri="1")


def test_a_version_that_passed_the_gate_of_another_target_is_refused(
    gated: Callable[..., Subject], client: MlflowClient
) -> None:
    gated("elsewhere", stage="Staging")
    with pytest.raises(GateNotPassed):
        require_gate("elsewhere")
    client.set_registered_model_alias("elsewhere", "champion", "1")
    with pytest.raises(GateNotPassed, match=r"for alias champion.*--alias champion"):
        Requirements((), require_gate=True).check(resolve("models:/elsewhere@champion"))


def test_a_version_that_was_promoted_by_force_is_refused(gated: Callable[..., Subject]) -> None:
    gated("forced", passed=False)
    with pytest.raises(GateNotPassed, match="it was promoted in spite of objections for stage Production"):
        require_gate("forced")


def test_the_record_of_another_version_is_refused(
    gated: Callable[..., Subject], client: MlflowClient, store: Store
) -> None:
    gated("gate-moved")
    number = store.register("gate-moved", stage="Production")
    tag = client.get_model_version("gate-moved", "1").tags["gate.stage.Production"]
    client.set_model_version_tag("gate-moved", str(number), "gate.stage.Production", tag)
    with pytest.raises(GateNotPassed, match="version 2"):
        require_gate("gate-moved")


def test_with_trusted_keys_one_of_them_must_have_signed_that_the_gate_passed(
    gated: Callable[..., Subject], client: MlflowClient, tmp_path: Path
) -> None:
    file = trusted(tmp_path, KEY)
    for name, key in (("gate-unsigned", None), ("gate-of-another", OTHER_KEY)):
        sign(gated(name, key), KEY)
        with pytest.raises(GateNotPassed, match=r"no result signed with a trusted key .* --signing-key FILE"):
            require_gate(name, file)
    sign(gated("gate-signed", KEY), KEY)
    require_gate("gate-signed", file)
    # What nobody signed counts for nothing, and damaged tags are passed over.
    client.set_model_version_tag("gate-signed", "1", "gate.stage.Production", "{}")
    client.set_model_version_tag("gate-signed", "1", f"signature.gate.alias.a.{KEY.key_id}", "rubbish")
    require_gate("gate-signed", file)
