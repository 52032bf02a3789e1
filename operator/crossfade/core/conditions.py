"""What the status says for people and for other programs, derived from what was decided."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from crossfade.api.v1alpha1 import (
    Condition,
    FallbackTargetStatus,
    GateStatus,
    MetricStatus,
    ModelDeploymentStatus,
    Phase,
    StepForecast,
)
from crossfade.core.compatibility import INPUTS_COMPATIBLE, refusals
from crossfade.core.phases import WITH_CANARY
from crossfade.core.turn import Turn
from crossfade.evidence.verdicts import MetricAnswer, Verdict
from crossfade.names import selector_labels


def report(turn: Turn) -> None:
    """Fill in verdict, metrics, replicas and conditions."""
    if turn.seen.answers is not None:
        _report_answers(turn, turn.seen.answers)
    if turn.status.phase in (Phase.HEALTHY, Phase.PREPARING):
        turn.set(verdict="")
    _report_stable(turn)
    conditions = (_ready(turn), _progressing(turn), _route_accepted(turn), _inputs(turn))
    turn.set(
        observed_generation=turn.seen.generation,
        conditions=[condition for condition in conditions if condition is not None],
    )


def _report_answers(turn: Turn, answers: tuple[MetricAnswer, ...]) -> None:
    turn.set(metrics=[_metric_status(a) for a in answers], verdict=verdict_of(answers))


def _metric_status(answer: MetricAnswer) -> MetricStatus:
    return MetricStatus(
        name=answer.name,
        verdict=answer.verdict.value,
        message=answer.message,
        alert=answer.alert,
        forecast=[
            StepForecast(weight_percent=f.weight_percent, requests=f.requests, seconds=f.seconds)
            for f in answer.forecast
        ],
        no_forecast=answer.no_forecast or None,
    )


def verdict_of(answers: tuple[MetricAnswer, ...]) -> str:
    """Sum up a look in one line: the worst answer decides, and says why."""
    for verdict, word in (
        (Verdict.HARM, "Harm"),
        (Verdict.UNAVAILABLE, "Hold"),
        (Verdict.NOT_ENOUGH_DATA, "Hold"),
    ):
        for answer in answers:
            if answer.verdict is verdict:
                return f"{word}: {answer.name}: {answer.message}"
    return "Healthy"


def _report_stable(turn: Turn) -> None:
    stable = turn.status.stable
    revision = stable.revision if stable is not None else turn.seen.revision
    workload = turn.workload(revision)
    labels = selector_labels(turn.seen.name, revision)
    turn.set(
        replicas=workload.replicas if workload is not None else 0,
        ready_replicas=workload.ready if workload is not None else 0,
        selector=",".join(f"{key}={value}" for key, value in sorted(labels.items())),
    )


def _ready(turn: Turn) -> Condition:
    status = turn.status
    if status.stable is None:
        return _condition(turn, "Ready", "False", "Initializing", status.message)
    if turn.ready(status.stable.revision) == 0:
        workload = turn.workload(status.stable.revision)
        trouble = workload.trouble if workload is not None else "its Deployment is gone"
        return _condition(
            turn, "Ready", "False", "StableNotReady", f"no stable pod is ready: {trouble}"
        )
    return _condition(turn, "Ready", "True", "Serving", f"version {status.stable.version} serves")


def _progressing(turn: Turn) -> Condition:
    status = turn.status
    going = status.phase in WITH_CANARY or status.phase in (Phase.INITIALIZING, Phase.ROLLING_BACK)
    late = status.rollout is not None and status.rollout.deadline_passed
    reason = "DeadlineExceeded" if going and late else status.phase.value
    return _condition(turn, "Progressing", "True" if going else "False", reason, status.message)


def _route_accepted(turn: Turn) -> Condition:
    if turn.route_settled and not turn.writes_route:
        return _condition(turn, "RouteAccepted", "True", "InForce", "the weights are in force")
    route = turn.seen.route
    if route.problem:
        return _condition(turn, "RouteAccepted", "False", "RouteProblem", route.problem)
    return _condition(
        turn, "RouteAccepted", "Unknown", "Pending", "the weights are not in force yet"
    )


def _inputs(turn: Turn) -> Condition | None:
    """Only while there is a canary with a contract is there something to compare."""
    words = refusals(turn)
    if words is None:
        return None
    if words:
        return _condition(turn, INPUTS_COMPATIBLE, "False", "InputsNarrowed", words)
    version, stable = turn.canary.version, turn.stable.version
    return _condition(
        turn,
        INPUTS_COMPATIBLE,
        "True",
        "NothingNarrowed",
        f"nothing was found that version {version} refuses and {stable} accepts",
    )


def _condition(
    turn: Turn, type_: str, status: Literal["True", "False", "Unknown"], reason: str, message: str
) -> Condition:
    return Condition(
        type=type_,
        status=status,
        observed_generation=turn.seen.generation,
        last_transition_time=_transition_time(turn.seen.status, type_, status, turn.now),
        reason=reason,
        message=message,
    )


def _transition_time(
    before: ModelDeploymentStatus, type_: str, status: str, now: datetime
) -> datetime:
    for condition in before.conditions:
        if condition.type == type_ and condition.status == status:
            return condition.last_transition_time
    return now


WORDS_REFRESH: Final = timedelta(seconds=10)
"""How old a status may get while only words change. Pods that start well
need no words, and each is a write that fifty rollouts starting together pay fifty times."""

NUMBERS_REFRESH: Final = timedelta(seconds=60)
"""How old a status may get while only the numbers in its messages change."""


def write_due_in(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus, age: timedelta
) -> timedelta | None:
    """Return in which time a status should be written; None when it is the stored one.

    What a program may act on is written at once, an alert when it appears. Words and, later still,
    numbers (forecasts are nothing else) change with every look; writing each would cost a request
    a second and a rollout.

    Args:
        before: what is stored.
        after: what was decided.
        age: how long ago this process wrote it; very long if it did not.
    """
    if before == after:
        return None
    if _essence(before) != _essence(after) or _alerted(after) - _alerted(before):
        return timedelta(0)
    refresh = NUMBERS_REFRESH if _words(before) == _words(after) else WORDS_REFRESH
    return max(refresh - age, timedelta(0))


def _words(status: ModelDeploymentStatus) -> list[str]:
    said = [status.message, status.verdict]
    said += [words or "" for m in status.metrics for words in (m.message, m.alert, m.no_forecast)]
    said += [target.message or "" for target in status.fallback]
    said += [gate.message for gate in status.gates]
    said += ["timed" for m in status.metrics for f in m.forecast if f.seconds is not None]
    said += [c.message for c in status.conditions]
    return [re.sub(r"[\d.,]+", "", words) for words in said]


def _alerted(status: ModelDeploymentStatus) -> set[str]:
    """Return the metrics with an alert. That one is over is no news: it may be back soon."""
    return {m.name for m in status.metrics if m.alert}


def _essence(status: ModelDeploymentStatus) -> ModelDeploymentStatus:
    """Return what is written at once: everything but words about the last look."""
    telling = {Verdict.HARM.value, Verdict.UNAVAILABLE.value}
    verdicts = [MetricStatus(name=m.name, verdict=m.verdict, message="") for m in status.metrics]
    fallback = [FallbackTargetStatus(target=t.target, ok=t.ok) for t in status.fallback]
    gates = [GateStatus(name=g.name, answer=g.answer) for g in status.gates]
    conditions = [c.model_copy(update=_vague(c)) for c in status.conditions]
    return status.model_copy(
        update={
            "metrics": [m for m in verdicts if m.verdict in telling],
            "fallback": fallback,
            "gates": gates,
            "conditions": conditions,
            "verdict": "",
            "message": "",
        }
    )


def _vague(condition: Condition) -> dict[str, Any]:
    """Return what to leave out of a condition.

    For a moment after each write a gateway has not accepted the route: that is no news yet.
    """
    if condition.type != "RouteAccepted" or condition.status == "True":
        return {"message": ""}
    return {
        "message": "",
        "status": "Unknown",
        "reason": "",
        "last_transition_time": datetime.min.replace(tzinfo=UTC),
    }


def with_failure(
    before: ModelDeploymentStatus, message: str, generation: int, now: datetime
) -> ModelDeploymentStatus:
    """Say that a request was refused, in the condition Progressing and in the message."""
    known = next((c for c in before.conditions if c.type == "Progressing"), None)
    since = known.last_transition_time if known and known.status == "False" else now
    failed = Condition(
        type="Progressing",
        status="False",
        observed_generation=generation,
        last_transition_time=since,
        reason="WriteFailed",
        message=message,
    )
    others = [c for c in before.conditions if c.type != "Progressing"]
    return before.model_copy(update={"message": message, "conditions": [*others, failed]})
