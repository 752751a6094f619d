"""An MLflow server over PostgreSQL and S3, and the environment of its clients, for each way to its artifacts."""

import subprocess
import sys
from pathlib import Path

from tests.faults.arena import Registry
from tests.stores.servers import BUCKET, S3
from tests.workshop import answers, await_true

WAYS = ("proxied", "direct", "database")
"""How clients reach MLflow's data and artifacts: both through its server; artifacts in S3; both without the server."""


class StoreRegistry(Registry):
    """The registry of the fault suite with other stores.

    Attributes:
        environment: The variables of its clients.
        database_uri: The database of the server, for clients that do without it.
    """

    def __init__(self, directory: Path, way: str, database: str, s3: S3) -> None:
        self._way, self.database_uri, self._s3 = way, database, s3
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory)
        self.environment = {"MLFLOW_TRACKING_URI": database if way == "database" else self.url}
        if way != "proxied":
            self.environment |= s3.environment

    def start(self) -> "subprocess.Popen[str]":
        # In the environment, because every user of the machine can read command lines.
        self.shop.environment |= {"MLFLOW_BACKEND_STORE_URI": self.database_uri, **self._s3.environment}
        root = f"s3://{BUCKET}/{self._way}"
        proxied = ["--artifacts-destination", root]
        direct = ["--default-artifact-root", root, "--no-serve-artifacts"]
        self.process = self.shop.start(
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", *(proxied if self._way == "proxied" else direct)),
            log="mlflow-server.log",
        )
        await_true(lambda: answers(f"{self.url}/health"), "the MLflow server answers", 180)
        return self.process
