import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow.fs
import pytest
from pydantic import ValidationError

from serving.arguments import Arguments
from serving.experience.errors import ExperienceUriInvalid, StoreUnavailable
from serving.experience.store import S3_ENDPOINTS, Store, check_uri, open_store


@pytest.mark.parametrize("uri", ["/a", "a/b", "./a", "file:///a", "s3://bucket", "s3://bucket/a/b"])
def test_a_directory_or_a_bucket_can_be_named(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize(
    "uri", ["", "s3://", "s3://key:s3cret-0123@bucket/a", "s3://bucket/a?secret=s3cret-0123", "gs://a", "file://host/a"]
)
def test_other_uris_and_those_with_credentials_are_refused_without_showing_these(uri: str) -> None:
    with pytest.raises(ExperienceUriInvalid, match="the experience URI") as refused:
        check_uri(uri)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        Arguments(experience_uri=uri)
    assert "s3cret" not in str(invalid.value)


def test_a_file_appears_whole_and_can_be_replaced_and_deleted(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.write("a/b.json", b"1")
    store.write("a/b.json", b"2")
    assert store.read("a/b.json") == b"2"
    assert list(store.files("a", ".json")) == ["a/b.json"]
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert not list(store.files("a"))
    with pytest.raises(FileNotFoundError):
        store.read("a/b.json")


def test_a_store_that_is_no_directory_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=f"the store of experience {tmp_path}/file/store cannot be used: "):
        open_store(str(tmp_path / "file" / "store"))


def test_a_write_to_a_bucket_that_is_gone_is_an_outage_and_no_missing_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    bucket = Store(
        "s3://bucket/a", pyarrow.fs.SubTreeFileSystem(str(tmp_path / "gone"), store.filesystem.base_fs), None
    )
    with pytest.raises(StoreUnavailable, match="s3://bucket/a cannot be used"):
        bucket.write("a/b.json", b"1")
    with pytest.raises(FileNotFoundError):
        bucket.read("a/b.json")


@pytest.mark.parametrize("variable", S3_ENDPOINTS)
def test_s3_is_found_through_each_variable_that_mlflow_and_boto3_read(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    for name in (*S3_ENDPOINTS, "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with pytest.raises(StoreUnavailable):
            open_store("s3://bucket/a").write("b.json", b"1")
        server.shutdown()
    assert asked
    assert asked[0].startswith("/bucket/a/b.json")
