import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.registry.signing import Signer
from serving.integrity.errors import TrustedKeyInvalid
from serving.integrity.signatures import key_id, read_public_keys, signed_statement
from tests.serving.integrity.keys import private_pem, public_pem, signer, trusted
from tests.workshop import PROJECT

KEY = signer()
_EC = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_file_may_hold_several_keys_and_several_files_may_be_given(tmp_path: Path) -> None:
    others = signer(), signer()
    found = read_public_keys([trusted(tmp_path, KEY), trusted(tmp_path, *others)])
    assert set(found) == {each.key_id for each in (KEY, *others)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it holds no key in PEM"),
        (private_pem(KEY.key), "it holds a PRIVATE KEY"),
        (public_pem(KEY) + _EC, "it holds a key of another algorithm"),
        (b"-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----\n", "it holds a damaged key"),
    ],
)
def test_a_file_without_public_keys_is_refused_in_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "trusted.pem"
    file.write_bytes(content)
    with pytest.raises(TrustedKeyInvalid) as caught:
        read_public_keys([str(file)])
    assert str(caught.value) == (
        f"cannot read ed25519 public keys from {file}: {reason}. Make one of a signing key: "
        f"openssl pkey -in SIGNING_KEY -pubout -out {file}"
    )


def test_keys_that_openssl_makes_sign_and_verify(tmp_path: Path) -> None:
    private, public = tmp_path / "signing.pem", tmp_path / "trusted.pem"
    for command in (f"genpkey -algorithm ed25519 -out {private}", f"pkey -in {private} -pubout -out {public}"):
        subprocess.run(["openssl", *command.split()], check=True)
    signing = Signer.read(str(private))
    ((found, key),) = read_public_keys([str(public)]).items()
    assert found == signing.key_id == key_id(key)
    assert signed_statement(signing.signed("a statement"), key) == "a statement"


def test_a_server_without_trusted_keys_does_not_import_the_library_of_signatures() -> None:
    script = "import sys, serving.rollout.initial_policy; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == "False\n"
