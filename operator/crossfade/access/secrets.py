"""Texts in Secrets, by reference; what is missing is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from crossfade.api.base import SecretKeyRef
from crossfade.errors import ClusterError, CrossfadeError


class SecretReader(Protocol):
    """Reads a Secret's data; the only thing of Kubernetes that is needed outside of it."""

    async def read(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Return the data, decoded from base64; None when there is no such Secret."""
        ...


class SecretTexts:
    """Reads single keys of Secrets as texts."""

    def __init__(self, reader: SecretReader, failure: type[CrossfadeError]) -> None:
        """Read by a reader; what cannot be read is raised as ``failure``."""
        self._reader = reader
        self._failure = failure

    async def text(self, namespace: str, ref: SecretKeyRef) -> str:
        """Return the text at a reference, without white space around it; see :meth:`value`."""
        return await self.value(namespace, ref.name, ref.key)

    async def value(self, namespace: str, name: str, key: str) -> str:
        """Return a key's text, without white space around it.

        Raises:
            CrossfadeError: of the class that was given. The Secret or the key is missing, or is no
                text; the message names it.
        """
        try:
            data = await self._reader.read(namespace, name)
        except ClusterError as e:
            raise self._failure(f"Secret {namespace}/{name} cannot be read: {e}") from e
        if data is None:
            raise self._failure(f"there is no Secret {name} in namespace {namespace}")
        if key not in data:
            raise self._failure(f"Secret {namespace}/{name} has no key {key}")
        try:
            return data[key].decode().strip()
        except UnicodeDecodeError as e:
            raise self._failure(f"key {key} of Secret {namespace}/{name} is no text") from e
