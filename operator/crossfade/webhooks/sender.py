"""A notice or a question on its way: its Secrets, its signature, its request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from crossfade.access.secrets import SecretReader, SecretTexts
from crossfade.api.webhooks import Slack, Webhook
from crossfade.errors import WebhookError
from crossfade.webhooks.client import Answer, Posts
from crossfade.webhooks.events import Json
from crossfade.webhooks.signing import read_key, signature_of

EVENT_TYPE: Final = "application/cloudevents+json"

_ADDRESS: Final = re.compile(r"https?://[^\s@]+")


class Sender:
    """Sends with the Secrets of a ModelDeployment's namespace."""

    def __init__(self, posts: Posts, secrets: SecretReader, clock: Callable[[], datetime]) -> None:
        self._posts = posts
        self._secrets = SecretTexts(secrets, WebhookError)
        self._clock = clock

    async def event(
        self, namespace: str, webhook: Webhook, event: Json, seconds: float, *, reads: bool = False
    ) -> Answer:
        """Post a CloudEvent, signed where there is a key.

        Args:
            namespace: whose Secrets are read.
            webhook: who gets it.
            event: the CloudEvent.
            seconds: how long it may take.
            reads: the answer's body is wanted.

        Raises:
            WebhookError: there is no answer, or the key cannot be used; says why.
        """
        body, now = json.dumps(event).encode(), int(self._clock().timestamp())
        headers = {
            "Content-Type": EVENT_TYPE,
            "webhook-id": str(event["id"]),
            "webhook-timestamp": str(now),
        }
        if webhook.signing_key is not None:
            ref = webhook.signing_key
            try:
                key = read_key(await self._secrets.text(namespace, ref))
            except ValueError as e:
                raise WebhookError(f"key {ref.key} of Secret {namespace}/{ref.name}: {e}") from e
            headers["webhook-signature"] = signature_of(key, event["id"], now, body)
        return await self._posts.post(webhook.address, headers, body, seconds, reads=reads)

    async def text(self, namespace: str, slack: Slack, text: str, seconds: float) -> Answer:
        """Post a line of text, as Slack's incoming webhooks take it.

        Raises:
            WebhookError: there is no answer, or the address cannot be used; says why.
        """
        ref = slack.address
        address = await self._secrets.text(namespace, ref)
        if not _ADDRESS.fullmatch(address):
            raise WebhookError(
                f"key {ref.key} of Secret {namespace}/{ref.name}: an address is such as "
                "https://hooks.slack.com/services/T000/B000/XXXX"
            )
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"text": text}).encode()
        return await self._posts.post(address, headers, body, seconds, reads=False)
