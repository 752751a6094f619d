"""Commands sign what they have seen, and servers with the public key accept it."""

import json
import re

import mlflow
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from pipeline.cli import cli
from pipeline.config import TrainConfig
from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry import promotion
from pipeline.registry.errors import SigningKeyInvalid
from pipeline.registry.gate import Gate
from pipeline.registry.registration import Registration
from pipeline.registry.signing import Signer, record_gate, sign_version
from pipeline.registry.target import Target
from pipeline.tracking import run as tracking
from serving.integrity.errors import GateNotPassed, SignatureMissing
from serving.integrity.requirements import Requirements
from serving.integrity.statements import Subject
from serving.registry.errors import DigestMismatch
from serving.registry.registry import resolve
from tests.serving.integrity.keys import private_pem, public_pem, signer, trusted
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE
from tests.serving.store import Store

NAME = "cartpole-ppo"
KEY = signer()
GATE = Gate(episodes=2)
_ENCRYPTED = KEY.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.fixture
def registry(store, monkeypatch):
    """A registry with one version."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    registry = Store(mlflow.get_tracking_uri(), store)
    registry.register(NAME)
    return registry


@pytest.fixture
def demand(tmp_path):
    """Check what a server with the trusted key demands of what a URI refers to."""

    def demand(uri=f"models:/{NAME}/Production", *, gate=False):
        Requirements((trusted(tmp_path, KEY),), require_gate=gate).check(resolve(uri))

    return demand


def test_a_trained_version_is_signed_with_the_digests_of_the_local_files(store, assembled, cartpole, demand):  # noqa: ARG001
    with tracking.run("train") as run_id:
        registration = Registration(TrainConfig(), cartpole, run_id, None, print, KEY)
        registration.register(assembled[0], Evaluation((500.0,), first_seed=0), step=1)
    demand(f"models:/{NAME}/1")
    tags = mlflow.MlflowClient().get_model_version(NAME, "1").tags
    statement = json.loads(json.loads(tags[f"signature.version.{KEY.key_id}"])["statement"])
    assert set(statement["digests"]) == {"model.onnx", "policy.json", "checkpoint.sha256"}


@pytest.mark.usefixtures("registry")
def test_a_promotion_signs_the_version_and_that_the_gate_passed(demand):
    promotion.promote(Target(NAME, "Production"), 1, GATE, KEY)
    demand(gate=True)
    promotion.promote(Target(NAME, "champion", is_alias=True), 1, GATE, KEY)
    demand(f"models:/{NAME}@champion", gate=True)


@pytest.mark.usefixtures("registry")
def test_the_record_of_the_gate_holds_its_settings_and_figures():
    promotion.promote(Target(NAME, "Production"), 1, GATE)
    record = json.loads(mlflow.MlflowClient().get_model_version(NAME, "1").tags["gate.stage.Production"])
    expected = {"passed": True, "target": "stage.Production", "episodes": 2, "threshold": 475.0, "return_mean": 500.0}
    assert expected.items() <= record.items()
    assert (record["champion"], record["difference_bound"]) == (None, None)


def test_a_forced_promotion_signs_that_the_gate_did_not_pass(registry, demand):
    version = registry.register(NAME, CONTRARY_BUNDLE)
    promotion.promote(Target(NAME, "Production"), version, Gate(episodes=2, force=True), KEY)
    demand()
    with pytest.raises(GateNotPassed, match="it was promoted in spite of objections"):
        demand(gate=True)


def test_a_refused_promotion_signs_and_records_nothing(registry):
    version = registry.register(NAME, CONTRARY_BUNDLE)
    before = mlflow.MlflowClient().get_model_version(NAME, str(version)).tags
    with pytest.raises(promotion.PromotionRefused):
        promotion.promote(Target(NAME, "Production"), version, GATE, KEY)
    assert mlflow.MlflowClient().get_model_version(NAME, str(version)).tags == before


@pytest.mark.usefixtures("registry")
def test_promotions_without_a_gate_and_repeated_ones_sign_the_version_alone(demand):
    promotion.promote(Target(NAME, "Staging"), 1, GATE)
    with pytest.raises(SignatureMissing):
        demand(f"models:/{NAME}/Staging")
    promotion.promote(Target(NAME, "Staging"), 1, GATE, KEY)
    demand(f"models:/{NAME}/Staging")
    with pytest.raises(GateNotPassed):
        demand(f"models:/{NAME}/Staging", gate=True)


def test_a_version_that_was_put_there_by_hand_passes_the_gate_where_it_is(registry, demand):
    promotion.promote(Target(NAME, "Production"), 1, GATE)
    for bundle in (CONTRARY_BUNDLE, CARTPOLE_BUNDLE):
        registry.promote(NAME, registry.register(NAME, bundle))
    promoted = promotion.promote(Target(NAME, "Production"), 3, GATE, KEY)
    assert (promoted.replaced, promoted.version) == (3, 3)
    demand(gate=True)
    record = json.loads(mlflow.MlflowClient().get_model_version(NAME, "3").tags["gate.stage.Production"])
    assert record["champion"] == 1, "of the version between nobody knows, because no command ran meanwhile"
    assert promotion.promote(Target(NAME, "Production"), 3, GATE, KEY).verdict is None, "it is not repeated"
    registry.promote(NAME, 2)
    with pytest.raises(promotion.PromotionRefused, match="it may be worse than the champion"):
        promotion.promote(Target(NAME, "Production"), 2, GATE, KEY)


@pytest.mark.usefixtures("registry")
def test_the_command_signs_a_version_and_names_the_key(tmp_path, demand):
    (tmp_path / "signing.pem").write_bytes(private_pem(KEY.key))
    result = CliRunner().invoke(cli, ["sign", "1", "--signing-key", str(tmp_path / "signing.pem")])
    assert result.output == f"Version 1 of '{NAME}' is signed with the key {KEY.key_id}.\n"
    demand(f"models:/{NAME}/1")


def test_a_version_whose_files_were_changed_is_not_signed(registry):
    registry.file(NAME, 1, "model.onnx").write_bytes(b"other")
    with pytest.raises(DigestMismatch):
        sign_version(NAME, 1, KEY)


@pytest.mark.usefixtures("registry")
def test_only_records_of_the_gate_that_a_trusted_key_signed_are_signed_again(tmp_path, demand):
    old, stranger = signer(), signer()
    subject = Subject.of(resolve(f"models:/{NAME}/1"))
    record_gate(subject, Target(NAME, "Production"), {}, stranger, passed=True)
    Target(NAME, "Production").assign(1)
    assert sign_version(NAME, 1, KEY, [trusted(tmp_path, old)]) == 0
    with pytest.raises(GateNotPassed):
        demand(gate=True)
    record_gate(subject, Target(NAME, "Production"), {}, old, passed=True)
    assert sign_version(NAME, 1, KEY, [trusted(tmp_path, old)]) == 1
    demand(gate=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"rubbish", "it holds no private key in PEM"),
        (public_pem(KEY), "it holds no private key in PEM"),
        (_ENCRYPTED, "it is encrypted, write a copy without a password"),
        (private_pem(generate_private_key(SECP256R1())), "it holds a key of another algorithm"),
    ],
)
def test_a_file_without_a_signing_key_is_refused_in_one_line(content, reason, tmp_path):
    file = tmp_path / "signing.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SigningKeyInvalid) as caught:
        Signer.read(str(file))
    assert str(caught.value) == (
        f"Cannot read an ed25519 private key from {file}: {reason}. Make one: "
        f"openssl genpkey -algorithm ed25519 -out {file}"
    )


def test_a_training_with_an_unusable_key_ends_before_it_starts(tmp_path):
    result = CliRunner().invoke(cli, ["train", "--signing-key", str(tmp_path / "none.pem")])
    assert (result.exit_code, bool(re.match("Error: Cannot read an ed25519 private key", result.stderr))) == (1, True)


def test_a_signer_does_not_show_its_key():
    assert repr(KEY) == "Signer()"
