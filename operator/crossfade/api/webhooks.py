"""Who is told, and who is asked: notifications and gates as users write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crossfade.api.base import ApiModel, SecretKeyRef

Occasion = Literal["started", "held", "promoted", "rolledBack", "deadline"]
"""What kind of news there is: ``core/notices.py`` has which Event is which."""

GateAnswer = Literal["allowed", "refused", "failed"]
"""What a gate said. ``failed``: nothing that is an answer."""

GateName = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Webhook(ApiModel):
    """An address that takes CloudEvents 1.0 (structured, application/cloudevents+json) by POST."""

    address: Annotated[str, Field(pattern="^https?://[^ ]+$", max_length=1024)]
    """The URL, for example "https://hooks.example.com/rollouts". A redirect is not followed."""
    signing_key: SecretKeyRef | None = None
    """The key by which requests are signed, as Standard Webhooks say (webhook-id,
    webhook-timestamp, webhook-signature): 24 to 64 random bytes in base64, after "whsec_"."""


class Slack(ApiModel):
    """An incoming webhook of Slack, or of Mattermost and others that take the same messages."""

    address: SecretKeyRef
    """Its URL, which is a secret: whoever knows it can write to the channel."""


class Notification(ApiModel):
    """Give webhook or slack."""

    name: GateName
    """What this receiver is called in status and Events."""
    events: Annotated[list[Occasion], Field(min_length=1, max_length=5)] | None = None
    """What it is told of; by default everything. held: the weight waits for a person, a gate, pods
    or metrics. deadline: deadlineSeconds is over."""
    webhook: Webhook | None = None
    """Told by a CloudEvent."""
    slack: Slack | None = None
    """Told by a message for people."""


class Gate(ApiModel):
    """A webhook that is asked before a weight, when everything else allows it.

    Yes is an answer of 200 with the JSON {"allowed": true}; {"allowed": false, "message": "..."} is
    a no, which holds the weight and is asked again.
    """

    name: GateName
    """What this gate is called in status and Events."""
    webhook: Webhook
    """Who is asked."""
    from_weight_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """It is asked before every weight from this one on; 100 is the promotion alone."""
    timeout_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    """How long to try to get an answer, in seconds."""
    on_failure: Literal["hold", "pass"] = "hold"
    """What happens without an answer by then: hold the weight and ask again, or go on."""
