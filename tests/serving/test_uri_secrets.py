"""The secrets of a tracking URI stay in the environment of each process."""

import pytest

from serving.uri_secrets import with_own_secrets, without_secrets


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("http://u:secret@h:5000/x", "http://h:5000/x"),
        ("https://token@h", "https://h"),
        ("http://u:se@cret@h/x", "http://h/x"),
        ("postgresql+psycopg2://u:secret@h:5432/db", "postgresql+psycopg2://u@h:5432/db"),
        ("postgresql+psycopg2://u:secr/et@h/db", "postgresql+psycopg2://u@h/db"),
        ("postgresql+psycopg2://:secret@h/db", "postgresql+psycopg2://h/db"),
        ("postgresql://h/db?user=u&password=secret&sslmode=require", "postgresql://h/db?user=u&sslmode=require"),
        ("postgresql://h/db?sslpassword=secret", "postgresql://h/db"),
        ("http://h/?access_token=secret", "http://h/"),
    ],
)
def test_secrets_are_removed_from_a_uri(uri: str, kept: str) -> None:
    assert without_secrets(uri) == kept


@pytest.mark.parametrize(
    "uri",
    [
        "http://h:5000/a@b",
        "sqlite:////a/b.db?mode=ro",
        "postgresql+psycopg2://u@h/db?sslmode=verify-full&sslkey=/a/key",
        "models:/m@champion",
        "databricks://profile",
    ],
)
def test_a_uri_without_secrets_is_unchanged(uri: str) -> None:
    assert without_secrets(uri) == uri


@pytest.mark.parametrize(
    ("own", "used"),
    [
        ("postgresql://u:secret@h/db", "postgresql://u:secret@h/db"),
        ("postgresql://u:secret@h/another", "postgresql://u@h/db"),
        ("postgresql://v:secret@h/db", "postgresql://u@h/db"),
        ("", "postgresql://u@h/db"),
    ],
)
def test_a_process_adds_its_own_password_for_the_same_store_only(
    own: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    assert with_own_secrets("postgresql://u@h/db") == used
