"""The documented HAProxy configuration terminates TLS in front of the server and forwards the token."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from serving.http.policy_app import PolicyApp
from serving.ray.settings import haproxy_binary
from serving.replica.auth import BearerToken
from tests.docs.pages import DOCS, blocks
from tests.serving.asking import served
from tests.workshop import free_port

CERTIFICATE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN=localhost"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for localhost; `site.pem` beside it contains the key as well."""
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run([*CERTIFICATE.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    whole = (tmp_path / "certificate.pem").read_text() + (tmp_path / "key.pem").read_text()
    (tmp_path / "site.pem").write_text(whole)
    return tmp_path / "certificate.pem"


@pytest.fixture
def secure_url(certificate: Path, serve_http: Any) -> Iterator[str]:
    haproxy = haproxy_binary()
    assert haproxy
    backend = urlsplit(serve_http(PolicyApp(served(), token=BearerToken("s3cret")))).netloc
    port = free_port()
    (example,) = blocks(DOCS / "how-to" / "secure-the-server.md", "haproxy")
    configuration = example.replace(":8443", f"127.0.0.1:{port}").replace("127.0.0.1:8000", backend)
    (certificate.parent / "haproxy.cfg").write_text(configuration)
    proxy = subprocess.Popen([haproxy, "-f", "haproxy.cfg"], cwd=certificate.parent)
    try:
        yield f"https://localhost:{port}"
    finally:
        proxy.terminate()
        proxy.wait()


@pytest.mark.skipif(haproxy_binary() is None, reason="no HAProxy is installed: it comes with ray[serve] on Linux")
def test_a_proxy_terminates_tls_in_front_of_the_server(secure_url: str, certificate: Path) -> None:
    with requests.Session() as session:
        session.verify = str(certificate)
        session.trust_env = False
        assert health(session, secure_url).json()["status"] == "ok"
        body = {"observation": [0, 0, 1, 0]}
        assert session.post(secure_url, json=body, timeout=5).status_code == 401
        headers = {"Authorization": "Bearer s3cret"}
        assert session.post(secure_url, json=body, headers=headers, timeout=5).json() == {"action": 1}


def health(session: requests.Session, url: str) -> requests.Response:
    """Send requests until the proxy listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return session.get(f"{url}/health", timeout=5)
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
