"""What an administrator sets, by environment variables that start with ``CROSSFADE_``."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _split(text: str | tuple[str, ...]) -> tuple[str, ...]:
    """Read a list as variables have it: its items separated by commas."""
    return tuple(text.split(",")) if isinstance(text, str) and text else tuple(text)


Namespace = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Address = Annotated[str, Field(pattern=r"^https?://[^\s/@?#\\]+(/[^\s/@?#\\]+)*$")]


class Settings(BaseSettings):
    """Read once at start; a wrong value or an unknown variable stops it with a clear error."""

    model_config = SettingsConfigDict(
        env_prefix="CROSSFADE_", frozen=True, use_attribute_docstrings=True
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged: INFO is a line for each action and transition."""
    log_format: Literal["text", "json"] = "text"
    """How: text with key=value pairs, or a JSON object a line."""
    traces_address: Address | Literal[""] = ""
    """Where traces are sent to, by OTLP over HTTP in JSON, such as
    http://collector.observability:4318/v1/traces; without it there are none."""
    workers: int = Field(default=16, ge=1, le=64)
    """How many ModelDeployments are worked on at the same time."""
    health_port: int = Field(default=8080, ge=1, le=65535)
    """The port of the probes (/healthz) and of the operator's own metrics (/metrics)."""
    instance: str = "crossfade"
    """Who reports Kubernetes Events: the pod's name, in a cluster."""

    sidecar_image: str = ""
    """The image of sidecars: the operator's own, since both are one. Without it, a ModelDeployment
    that asks for a sidecar is refused."""

    namespaces: Annotated[tuple[Namespace, ...], NoDecode, BeforeValidator(_split)] = ()
    """The only namespaces that are looked at, separated by commas; none means all."""

    prometheus_addresses: Annotated[tuple[Address, ...], NoDecode, BeforeValidator(_split)] = ()
    """The only addresses that ModelDeployments may have asked, and whatever path is below them,
    separated by commas; none means any."""

    webhook_addresses: Annotated[tuple[Address, ...], NoDecode, BeforeValidator(_split)] = ()
    """The only addresses that notifications and gates may post to, and plain paths below them,
    separated by commas; none means any."""

    @model_validator(mode="after")
    def _know_all_variables(self) -> Self:
        """Refuse a misspelt variable, which would silently leave a default in place."""
        known = {f"CROSSFADE_{name.upper()}" for name in type(self).model_fields}
        unknown = sorted(v for v in os.environ if v.startswith("CROSSFADE_") and v not in known)
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return self
