"""What an administrator sets, by environment variables that start with ``CROSSFADE_``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once at start; an unknown value stops the start with a clear error."""

    model_config = SettingsConfigDict(
        env_prefix="CROSSFADE_", frozen=True, use_attribute_docstrings=True
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged: INFO is a line for each action and transition."""
    workers: int = Field(default=8, ge=1, le=64)
    """How many ModelDeployments are worked on at the same time."""
    health_port: int = Field(default=8080, ge=1, le=65535)
    """The port of the liveness probe (/healthz)."""
    instance: str = "crossfade"
    """Who reports Kubernetes Events: the pod's name, in a cluster."""
