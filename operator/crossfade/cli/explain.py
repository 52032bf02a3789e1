"""``crossfade explain``: why a rollout is where it is, and what would move it.

The gates of a step are asked themselves (``core/gates.py``), of what the status says; only those
about pods are not, since a status does not have the Deployments: of them the operator's own
message tells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from crossfade.api.v1alpha1 import MetricStatus, ModelDeploymentSpec, Phase, RolloutStatus
from crossfade.cli import options as shared
from crossfade.cli.clock import Clock
from crossfade.cli.deployed import Deployed, read
from crossfade.cli.exits import OK, FailedError
from crossfade.cli.kubectl import Cluster, Kubectl
from crossfade.cli.report import duration
from crossfade.cli.status import revisions_of
from crossfade.cli.style import Style, style_of
from crossfade.core import gates
from crossfade.core.commands import Order
from crossfade.core.observation import GateAnswers, Observation, RouteState
from crossfade.core.turn import Turn
from crossfade.evidence.verdicts import MetricAnswer, Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """What people want to know."""

    where: str
    why: tuple[str, ...]
    moves: tuple[str, ...]
    """What would move it, by itself or by somebody."""
    orders: Mapping[str, str | None]
    """Each order, and why it is refused now; None: it is not."""

    def as_json(self, deployed: Deployed) -> dict[str, Any]:
        """Return it as ``-o json`` shows it."""
        return {
            "namespace": deployed.key.namespace,
            "name": deployed.key.name,
            "phase": deployed.status.phase.value,
            "where": self.where,
            "why": list(self.why),
            "moves": list(self.moves),
            "orders": {
                order: {"allowed": why is None, **({"why": why} if why is not None else {})}
                for order, why in self.orders.items()
            },
        }


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "explain",
        help="say why a rollout is where it is, and what would move it",
        description="Say why a rollout is where it is, what would move it, and which orders it "
        "would take now.",
        epilog="Exit code: 0 explained; 1 it cannot be read; 2 asked wrongly.",
    )
    shared.add_name(parser)
    shared.add_cluster(parser)
    shared.add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Explain; return the exit code."""
    return show(options, Kubectl(options), Clock())


def show(options: argparse.Namespace, cluster: Cluster, clock: Clock) -> int:
    """Explain it."""
    body = cluster.deployment(options.name)
    deployed = read(body, revisions_of(cluster, body) or ())
    explanation = explain(deployed, clock.now())
    if options.output is not None:
        shared.say(shared.WRITERS[options.output](explanation.as_json(deployed)))
    else:
        shared.say("\n".join(render(deployed, explanation, style_of(sys.stdout))))
    return OK


def render(deployed: Deployed, explanation: Explanation, style: Style) -> list[str]:
    """Say it in words."""
    first, *rest = style.wrap(f"{deployed.key} {explanation.where}", 0)
    lines = [style.paint(first, "bold"), *rest]
    for title, parts in (("Why", explanation.why), ("What would move it", explanation.moves)):
        if parts:
            lines += ["", style.paint(title, "bold")]
            for part in parts:
                lines += style.wrap(part, 4, "  - ")
    lines += ["", style.paint("Orders", "bold")]
    width = max(len(order) for order in explanation.orders)
    for order, why in explanation.orders.items():
        said = f"crossfade {VERBS[order]} {deployed.argument}" if why is None else f"no: {why}"
        lines += style.wrap(said, width + 4, f"  {order}")
    return lines


VERBS: Final[Mapping[str, str]] = {
    Order.PROMOTE: "promote",
    Order.PROMOTE_FULL: "promote --full",
    Order.ABORT: "abort",
    Order.RETRY: "retry",
    Order.UNDO: "undo",
}
"""How each order is given on the command line."""


def explain(deployed: Deployed, now: datetime) -> Explanation:
    """Explain what the API server has."""
    return Explanation(
        _where(deployed),
        tuple(_why(deployed)),
        tuple(_moves(deployed, now)),
        {order.value: deployed.why_not(order) for order in Order},
    )


def _where(deployed: Deployed) -> str:
    status = deployed.status
    canary = status.canary.version if status.canary is not None else ""
    stable = status.stable.version if status.stable is not None else ""
    said = {
        Phase.INITIALIZING: "has no version that serves yet",
        Phase.HEALTHY: f"serves version {stable}",
        Phase.PREPARING: f"serves {stable} and gets version {canary} ready, without traffic",
        Phase.PROGRESSING: f"gives {status.weight} % to version {canary}, the rest to {stable}",
        Phase.PAUSED: f"holds at {status.weight} % for version {canary}, the rest to {stable}",
        Phase.PROMOTING: f"is giving everything to version {canary}",
        Phase.PROBATION: f"serves the new version {stable} and keeps the old one ready",
        Phase.ROLLING_BACK: f"takes version {canary} back; {stable} serves",
        Phase.ROLLED_BACK: f"serves version {stable}; the version in the spec was taken back",
    }[status.phase]
    step = f", step {status.step}" if status.step else ""
    return f"{said} ({status.phase}{step})"


def _why(deployed: Deployed) -> Iterator[str]:
    if deployed.problem:
        yield f"the spec cannot be read, so nothing is changed: {deployed.problem}"
    if not deployed.is_current:
        yield (
            f"the operator has seen generation {deployed.status.observed_generation} of the spec, "
            f"and this is {deployed.generation}"
        )
    if deployed.command:
        yield f'the order "{deployed.command}" stands there, and the operator has not taken it'
    if deployed.status.message:
        yield deployed.status.message
    for condition in deployed.status.conditions:
        good = condition.status == "True" or condition.type == "Progressing"
        bad = condition.reason in ("WriteFailed", "DeadlineExceeded") or not good
        if bad and condition.message != deployed.status.message:
            yield f"{condition.type} is {condition.status}: {condition.message}"
    for target in deployed.status.fallback:
        if not target.ok:
            yield f"the fallback {target.target} failed its drill: {target.message or 'no answer'}"


def _moves(deployed: Deployed, now: datetime) -> Iterator[str]:
    if deployed.problem:
        yield "correct the spec"
        return
    if deployed.spec is None:
        return
    if not deployed.is_current or deployed.command:
        yield "the operator, as soon as it runs: look at its Deployment and its log"
    yield from RULES[deployed.status.phase](_Case(deployed, deployed.spec, now))


@dataclass(frozen=True, slots=True)
class _Case:
    """What a rule is about."""

    deployed: Deployed
    spec: ModelDeploymentSpec
    now: datetime

    @property
    def name(self) -> str:
        """The ModelDeployment as commands name it, for advice."""
        return self.deployed.argument

    @property
    def rollout(self) -> RolloutStatus:
        """The rollout; only phases with a canary have one."""
        rollout = self.deployed.status.rollout
        if rollout is None:
            raise FailedError(f"phase {self.deployed.status.phase} without a rollout")
        return rollout


Rule = Callable[[_Case], Iterator[str]]


def _initializing(case: _Case) -> Iterator[str]:
    yield f"a ready pod of version {case.spec.model.version}, and its route in force"
    yield "the spec, if it is wrong: nothing is taken back, since there is no version before"


def _healthy(case: _Case) -> Iterator[str]:
    if case.spec.rollout.paused:
        yield (
            "a new version would get ready, but no weight, since spec.rollout.paused is true: "
            f"crossfade resume {case.name}"
        )
    yield "another version: a change of model, serving, template or what the sidecar does"


def _preparing(case: _Case) -> Iterator[str]:
    first = case.deployed.steps[0].weight_percent
    rollout = case.rollout
    if case.spec.rollout.paused:
        yield f"spec.rollout.paused is true: crossfade resume {case.name}"
    if rollout.not_ready_since is not None:
        limit = timedelta(seconds=case.spec.rollout.ready_deadline_seconds)
        left = max(rollout.not_ready_since + limit - case.now, timedelta(0))
        yield f"enough ready pods for {first} %: then it gets that weight"
        yield f"no ready pods for {duration(left)} more (readyDeadlineSeconds): it is taken back"
    if any(not target.ok for target in case.deployed.status.fallback):
        yield "every target of the fallback answers its drill"
    if any(gate.answer != "allowed" for gate in case.deployed.status.gates):
        yield "every gate of the first weight says yes; they are asked again"


def _weighted(case: _Case) -> Iterator[str]:
    turn = _turn_of(case)
    for gate in gates.GATES:
        if gate in _UNSEEN:
            continue
        closed = gate(turn)
        if closed is None:
            continue
        if gate is gates.evidence:
            yield from _missing_evidence(case.deployed.status.metrics, closed)
        else:
            yield f"{closed}{_ADVICE.get(gate, '').format(name=case.name)}"
    following = gates.next_weight(turn)
    then = f"it gets {following} %" if following < 100 else "it gets everything"  # noqa: PLR2004
    yield f"when all of that is there, and pods for the next weight are ready: {then}"
    if case.spec.analysis is not None:
        yield "a metric that shows harm: it is taken back at once"
    if turn.rollout.paused_since is None and not turn.rollout.deadline_passed:
        allowed = case.spec.rollout.deadline_seconds + turn.rollout.paused_seconds
        left = turn.rollout.started_at + timedelta(seconds=allowed) - case.now
        end = (
            "it is taken back"
            if case.spec.rollout.on_deadline == "rollBack"
            else "a person decides"
        )
        yield f"deadlineSeconds, in {duration(max(left, timedelta(0)))}: then {end}"


_UNSEEN: Final = (gates.capacity, gates.next_capacity)
"""Gates about Deployments, which a status does not have."""

_ADVICE: Final[Mapping[gates.Gate, str]] = {
    gates.spec_paused: ": crossfade resume {name}",
    gates.deadline: " (crossfade promote {name}, or crossfade abort {name})",
    gates.human_pause: " (crossfade promote {name})",
    gates.webhooks: " (it is asked again; crossfade promote {name} goes on without it)",
}
"""What a person does about a gate; the others open by themselves."""


def _missing_evidence(metrics: list[MetricStatus], otherwise: str) -> Iterator[str]:
    lacking = [m for m in metrics if m.verdict != Verdict.HEALTHY]
    for metric in lacking:
        hint = ""
        if metric.verdict == Verdict.UNAVAILABLE:
            hint = " (Prometheus, or how its series are named: docs/operating.md)"
        yield f"{metric.name}: {metric.message}{hint}"
    if not lacking:
        yield otherwise


def _turn_of(case: _Case) -> Turn:
    """Return a turn that has seen what the status says and no more."""
    answers = tuple(
        MetricAnswer(metric.name, _verdict(metric.verdict), metric.message)
        for metric in case.deployed.status.metrics
    )
    seen = Observation(
        name=case.deployed.key.name,
        namespace=case.deployed.key.namespace,
        generation=case.deployed.generation,
        spec=case.spec,
        status=case.deployed.status,
        revision=case.deployed.revision,
        workloads={},
        route=RouteState(found=True),
        address=None,
        answers=answers or None,
    )
    turn = Turn(seen, case.spec, case.now)
    if case.deployed.status.gates:
        said = tuple(case.deployed.status.gates)
        asked = GateAnswers(turn.canary.revision, gates.next_weight(turn), said)
        return Turn(replace(seen, gate_answers=asked), case.spec, case.now)
    return turn


def _verdict(word: str) -> Verdict:
    return Verdict(word) if word in list(Verdict) else Verdict.UNAVAILABLE


def _promoting(_: _Case) -> Iterator[str]:
    yield "the gateway takes the route over: then the new version is stable"


def _probation(case: _Case) -> Iterator[str]:
    promoted_at = case.deployed.status.promoted_at or case.now
    left = promoted_at + timedelta(seconds=case.spec.rollout.probation_seconds) - case.now
    if left > timedelta(0):
        yield f"probationSeconds, in {duration(left)}: then the old version is removed"
    else:
        yield "the old version is seen to receive nothing: then it is removed"
    yield "a metric shows harm, or the order abort: everything goes back to the old version"


def _rolling_back(_: _Case) -> Iterator[str]:
    yield "the route is in force and the version receives nothing any more: then it is removed"


def _rolled_back(case: _Case) -> Iterator[str]:
    yield "another version in the spec, or the one that serves"
    yield f"another try of the same: crossfade retry {case.name}"
    yield f"an earlier version in its place: crossfade undo {case.name}"


RULES: Final[Mapping[Phase, Rule]] = {
    Phase.INITIALIZING: _initializing,
    Phase.HEALTHY: _healthy,
    Phase.PREPARING: _preparing,
    Phase.PROGRESSING: _weighted,
    Phase.PAUSED: _weighted,
    Phase.PROMOTING: _promoting,
    Phase.PROBATION: _probation,
    Phase.ROLLING_BACK: _rolling_back,
    Phase.ROLLED_BACK: _rolled_back,
}
