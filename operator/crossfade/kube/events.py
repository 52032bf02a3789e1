"""Kubernetes Events, as ``kubectl describe`` shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from crossfade.core.actions import Announcement, Manifest
from crossfade.names import API_VERSION, KIND

REPORTING_CONTROLLER: Final = "crossfade.dev/operator"

MAX_MESSAGE: Final = 1024
"""The API server's limit of an Event's message, in characters."""


def event_of(body: Manifest, news: Announcement, now: datetime, instance: str) -> Manifest:
    """Render an announcement as an Event about a ModelDeployment.

    A core/v1 Event, since ``kubectl describe`` sorts by lastTimestamp, which events.k8s.io/v1 does
    not take; eventTime tells apart what happened within a second.

    Args:
        body: the ModelDeployment.
        news: what happened.
        now: when.
        instance: which operator pod says so.
    """
    meta, message = body["metadata"], news.message
    second = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "firstTimestamp": second,
        "lastTimestamp": second,
        "count": 1,
        "source": {"component": REPORTING_CONTROLLER},
        "reportingComponent": REPORTING_CONTROLLER,
        "reportingInstance": instance[:128],
        "action": news.reason,
        "reason": news.reason,
        "type": news.type,
        "message": message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…",
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
    }
