"""``crossfade promote``, ``abort``, ``retry``, ``undo``, ``pause``, ``resume``: what people order.

Each order works in every phase or says why not, by the operator's own table (``core/commands.py``),
and is written only while the object is as it was when the table was asked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from crossfade.api.v1alpha1 import Phase
from crossfade.cli import options as shared
from crossfade.cli.clock import Clock
from crossfade.cli.deployed import Deployed, read
from crossfade.cli.exits import OK, FailedError, TooLateError
from crossfade.cli.kubectl import Cluster, Kubectl
from crossfade.cli.view import summary
from crossfade.core.commands import HELD_BY_PAUSE, Order

POLL_SECONDS: Final = 0.3
"""Between two looks whether the operator has taken the order; it does so at once."""

TAKEN_WITHIN: Final = timedelta(seconds=20)
"""The operator takes an order within a second; its restart takes some."""

ATTEMPTS: Final = 10
"""How often an order is tried when somebody else, mostly the operator, writes in between."""

EPILOG: Final = (
    "Exit code: 0 the operator has taken it; 1 refused, and why; 2 asked wrongly; 3 the operator "
    "has not taken it within 20 s, and may do so later."
)


def add_promote(verbs: Any) -> None:
    """Add the verb."""
    parser = _add(
        verbs, "promote", "pass this step now, or with --full all that are left",
        "Pass this step without waiting for its evidence, its time and its pause. Pods must be "
        "ready all the same, and a version that does harm is still taken back.",
    )  # fmt: skip
    parser.add_argument(
        "--full", action="store_true", help="skip the remaining steps: the next weight is 100 %%"
    )


def add_abort(verbs: Any) -> None:
    """Add the verb."""
    _add(
        verbs, "abort", "take the new version back, at once",
        "Take the new version back at once and remember it as rejected. In probation everything "
        "goes back to the version before.",
    )  # fmt: skip


def add_retry(verbs: Any) -> None:
    """Add the verb."""
    _add(
        verbs, "retry", "roll a version out again that was taken back",
        "Forget that the version in the spec was rejected, so that it is rolled out again.",
    )  # fmt: skip


def add_undo(verbs: Any) -> None:
    """Add the verb."""
    parser = _add(
        verbs, "undo", "go back to an earlier version, without a change of the spec",
        "Roll the version out that was stable before, or with --to-revision another one of "
        "crossfade history, in place of the one that the spec asks for. The spec is left alone, "
        "since Git may own it: its version counts as rejected until the spec changes, or retry is "
        "ordered. In probation the version before serves again at once.",
    )  # fmt: skip
    parser.add_argument(
        "--to-revision", type=_number, metavar="N", help="a number that crossfade history shows"
    )


def _number(text: str) -> int:
    """Read the number of a revision."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of a revision; write one such as 7"
        )
    return int(text)


def add_pause(verbs: Any) -> None:
    """Add the verb."""
    _add(
        verbs, "pause", "hold the weight where it is",
        "Set spec.rollout.paused to true: the weight holds, and a new version gets none. A version "
        "that does harm is still taken back. Where the spec comes from Git, set it there.",
    )  # fmt: skip


def add_resume(verbs: Any) -> None:
    """Add the verb."""
    _add(
        verbs, "resume", "go on after a pause",
        "Set spec.rollout.paused to false. Where the spec comes from Git, set it there.",
    )  # fmt: skip


def _add(verbs: Any, verb: str, help_: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        verb, help=help_, description=description, epilog=EPILOG
    )
    shared.add_name(parser)
    shared.add_cluster(parser)
    shared.add_output(parser, "name")
    parser.set_defaults(run=partial(_run, verb))
    return parser


def _run(verb: str, options: argparse.Namespace) -> int:
    return carry_out(verb, options, Kubectl(options), Clock())


def carry_out(verb: str, options: argparse.Namespace, cluster: Cluster, clock: Clock) -> int:
    """Give the order, and wait until the operator has taken it.

    Raises:
        FailedError: it is refused; the message says why.
        TooLateError: the operator has not taken it in time.
    """
    match verb:
        case "pause" | "resume":
            after, said = _set_paused(verb == "pause", options.name, cluster, clock)
        case "promote" if options.full:
            after, said = _give(Order.PROMOTE_FULL, options.name, cluster, clock)
        case "undo":
            number = options.to_revision
            after, said = _give(Order.UNDO, options.name, cluster, clock, number)
        case _:
            after, said = _give(Order(verb), options.name, cluster, clock)
    if options.output == "name":
        shared.say(f"{shared.OBJECT_NAME}/{after.key.name}")
    elif options.output is not None:
        shared.say(shared.WRITERS[options.output](after.body))
    else:
        shared.say(f"{after.key}: {said}; now {summary(after)}")
    return OK


DONE: Final = {
    Order.PROMOTE: "this step is passed",
    Order.PROMOTE_FULL: "all steps are passed",
    Order.ABORT: "the version is taken back",
    Order.RETRY: "the version is rolled out again",
    Order.UNDO: "it goes back to an earlier version",
}


def _give(
    order: Order, name: str, cluster: Cluster, clock: Clock, number: int | None = None
) -> tuple[Deployed, str]:
    words = order.value if number is None else f"{order}={number}"
    for _ in range(ATTEMPTS):
        body = cluster.deployment(name)
        deployed = read(body, cluster.revisions(body) if order is Order.UNDO else ())
        expect_allowed(order, deployed, number)
        if cluster.order(deployed.body, words):
            break
    else:
        raise FailedError(
            f"{deployed.key} was written by somebody else {ATTEMPTS} times in between: try again"
        )
    after = _await(name, cluster, clock, lambda it: not it.command, f'the order "{words}"')
    return after, DONE[order]


def expect_allowed(order: Order, deployed: Deployed, number: int | None = None) -> None:
    """Refuse what the operator would refuse.

    Raises:
        FailedError: says why, and what to do instead.
    """
    if deployed.command:
        raise FailedError(
            f'the order "{deployed.command}" stands at {deployed.key} and is not taken yet: is the '
            "operator running?"
        )
    why = deployed.why_not(order, number)
    if why is None:
        return
    hint = ""
    if deployed.spec is not None and deployed.spec.rollout.paused and "paused" in why:
        hint = f" (crossfade resume {deployed.argument})"
    raise FailedError(f"{deployed.key}: {order} is refused: {why}{hint}")


def _set_paused(paused: bool, name: str, cluster: Cluster, clock: Clock) -> tuple[Deployed, str]:
    deployed = read(cluster.deployment(name))
    if deployed.spec is None:
        raise FailedError(f"{deployed.key}: the spec cannot be read: {deployed.problem}")
    if deployed.spec.rollout.paused == paused:
        if not paused and _waits_at_its_step(deployed):
            raise FailedError(
                f"{deployed.key}: spec.rollout.paused is not set; it is step "
                f"{deployed.status.step} that pauses (crossfade promote {deployed.argument})"
            )
        return deployed, "paused already" if paused else "not paused"
    phase = deployed.status.phase
    cluster.set_paused(deployed.body, paused=paused)
    wanted = deployed.generation
    after = _await(
        name, cluster, clock, lambda it: it.generation > wanted and it.is_current, "the change"
    )
    if not paused:
        return after, "goes on"
    if phase in HELD_BY_PAUSE:
        return after, "holds"
    return after, f"phase {phase} goes on, and the next new version gets no weight until resume"


def _waits_at_its_step(deployed: Deployed) -> bool:
    rollout = deployed.status.rollout
    if deployed.status.phase is not Phase.PAUSED or rollout is None:
        return False
    return 0 <= rollout.step < len(deployed.steps) and (
        deployed.steps[rollout.step].pause is not None
    )


def _await(
    name: str, cluster: Cluster, clock: Clock, taken: Callable[[Deployed], bool], what: str
) -> Deployed:
    until = clock.now() + TAKEN_WITHIN
    while True:
        deployed = read(cluster.deployment(name))
        if taken(deployed):
            return deployed
        if clock.now() >= until:
            raise TooLateError(
                f"{deployed.key}: the operator has not taken {what} in "
                f"{TAKEN_WITHIN.total_seconds():.0f} s; it stands there and is taken when the "
                "operator runs"
            )
        clock.sleep(POLL_SECONDS)
