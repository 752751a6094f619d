"""Without Ray: uvicorn, FastAPI and ONNX Runtime, as one would write it in ten lines; one process, or several."""

import os

import click
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

GRAPH = "BENCH_GRAPH"
"""The variable that names the graph to the worker processes."""


class Query(BaseModel):
    """The body of a request."""

    observation: list[float]


def application(graph: str) -> FastAPI:
    """Return the application that answers with a graph's actions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/plain")
    async def act(query: Query) -> dict[str, int]:
        observations = np.array([query.observation], np.float32)
        return {"action": int(session.run(("action",), {"observations": observations})[0][0])}

    return app


@click.command()
@click.option("--port", required=True, type=int, help="Port to listen on.")
@click.option("--graph", required=True, help="A bundle's model.onnx.")
@click.option("--workers", default=1, show_default=True, help="Processes that accept connections of the port.")
def main(port: int, graph: str, workers: int) -> None:
    """Serve it until SIGTERM."""
    served = application(graph) if workers == 1 else "benchmarks.plain:of_worker"
    os.environ[GRAPH] = graph
    options = {"access_log": False, "log_level": "warning", "workers": workers, "factory": workers > 1}
    uvicorn.run(served, host="127.0.0.1", port=port, **options)  # type: ignore[arg-type]


def of_worker() -> FastAPI:
    """Return the application of a worker process, which uvicorn starts by the name of this function."""
    return application(os.environ[GRAPH])


if __name__ == "__main__":
    main()
