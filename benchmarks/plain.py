"""One process without Ray: uvicorn, FastAPI and ONNX Runtime, as one would write it in ten lines."""

import click
import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


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
def main(port: int, graph: str) -> None:
    """Serve it until SIGTERM."""
    uvicorn.run(application(graph), host="127.0.0.1", port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
