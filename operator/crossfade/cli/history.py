"""``crossfade history``: what became of versions, as far as it is remembered.

ControllerRevisions keep the last ten that ran; Kubernetes keeps Events for an hour by default; the
status keeps the last rejected versions.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any, Final

from crossfade.cli import options as shared
from crossfade.cli.deployed import Deployed, Event, read
from crossfade.cli.exits import OK
from crossfade.cli.kubectl import Cluster, Kubectl
from crossfade.cli.revisions import as_json, rows_of
from crossfade.cli.status import events_of, revisions_of
from crossfade.cli.style import clean
from crossfade.cli.table import columns

ROLLING_BACK: Final = "RollingBack"
"""The Event of a version that is taken back."""

SAME: Final = timedelta(seconds=10)
"""A rejection and its Event are written in the same turn; Events may wait for the API server."""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "history",
        help="tell what became of versions, as far as it is remembered",
        description="Show the last ten revisions that ran, with when and why each ended. Then tell "
        "the story in order: the Events, which Kubernetes keeps for an hour by default, and the "
        "last versions that were taken back, which the status keeps.",
        epilog="Exit code: 0 told; 1 it cannot be read; 2 asked wrongly.",
    )
    shared.add_name(parser)
    shared.add_cluster(parser)
    shared.add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Tell it; return the exit code."""
    return show(options, Kubectl(options))


def show(options: argparse.Namespace, cluster: Cluster) -> int:
    """Tell it."""
    body = cluster.deployment(options.name)
    revisions = revisions_of(cluster, body)
    if revisions is None:
        shared.warn("you may not read ControllerRevisions, so no revisions are shown")
    deployed = read(body, revisions or ())
    events = events_of(cluster, deployed)
    if events is None:
        shared.warn("you may not read Events, so this is only what the status remembers")
    story = story_of(deployed, events or [])
    if options.output is not None:
        told = {
            "revisions": [as_json(it) for it in deployed.revisions],
            "events": [event.as_json() for event in story],
        }
        shared.say(shared.WRITERS[options.output](told))
        return OK
    if not story and not deployed.revisions:
        shared.warn(f"nothing is remembered of {deployed.key}: Events are kept for about an hour")
    if deployed.revisions:
        shared.say("\n".join(columns(rows_of(deployed.revisions, deployed.status))))
    if story:
        rows = [("TIME", "WHAT", "WHY")]
        rows += [
            (f"{e.at.astimezone():%Y-%m-%d %H:%M:%S}", e.reason, clean(e.message)) for e in story
        ]
        shared.say("\n".join([*([""] if deployed.revisions else []), *columns(rows)]))
    return OK


def story_of(deployed: Deployed, events: list[Event]) -> list[Event]:
    """Return the Events, with the rejections whose Event is gone."""
    story = list(events)
    for rejected in deployed.status.rejected:
        told = any(
            event.reason == ROLLING_BACK and abs(event.at - rejected.at) <= SAME for event in events
        )
        if not told:
            words = f"version {rejected.version} was taken back ({rejected.reason}): "
            story.append(Event(rejected.at, "Rejected", words + rejected.message, is_warning=True))
    return sorted(story)
