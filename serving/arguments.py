"""How the number of replicas follows the load."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Autoscaling(BaseModel):
    """Between how many replicas, and at which load. Serve's names, and its meanings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1, description="Never fewer; none would let the first request wait.")
    max_replicas: int = Field(default=2, ge=1, description="Never more.")
    target_ongoing_requests: float = Field(default=8.0, gt=0, description="Requests under way per replica, on average.")
    upscale_delay_s: float = Field(default=10.0, ge=0, description="How long the load must be higher.")
    downscale_delay_s: float = Field(default=300.0, ge=0, description="How long it must be lower.")

    @model_validator(mode="after")
    def _agree(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self
