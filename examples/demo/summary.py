"""What the demo promised, what came of it, and whether that is the same. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from examples.demo.look import Snapshot

if TYPE_CHECKING:
    from examples.demo.train import Artifacts

FIRST: Final = "1.0.0"
BROKEN: Final = "2.0.0"
GOOD: Final = "3.0.0"

HARM: Final = "MetricHarm"
"""The operator's reason for a version that was taken back for what it did to users."""


def find_broken_promises(seen: Snapshot) -> list[str]:
    """Return every expectation that the end of the demo does not meet, as sentences."""
    problems = []
    rejection = seen.rejected.get(BROKEN)
    if rejection is None:
        problems.append(f"version {BROKEN} is wrong and was not taken back")
    elif rejection.reason != HARM:
        problems.append(
            f"version {BROKEN} was taken back for {rejection.reason}, not for wrong answers: "
            f"{rejection.message}"
        )
    elif seen.version(BROKEN) is None:
        problems.append(f"version {BROKEN} never answered a user, so nothing was shown")
    if seen.stable != GOOD or seen.phase != "Healthy":
        why = seen.rejected[GOOD].message if GOOD in seen.rejected else seen.message
        problems.append(
            f"version {GOOD} is good and was not promoted; {seen.stable or 'nothing'} serves, "
            f"phase {seen.phase}: {why}"
        )
    if seen.users is None:
        problems.append("the application never told what its users got")
    elif seen.lost:
        kinds = ", ".join(f"{count} {kind}" for kind, count in seen.users["lost"].items())
        problems.append(f"{seen.lost} requests were lost: {kinds}")
    return problems


def render_accuracies(artifacts: Artifacts) -> str:
    """Render what training measured."""
    lines = ["version   its author measured   as it will be served"]
    for name, made in artifacts["versions"].items():
        lines.append(f"{name:<10}{made['offline']:>17.1%} right{made['served']:>16.1%} right")
    return "\n".join(lines)


def render_summary(seen: Snapshot) -> str:
    """Render what the users got."""
    if seen.users is None:
        return "No answers were counted."
    lines = ["version    answers     wrong    share    median    99th percentile"]
    for name, it in seen.users["versions"].items():
        share = it["wrong"] / it["answers"]
        times = f"{it['medianMilliseconds']:>7.1f} ms{it['p99Milliseconds']:>16.1f} ms"
        lines.append(f"{name:<8}{it['answers']:>10,}{it['wrong']:>10,}{share:>9.1%}{times}")
    lines.append("")
    lines += _render_rollback(seen)
    answered = sum(it["answers"] for it in seen.users["versions"].values())
    lines.append(f"{answered + seen.lost:,} requests, {seen.lost} of them lost.")
    return "\n".join(lines)


def _render_rollback(seen: Snapshot) -> list[str]:
    found = seen.version(BROKEN)
    if found is None or found["firstWrongAt"] is None:
        return []
    first = found["firstWrongAt"]
    taken_back = next((it for it in seen.happenings if it.reason == "RollingBack"), None)
    lines = []
    if taken_back is not None:
        lines.append(
            f"First wrong answer of {BROKEN} to the decision to take it back: "
            f"{taken_back.at - first:.1f} s."
        )
    lines.append(
        f"First wrong answer of {BROKEN} to its last answer (its weight is zero for users): "
        f"{found['lastAnswerAt'] - first:.1f} s, {found['wrong']} wrong answers."
    )
    return lines
