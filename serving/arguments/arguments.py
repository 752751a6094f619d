"""Declares the arguments."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serving.arguments.autoscaling import Autoscaling
from serving.experience.errors import ExperienceUriInvalid
from serving.experience.options import Full, Observations
from serving.experience.store import check_uri
from serving.replica.limits import ANSWER_WITHIN_S, MAX_BODY_BYTES, MAX_OBSERVATIONS
from serving.telemetry.logs import LogFormat
from serving.uri_secrets import without_secrets

if TYPE_CHECKING:
    from serving.experience.start import ExperienceSettings
    from serving.integrity.requirements import Requirements

GIB = 1 << 30
DAY_S = 86_400.0


class Arguments(BaseModel):
    """The arguments of one application. Unknown names and contradictions raise pydantic's ValidationError."""

    # Pydantic's own messages show the input, which may be a password, and Serve shows them on Ray's dashboard.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, hide_input_in_errors=True
    )

    model_uri: str = Field(
        default="models:/cartpole-ppo/Production",
        description="Model to serve: models:/NAME/ and a stage, version number or latest; models:/NAME@ALIAS.",
    )
    tracking_uri: str | None = Field(
        default=None, description="MLflow tracking URI. Default: MLFLOW_TRACKING_URI where the server is started."
    )
    registry_uri: str | None = Field(
        default=None,
        description="URI of MLflow's model registry. Default: MLFLOW_REGISTRY_URI where the server is started, or "
        "the tracking URI.",
    )
    workspace: str | None = Field(
        default=None,
        description="MLflow workspace of the model. Default: MLFLOW_WORKSPACE where the server is started, or MLflow's "
        "own default.",
    )
    credentials_file: str | None = Field(
        default=None,
        description="File on each node with settings of MLflow and its stores, one NAME=value a line, such as "
        "MLFLOW_TRACKING_PASSWORD. Default: the environment of Ray.",
    )
    cache_dir: str | None = Field(
        default=None, description="Cache of bundles on each node. Default: a directory in the user's cache."
    )
    cache_bytes: int = Field(default=GIB, ge=0, description="Size limit of the cache in bytes, without bundles in use.")
    refresh_interval_s: float = Field(default=2.0, gt=0, le=DAY_S, description="Seconds between polls of the registry.")
    allow_space_change: bool = Field(default=False, description="Serve a promoted version even if its spaces differ.")
    candidate_memory_bytes: int = Field(
        default=GIB, ge=1 << 20, description="Memory limit in bytes of the trial of a new version."
    )
    candidate_timeout_s: float = Field(
        default=15.0, gt=0, le=DAY_S, description="Time limit in seconds of the trial of a new version."
    )
    pin_grace_s: float = Field(
        default=300.0,
        ge=0,
        le=DAY_S,
        description="Seconds that a replaced version stays loaded, at most two of them, for the episodes that began "
        "with it; 0 turns pinning off.",
    )
    num_replicas: int = Field(default=1, ge=1, description="Number of replica processes, if autoscaling is off.")
    autoscaling: Autoscaling | None = Field(
        default=None,
        description=f"Scaling of the number of replicas, as JSON: {', '.join(Autoscaling.model_fields)}. Default: off.",
    )
    num_threads: int = Field(default=1, ge=1, description="Threads that a replica uses to compute one batch.")
    execution_provider: Literal["cpu", "cuda"] = Field(
        default="cpu", description="What computes the actions: the CPU, or an NVIDIA GPU (cuda)."
    )
    gpus_per_replica: float = Field(
        default=1.0, gt=0, le=1, description="GPUs that each replica reserves with cuda: 0.5 lets two share one."
    )
    inference_timeout_s: float = Field(
        default=1.0,
        gt=0,
        lt=ANSWER_WITHIN_S,
        description="Time limit in seconds of one call of the policy, which is then stopped: the version before "
        "answers, and this one is taken out of service.",
    )
    max_ongoing_requests: int = Field(
        default=256,
        ge=1,
        description="Concurrent requests per replica; further ones are rejected (503) if the policy takes over 1 ms or "
        "autoscaling is on.",
    )
    max_batch_size: int = Field(
        default=16, ge=1, description="Observations of concurrent requests in one batch; 1 turns batching off."
    )
    batch_wait_timeout_s: float = Field(
        default=0.0, ge=0, lt=ANSWER_WITHIN_S, description="Seconds that the first request of a batch waits for others."
    )
    max_body_bytes: int = Field(
        default=MAX_BODY_BYTES,
        ge=1,
        description="Size limit of request bodies in bytes (413); a higher one slows every request.",
    )
    max_observations: int = Field(
        default=MAX_OBSERVATIONS, ge=1, description="Observations in one request; more are rejected (413)."
    )
    auth_token_file: str | None = Field(
        default=None, description="File with the bearer token that clients must send. Default: no authentication."
    )
    trusted_key: tuple[str, ...] = Field(
        default=(),
        description="PEM file of ed25519 public keys, one of which must have signed a version; can be repeated, or be "
        "a list with commas. Default: versions need no signature.",
    )
    require_gate: bool = Field(
        default=False,
        description="Serve only versions that passed the gate of the stage or alias; with trusted_key, that must be "
        "signed, too.",
    )
    cors_origin: tuple[str, ...] = Field(
        default=(),
        description="Origin whose web pages may call the server, such as https://robots.example.com, or * for all; can "
        "be repeated, or be a list with commas. Default: none.",
    )
    direct_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of 127.0.0.1 on which replicas answer clients of their own host without the proxy. Default: "
        "off.",
    )
    play_sessions: int = Field(
        default=2, ge=0, description="Concurrent viewers of /play per replica; 0 turns the page off."
    )
    experience_uri: str | None = Field(
        default=None,
        description="Where decisions and feedback are recorded: a directory on each node, or s3://BUCKET/PATH. "
        "Default: nothing is recorded.",
    )
    experience_sample: float = Field(
        default=1.0, ge=0, le=1, description="Share of the episodes that is recorded; replicas choose alike, by a hash."
    )
    experience_observations: Observations = Field(
        default="full", description="How observations are recorded: full, as a digest, or none."
    )
    experience_max_bytes: int = Field(
        default=GIB, ge=64 << 20, description="Size limit in bytes of what waits on a node to be written to the URI."
    )
    experience_full: Full = Field(
        default="drop",
        description="While decisions cannot be recorded: drop them and answer, or refuse requests (503).",
    )
    experience_key_file: str | None = Field(
        default=None,
        description="File with a secret that the names of episodes are hashed with. Default: hashed without one.",
    )
    explore_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the episodes whose actions are sampled, unless a request says otherwise; replicas choose "
        "alike, by a hash.",
    )
    release: str | None = Field(
        default=None,
        description="Name of the release of the code. In a Serve config file, another name makes Serve replace all "
        "replicas, one by one. Default: none.",
    )
    environment_modules: tuple[str, ...] = Field(
        default=(),
        description="Module or package whose environments and wrappers /play may import, besides Gymnasium's; can be "
        "repeated, or be a list with commas. Default: none.",
    )
    access_log: bool = Field(default=False, description="Log each request, which multiplies the tail latency.")
    log_format: LogFormat = Field(
        default="text",
        description="Format of the log: text for people, or json with time, level, request and version in each line.",
    )

    @field_validator("autoscaling", mode="before")
    @classmethod
    def _parse_json(cls, autoscaling: Any) -> Any:
        """Parse JSON text: the command line and `serve run` pass every argument as text."""
        try:
            return json.loads(autoscaling) if isinstance(autoscaling, str) else autoscaling
        except ValueError as error:
            raise ValueError(f'expected JSON like {{"max_replicas": 4}} ({error})') from error

    @field_validator("cors_origin", "trusted_key", "environment_modules", mode="before")
    @classmethod
    def _split_commas(cls, values: Any) -> Any:
        """Split texts at commas: `serve run` passes every argument as one text."""
        texts = [values] if isinstance(values, str) else values
        return [part.strip() for text in texts for part in text.split(",")] if _are_texts(texts) else values

    @field_validator("cors_origin")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """Check the form of each origin: one that never equals what a browser sends would be of no effect."""
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+", origin):
                raise ValueError(f"{origin!r} is no origin, expected one like https://robots.example.com, without path")
        return origins

    @field_validator("experience_uri")
    @classmethod
    def _check_experience_uri(cls, uri: str | None) -> str | None:
        """Check that the URI is of a kind that can be opened."""
        try:
            if uri is not None:
                check_uri(uri)
        except ExperienceUriInvalid as error:
            raise ValueError(str(error)) from None
        return uri

    @field_validator("tracking_uri", "registry_uri")
    @classmethod
    def _check_secrets(cls, uri: str | None) -> str | None:
        """Check that a URI has no password: Serve stores and shows arguments, and a system its command lines."""
        if uri is not None and without_secrets(uri) != uri:
            raise ValueError(
                "a password or token in a URI would be visible in the list of processes and on Ray's dashboard. Set "
                "MLFLOW_TRACKING_URI or MLFLOW_REGISTRY_URI in the server's environment instead, or give the URI "
                "without it and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        return uri

    @field_validator("environment_modules")
    @classmethod
    def _check_modules(cls, modules: tuple[str, ...]) -> tuple[str, ...]:
        """Check the form of each module: the id of an environment would allow nothing."""
        for module in modules:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f"{module!r} is no module, expected the part of an environment's id before the colon")
        return modules

    @model_validator(mode="after")
    def _check_combinations(self) -> "Arguments":
        if self.autoscaling is not None and "num_replicas" in self.model_fields_set:
            raise ValueError("num_replicas and autoscaling contradict each other: give one of them")
        if self.execution_provider == "cpu" and "gpus_per_replica" in self.model_fields_set:
            raise ValueError("gpus_per_replica applies to execution_provider cuda only: give both, or neither")
        if self.batch_wait_timeout_s and self.max_batch_size == 1:
            raise ValueError("batch_wait_timeout_s only adds latency if max_batch_size is 1: give one of them")
        if self.autoscaling and self.autoscaling.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError("target_ongoing_requests is above max_ongoing_requests and can never be reached: lower it")
        return self

    @property
    def cache_directory(self) -> Path:
        """The directory of the cache on this node."""
        from serving.registry.registry import default_cache_dir

        return Path(self.cache_dir) if self.cache_dir else default_cache_dir()

    @property
    def requirements(self) -> "Requirements":
        """What is demanded of a version before it is served."""
        from serving.integrity.requirements import Requirements

        return Requirements(self.trusted_key, self.require_gate)

    @property
    def experience(self) -> "ExperienceSettings | None":
        """What is recorded of decisions; None if nothing is."""
        from serving.experience.start import ExperienceSettings

        names = ("uri", "sample", "observations", "max_bytes", "full", "key_file")
        settings = {name: getattr(self, f"experience_{name}") for name in names}
        return None if self.experience_uri is None else ExperienceSettings(**settings)

    @property
    def largest_num_replicas(self) -> int:
        """The number of replicas at full load."""
        return self.num_replicas if self.autoscaling is None else self.autoscaling.max_replicas

    @property
    def reserved_gpus(self) -> float:
        """The GPUs that each replica reserves."""
        return 0.0 if self.execution_provider == "cpu" else self.gpus_per_replica


def _are_texts(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)
