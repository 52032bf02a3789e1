"""Signatures as Standard Webhooks say, so that a receiver knows who posts.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

KEY_PREFIX: Final = "whsec_"
SHORTEST_KEY: Final = 24
LONGEST_KEY: Final = 64
"""In bytes, as the specification has them."""

RIGHT_KEY: Final = (
    f'"{KEY_PREFIX}" and {SHORTEST_KEY} to {LONGEST_KEY} bytes in base64, as from '
    f"echo {KEY_PREFIX}$(openssl rand -base64 32)"
)


def read_key(text: str) -> bytes:
    """Read a key as it is written.

    Raises:
        ValueError: it is none; the message says what one looks like, and nothing of this one.
    """
    encoded = text.removeprefix(KEY_PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if encoded == text or not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise ValueError(f"a signing key is {RIGHT_KEY}")
    return key


def signature_of(key: bytes, id_: str, seconds: int, body: bytes) -> str:
    """Return the header ``webhook-signature`` of what is sent at a time since 1970."""
    signed = hmac.digest(key, f"{id_}.{seconds}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"
