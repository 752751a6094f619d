"""The deployment of Ray's tutorial: an RLModule from a checkpoint, on the defaults of Ray Serve."""

# No `from __future__ import annotations`: Serve reads the type of the request.
import time
from pathlib import Path
from typing import Any

import click
from starlette.requests import Request


class ServeRLModule:
    """As in docs.ray.io, "Serving RLlib models", on the new API stack."""

    def __init__(self, checkpoint: str) -> None:
        from ray.rllib.core.rl_module import RLModule

        module = Path(checkpoint) / "learner_group" / "learner" / "rl_module" / "default_policy"
        self.module: Any = RLModule.from_checkpoint(str(module))

    async def __call__(self, request: Request) -> dict[str, int]:
        """Answer `{"observation": [...]}` with `{"action": 0}`."""
        import torch

        observation = (await request.json())["observation"]
        with torch.no_grad():
            output = self.module.forward_inference({"obs": torch.tensor([observation], dtype=torch.float32)})
        return {"action": int(output["action_dist_inputs"][0].argmax())}


@click.command()
@click.option("--port", required=True, type=int, help="Port to listen on.")
@click.option("--checkpoint", required=True, help="An RLlib checkpoint.")
def main(port: int, checkpoint: str) -> None:
    """Serve it until SIGTERM."""
    import ray
    from ray import serve

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": port})
    serve.run(serve.deployment(ServeRLModule).bind(checkpoint), route_prefix="/tutorial")
    time.sleep(3600)


if __name__ == "__main__":
    main()
