"""Where Prometheus is and with which credentials it is asked: read from Secrets, kept a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from crossfade.access.secrets import SecretReader, SecretTexts
from crossfade.api.v1alpha1 import Prometheus
from crossfade.errors import MetricSourceError

CREDENTIALS_SECONDS: Final = 60.0
"""How long a Secret that was read is believed; a 401 or 403 ends that at once."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is shown to Prometheus and what it is checked by; all as texts. Never printed."""

    bearer_token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca: str | None = field(default=None, repr=False)
    """Certificate authorities, PEM, beside those that the image trusts."""
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Prometheus and how to ask it. Equal ones share connections and queries."""

    address: str
    credentials: Credentials = Credentials()
    insecure_skip_verify: bool = False
    timeout_seconds: float = 5.0


class Endpoints:
    """Resolves the spec to endpoints."""

    def __init__(self, secrets: SecretReader, clock: Callable[[], float]) -> None:
        """Read Secrets with ``secrets``; ``clock`` gives monotonic seconds."""
        self._secrets = SecretTexts(secrets, MetricSourceError)
        self._clock = clock
        self._known: dict[tuple[str, Prometheus], tuple[float, Endpoint]] = {}

    async def resolve(self, namespace: str, spec: Prometheus) -> Endpoint:
        """Return the endpoint.

        Raises:
            MetricSourceError: a Secret or a key in it is missing; the message names it.
        """
        now = self._clock()
        known = self._known.get((namespace, spec))
        if known is not None and now - known[0] < CREDENTIALS_SECONDS:
            return known[1]
        endpoint = Endpoint(
            address=spec.address.rstrip("/"),
            credentials=await self._credentials(namespace, spec),
            insecure_skip_verify=bool(spec.tls and spec.tls.insecure_skip_verify),
            timeout_seconds=float(spec.timeout_seconds),
        )
        for old in [k for k, (at, _) in self._known.items() if now - at >= CREDENTIALS_SECONDS]:
            del self._known[old]
        self._known[namespace, spec] = (now, endpoint)
        return endpoint

    def doubt(self, namespace: str, spec: Prometheus) -> None:
        """Read the Secrets again next time: Prometheus refused what they said."""
        self._known.pop((namespace, spec), None)

    async def _credentials(self, namespace: str, spec: Prometheus) -> Credentials:
        token = username = password = ca = certificate = key = None
        if spec.bearer_token is not None:
            token = await self._secrets.text(namespace, spec.bearer_token)
        if spec.basic_auth is not None:
            username = await self._secrets.value(namespace, spec.basic_auth.name, "username")
            password = await self._secrets.value(namespace, spec.basic_auth.name, "password")
        if spec.tls is not None and spec.tls.ca is not None:
            ca = await self._secrets.text(namespace, spec.tls.ca)
        if spec.tls is not None and spec.tls.client_certificate is not None:
            certificate = await self._secrets.value(
                namespace, spec.tls.client_certificate.name, "tls.crt"
            )
            key = await self._secrets.value(namespace, spec.tls.client_certificate.name, "tls.key")
        return Credentials(token, username, password, ca, certificate, key)
