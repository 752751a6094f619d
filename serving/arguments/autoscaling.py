"""Declares how Serve scales the number of replicas."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Autoscaling(BaseModel):
    """Bounds and target of the number of replicas. Names and meanings are those of Serve's AutoscalingConfig."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_replicas: int = Field(default=1, ge=1, description="Smallest number of replicas.")
    max_replicas: int = Field(default=2, ge=1, description="Largest number of replicas.")
    target_ongoing_requests: float = Field(
        default=8.0, gt=0, description="Concurrent requests per replica that Serve aims for, on average."
    )
    upscale_delay_s: float = Field(
        default=10.0, ge=0, description="Seconds above the target before replicas are added."
    )
    downscale_delay_s: float = Field(
        default=300.0, ge=0, description="Seconds below the target before replicas are removed."
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self
