"""What these tests share: one PostgreSQL and one S3 server, and an MLflow server for each way to its artifacts."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.stores.mlflow_stores import StoreRegistry
from tests.stores.servers import S3, Postgres, missing


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if lacking := missing():
        pytest.skip(lacking)
    server = Postgres()
    yield server
    server.end()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    if lacking := missing():
        pytest.skip(lacking)
    server = S3()
    yield server
    server.end()


@pytest.fixture(scope="session")
def registry_of(
    postgres: Postgres, s3: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], StoreRegistry]]:
    """Return the registry of a way, which the first call starts, with its variables in this process's environment."""
    started: dict[str, StoreRegistry] = {}
    with mock.patch.dict(os.environ):

        def registry(way: str) -> StoreRegistry:
            if way not in started:
                directory: Path = tmp_path_factory.mktemp(way)
                started[way] = StoreRegistry(directory, way, postgres.create(way), s3)
            for name in s3.environment:
                os.environ.pop(name, None)
            os.environ.update({name: value for name, value in started[way].environment.items() if "AWS" in name})
            return started[way]

        yield registry
    for each in started.values():
        each.shop.end()
