"""Kubernetes Events, as ``kubectl describe`` shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from crossfade.core.actions import Announcement, Manifest
from crossfade.names import API_VERSION, KIND

REPORTING_CONTROLLER: Final = "crossfade.dev/operator"

MAX_NOTE: Final = 1024
"""The API server's limit of an Event's note, in characters."""


def event_of(body: Manifest, news: Announcement, now: datetime, instance: str) -> Manifest:
    """Render an announcement as an Event (events.k8s.io/v1) about a ModelDeployment.

    Args:
        body: the ModelDeployment.
        news: what happened.
        now: when.
        instance: which operator pod says so.
    """
    meta = body["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance[:128],
        "action": news.reason,
        "reason": news.reason,
        "type": news.type,
        "note": news.message
        if len(news.message) <= MAX_NOTE
        else news.message[: MAX_NOTE - 1] + "…",
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
        },
    }
