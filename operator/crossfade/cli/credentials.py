"""Where the Prometheus of a backtest is, and with what it is asked: files instead of Secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from crossfade.api.v1alpha1 import Prometheus
from crossfade.errors import CommandError

TIMEOUT_SECONDS: Final = 30
"""For a query that reads an hour; nobody's rollout waits for it."""

_FILES: Final = "files"
"""The name of the Secret that stands for the files."""


@dataclass(frozen=True, slots=True)
class Files:
    """What the flags name."""

    bearer_token: str | None
    basic_auth: str | None
    ca: str | None


class FileSecrets:
    """Reads what the flags name as if it was in a Secret."""

    def __init__(self, files: Files) -> None:
        """Read the files.

        Raises:
            CommandError: a file cannot be read, or is not as it must be.
        """
        data: dict[str, bytes] = {}
        if files.bearer_token is not None:
            data["token"] = _content(files.bearer_token)
        if files.basic_auth is not None:
            user, colon, password = _content(files.basic_auth).strip().partition(b":")
            if not colon:
                raise CommandError(f"{files.basic_auth}: write USER:PASSWORD into it")
            data |= {"username": user, "password": password}
        if files.ca is not None:
            data["ca"] = _content(files.ca)
        self._data = data

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """See :class:`~crossfade.access.secrets.SecretReader`."""
        del namespace
        return self._data if name == _FILES else None


def prometheus_of(spec: Prometheus, address: str | None, files: Files) -> Prometheus:
    """Return where to ask, with credentials from files.

    Another address than the spec's has nothing of the spec's credentials: it is often a port of
    this machine that is forwarded.

    Raises:
        CommandError: the spec asks for credentials that no file gives.
    """
    tls = spec.tls if address is None else None
    if address is None:
        for field, asked, flag, given in (
            ("bearerToken", spec.bearer_token, "--bearer-token-file", files.bearer_token),
            ("basicAuth", spec.basic_auth, "--basic-auth-file", files.basic_auth),
            ("tls.ca", tls and tls.ca, "--ca-file", files.ca),
        ):
            if asked is not None and given is None:
                raise CommandError(
                    f"spec.analysis.prometheus.{field} is in a Secret, which is not read here: "
                    f"give {flag}"
                )
        if tls is not None and tls.client_certificate is not None:
            raise CommandError(
                "a client certificate (spec.analysis.prometheus.tls.clientCertificate) cannot be "
                "shown from here: forward a port to Prometheus and give --prometheus"
            )
    body: dict[str, Any] = {
        "address": address if address is not None else spec.address,
        "timeoutSeconds": max(spec.timeout_seconds, TIMEOUT_SECONDS),
    }
    if files.bearer_token is not None:
        body["bearerToken"] = {"name": _FILES, "key": "token"}
    if files.basic_auth is not None:
        body["basicAuth"] = {"name": _FILES}
    if files.ca is not None:
        body["tls"] = {"ca": {"name": _FILES, "key": "ca"}}
    if tls is not None and tls.insecure_skip_verify:
        body.setdefault("tls", {})["insecureSkipVerify"] = True
    return Prometheus.model_validate(body)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise CommandError(f"{path} cannot be read: {e.strerror}") from e
