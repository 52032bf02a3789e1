"""``crossfade status``: where a rollout is, once, as it goes, or until it is somewhere."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TextIO

from crossfade.api.v1alpha1 import Phase
from crossfade.cli import options as shared
from crossfade.cli.clock import Clock
from crossfade.cli.deployed import Deployed, Event, read, read_events
from crossfade.cli.exits import OK, FailedError, TooLateError
from crossfade.cli.kubectl import Body, Cluster, Kubectl, NotThereError
from crossfade.cli.style import Style, style_of
from crossfade.cli.view import render, summary

POLL_SECONDS: Final = 1.0
"""Between two looks at the ModelDeployment. The operator writes no oftener but for transitions."""

PATIENCE: Final = timedelta(minutes=1)
"""For how long a watch goes on while the cluster does not answer."""

WAIT: Final = timedelta(minutes=10)
"""For how long --wait-for waits by default."""

PROMOTED: Final = "promoted"

STATES: Final = {PROMOTED: "", **{phase[0].lower() + phase[1:]: phase for phase in Phase}}
"""What can be waited for: each phase as JSON would spell it, and the promotion."""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "status",
        help="show where a rollout is; --watch goes on showing it",
        description="Show phase, versions, weights, steps, metrics with their evidence, the drill "
        "of the fallback, conditions and the last events of a ModelDeployment.",
        epilog="Exit code: 0 shown, or it came where it was waited for; 1 it cannot be read, or "
        "it ended elsewhere; 2 asked wrongly; 3 it did not come there in time.",
    )
    shared.add_name(parser)
    shared.add_cluster(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--wait-for", choices=tuple(STATES), metavar="STATE",
        help=f"show it until it is there: {', '.join(STATES)}",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=shared.duration, default=WAIT, metavar="TIME",
        help="how long --wait-for waits, such as 90s or 10m (the default); 0s is for ever",
    )  # fmt: skip
    shared.add_output(parser, "name")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show it; return the exit code."""
    return show(options, Kubectl(options), sys.stdout, Clock())


def show(options: argparse.Namespace, cluster: Cluster, stream: TextIO, clock: Clock) -> int:
    """Show it once, or as it goes.

    Raises:
        FailedError: it cannot be read, or will not come where it is waited for.
        TooLateError: it did not come there in time.
    """
    ends = _ending(options, clock.now())
    if not options.watch and ends is None:
        deployed = read(cluster.deployment(options.name))
        _print(options, deployed, cluster, stream, clock)
        return OK
    screen = _screen(options, stream)
    watching = _Watching(cluster, options.name, clock)
    try:
        while True:
            deployed = watching.look()
            screen.show(deployed, watching.events, clock.now())
            if ends is not None and ends(deployed, clock.now()):
                break
            clock.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        if options.wait_for is not None:
            raise
    finally:
        screen.close()
    if options.output is not None and watching.last is not None:
        _print(options, watching.last, cluster, stream, clock)
    return OK


Ending = Callable[[Deployed, datetime], bool]


def _ending(options: argparse.Namespace, started: datetime) -> Ending | None:
    """Return what tells whether it came where it is waited for; None: nothing is waited for."""
    state: str | None = options.wait_for
    if state is None:
        return None
    until = started + options.timeout if options.timeout else None

    def is_over(deployed: Deployed, now: datetime) -> bool:
        if has_come(deployed, state):
            return True
        why = why_never(deployed, state)
        if why is not None:
            raise FailedError(f"{deployed.key} will not be {state}: {why}")
        if until is not None and now >= until:
            raise TooLateError(
                f"{deployed.key} is not {state} after {_flag(options.timeout)}: {summary(deployed)}"
            )
        return False

    return is_over


def _flag(time_: timedelta) -> str:
    """Say a time as the flags take it."""
    minutes, seconds = divmod(int(time_.total_seconds()), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def has_come(deployed: Deployed, state: str) -> bool:
    """Tell whether it is there, by what the operator says of the newest spec."""
    if not deployed.is_current:
        return False
    if state == PROMOTED:
        return deployed.is_promoted and deployed.status.phase in (Phase.PROBATION, Phase.HEALTHY)
    return deployed.status.phase == STATES[state]


def why_never(deployed: Deployed, state: str) -> str | None:
    """Say why it will not come there until somebody does something; None while it may."""
    if not deployed.is_current:
        return None
    if deployed.spec is None:
        return deployed.problem
    phase = deployed.status.phase
    if phase is Phase.ROLLED_BACK and STATES[state] != phase:
        return deployed.status.message
    if phase is Phase.HEALTHY and deployed.is_promoted and state != PROMOTED:
        return "it is Healthy, and no rollout is under way"
    return None


class _Watching:
    """Looks again and again; asks for events only when something has changed."""

    def __init__(self, cluster: Cluster, name: str, clock: Clock) -> None:
        self._cluster, self._name, self._clock = cluster, name, clock
        self._seen_at: datetime | None = None
        self.last: Deployed | None = None
        self.events: list[Event] | None = []

    def look(self) -> Deployed:
        """Return what there is, or was: a cluster that is away for a moment is forgiven."""
        try:
            deployed = read(self._cluster.deployment(self._name))
        except NotThereError:
            raise
        except FailedError:
            now = self._clock.now()
            if self.last is None or self._seen_at is None or now - self._seen_at > PATIENCE:
                raise
            return self.last
        known = self.last
        if known is None or _version(known) != _version(deployed):
            self.events = events_of(self._cluster, deployed)
        self.last, self._seen_at = deployed, self._clock.now()
        return deployed


def _version(deployed: Deployed) -> str:
    return str(deployed.body["metadata"].get("resourceVersion", ""))


def revisions_of(cluster: Cluster, body: Body) -> list[Body] | None:
    """Return its ControllerRevisions; None: they may not be read, which hides nothing else."""
    try:
        return cluster.revisions(body)
    except FailedError:
        return None


def events_of(cluster: Cluster, deployed: Deployed) -> list[Event] | None:
    """Return its Events; None: they may not be read, which hides nothing else."""
    try:
        return read_events(cluster.events(deployed.body))
    except FailedError:
        return None


def _print(
    options: argparse.Namespace,
    deployed: Deployed,
    cluster: Cluster,
    stream: TextIO,
    clock: Clock,
) -> None:
    if options.output == "name":
        text = f"{shared.OBJECT_NAME}/{deployed.key.name}"
    elif options.output is not None:
        text = shared.WRITERS[options.output](deployed.body)
    else:
        lines = render(deployed, events_of(cluster, deployed), clock.now(), style_of(stream))
        text = "\n".join(lines)
    stream.write(f"{text}\n")
    stream.flush()


def _screen(options: argparse.Namespace, stream: TextIO) -> Screen:
    if options.output is not None:
        return Silence()
    return Terminal(stream) if stream.isatty() else Lines(stream)


class Screen(Protocol):
    """Where a rollout is shown as it goes."""

    def show(self, deployed: Deployed, events: list[Event] | None, now: datetime) -> None:
        """Show what there is now."""
        ...

    def close(self) -> None:
        """Leave the stream as it was."""
        ...


class Silence:
    """Shows nothing: what is printed at the end is for a program."""

    def show(self, deployed: Deployed, events: list[Event] | None, now: datetime) -> None:
        """See :class:`Screen`."""

    def close(self) -> None:
        """See :class:`Screen`."""


class Lines:
    """A line for each change, where nothing can be drawn again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before: object = None

    def show(self, deployed: Deployed, events: list[Event] | None, now: datetime) -> None:
        """See :class:`Screen`. Numbers in words change all the time, and are no change."""
        del events
        status = deployed.status
        words = re.sub(r"[\d.,]+", "#", status.message)
        gist = (status.phase, status.step, status.weight, status.stable, status.canary, words)
        if gist != self._before:
            at = now.astimezone().strftime("%H:%M:%S")
            self._stream.write(f"{at}  {summary(deployed)}\n")
            self._stream.flush()
        self._before = gist

    def close(self) -> None:
        """See :class:`Screen`."""


_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, without a cursor, where lines that are too long are cut."""

_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """The whole view, drawn again at each look, on the terminal's other screen."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: list[str] = []
        stream.write(_ENTER)

    def show(self, deployed: Deployed, events: list[Event] | None, now: datetime) -> None:
        """See :class:`Screen`."""
        style = style_of(self._stream)
        self._last = render(deployed, events, now, style)
        height = shutil.get_terminal_size().lines
        clock = now.astimezone().strftime("%H:%M:%S")
        foot = style.paint(f"{clock}  Ctrl-C ends the view, not the rollout", "dim")
        lines = [*fitted(self._last, height - 2, style), "", foot]
        drawn = "\r\n".join(f"{line}\x1b[K" for line in lines)
        self._stream.write(f"\x1b[H{drawn}\x1b[J")
        self._stream.flush()

    def close(self) -> None:
        """Go back to the first screen, and leave the last view there."""
        self._stream.write(_LEAVE)
        for line in self._last:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def fitted(lines: list[str], height: int, style: Style) -> list[str]:
    """Cut a view to the height of the terminal, and say so."""
    if len(lines) <= height:
        return lines
    hidden = len(lines) - height + 1
    return [*lines[: max(height - 1, 0)], style.paint(f"  ({hidden} more lines)", "dim")]
