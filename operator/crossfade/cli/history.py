"""``crossfade history``: what became of versions, as far as it is remembered.

Kubernetes keeps Events for an hour by default; the status keeps the last rejected versions.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any, Final

from crossfade.cli import options as shared
from crossfade.cli.deployed import Deployed, Event, read
from crossfade.cli.exits import OK
from crossfade.cli.kubectl import Cluster, Kubectl
from crossfade.cli.status import events_of
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
        description="Tell the story in order: the Events, which Kubernetes keeps for an hour by "
        "default, and the last versions that were taken back, which the status keeps.",
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
    deployed = read(cluster.deployment(options.name))
    events = events_of(cluster, deployed)
    if events is None:
        shared.warn("you may not read Events, so this is only what the status remembers")
    story = story_of(deployed, events or [])
    if options.output is not None:
        shared.say(shared.WRITERS[options.output]([event.as_json() for event in story]))
    elif not story:
        shared.warn(f"nothing is remembered of {deployed.key}: Events are kept for about an hour")
    else:
        rows = [("TIME", "WHAT", "WHY")]
        rows += [
            (f"{e.at.astimezone():%Y-%m-%d %H:%M:%S}", e.reason, clean(e.message)) for e in story
        ]
        shared.say("\n".join(columns(rows)))
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
