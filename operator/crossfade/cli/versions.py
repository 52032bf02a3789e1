"""Which pods were which version: found in the Prometheus itself, since the pods are gone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from crossfade.api.v1alpha1 import Analysis
from crossfade.cli.policy import Policy
from crossfade.errors import CommandError
from crossfade.metrics.analyst import Arm
from crossfade.metrics.endpoints import Endpoint
from crossfade.metrics.presets import Place
from crossfade.metrics.prometheus import Prom
from crossfade.metrics.selectors import Matcher, Selector, escape_regex
from crossfade.metrics.sources import Plan, requests_plan
from crossfade.names import REVISION_ALPHABET, REVISION_HASH_LENGTH
from crossfade.workload.revision import revision_of

BEFORE_SECONDS: Final = 3600
"""How long before the range pods are looked for, to see which version is the older one."""

POINTS: Final = 3600
"""At most so many times pods are looked for: what lived for less than a point may be missed."""

_POD_PLACEHOLDER: Final = re.compile(r"\{\{\s*(pods|stablePods)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the person said about the versions."""

    canary: str
    stable: str
    canary_revision: str | None
    stable_revision: str | None
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """When a revision had series, in seconds."""

    first: float
    last: float


async def find_arms(
    prom: Prom, endpoint: Endpoint, policy: Policy, asked: Asked
) -> tuple[Arm, Arm]:
    """Return the canary and the stable version.

    Raises:
        CommandError: they are not there, or cannot be told apart; says which there are.
        MetricSourceError: Prometheus gives no usable answer.
    """
    plan = requests_plan(policy.analysis)
    canary, stable = asked.canary_revision, asked.stable_revision
    by_label = plan is not None and plan.join.version_label is not None
    if plan is not None and by_label:
        await _expect_versions(prom, endpoint, plan, asked)
    needed = _needs_pods(policy.analysis, by_label=by_label)
    if plan is None or by_label:
        if needed and (canary is None or stable is None):
            raise CommandError(
                "the policy names no counter of the pods' requests to find revisions by: "
                "give --canary-revision and --stable-revision"
            )
        return Arm(canary or "", asked.canary), Arm(stable or "", asked.stable)
    seen = await _revisions(prom, endpoint, plan, policy, asked)
    if not seen:
        raise CommandError(
            f"there are no series of {_named(plan)} for pods {policy.key.name}-* in "
            f"namespace {policy.key.namespace} {_span(asked)}; correct the range, the namespace "
            "or spec.analysis.source"
        )
    own = revision_of(policy.spec)
    canary, stable = choose(seen, asked, {policy.spec.model.version: own})
    return Arm(canary, asked.canary), Arm(stable, asked.stable)


def choose(
    seen: Mapping[str, Seen], asked: Asked, by_version: Mapping[str, str]
) -> tuple[str, str]:
    """Return the revisions of canary and stable.

    What is not said follows from the manifest, whose own revision is known by its hash; or from
    the other one, if there are two; or from their age: of two versions the canary is the younger.

    Raises:
        CommandError: they are not there, or it is not clear; says which there are.
    """
    canary, stable = asked.canary_revision, asked.stable_revision
    if len(seen) == 1:
        raise CommandError(
            f"there must be two revisions, a canary and a stable one; {_listed(seen, asked)}"
        )
    for revision in (canary, stable):
        if revision is not None and revision not in seen:
            raise CommandError(
                f"there are no series of revision {revision}; {_listed(seen, asked)}"
            )
    if asked.canary != asked.stable:
        canary = canary or _one_of(seen, by_version.get(asked.canary))
        stable = stable or _one_of(seen, by_version.get(asked.stable))
    others = [revision for revision in seen if revision not in (canary, stable)]
    if canary is None and stable is None and len(others) == 2:  # noqa: PLR2004
        older, younger = sorted(others, key=lambda revision: seen[revision].first)
        if seen[older].first < seen[younger].first:
            return younger, older
    elif len(others) == 1:
        canary, stable = canary or others[0], stable or others[0]
    if canary is None or stable is None:
        raise CommandError(
            "which revision is the canary and which the stable version is not clear; "
            f"{_listed(seen, asked)}; give --canary-revision and --stable-revision"
        )
    if canary == stable:
        raise CommandError(f"canary and stable are the same revision; {_listed(seen, asked)}")
    return canary, stable


def _one_of(seen: Mapping[str, Seen], revision: str | None) -> str | None:
    return revision if revision in seen else None


async def _revisions(
    prom: Prom, endpoint: Endpoint, plan: Plan, policy: Policy, asked: Asked
) -> dict[str, Seen]:
    """Return the revisions that had series in the range: of their pods, or of a gateway."""
    join, key = plan.join, policy.key
    place = join.place or Place(join.pod_label, "{child}-")
    head, tail = place.mark.format(namespace=key.namespace, child="\0").split("\0")
    matchers = [Matcher(place.label, "=~", f"{place.before}{escape_regex(head + key.name)}-.+")]
    if join.place is None:
        matchers.append(Matcher(join.namespace_label, "=", key.namespace))
    pattern = re.compile(
        f"{place.before}{re.escape(head + key.name)}-"
        rf"(?P<revision>[{REVISION_ALPHABET}]{{{REVISION_HASH_LENGTH}}}){re.escape(tail)}.*"
    )
    selectors = [term.selector.matching(*matchers) for term in plan.terms]
    found: dict[str, Seen] = {}
    for value, times in (await _times(prom, endpoint, selectors, place.label, asked)).items():
        match = pattern.fullmatch(value)
        if match is None or times[-1] < asked.start.timestamp():
            continue
        revision = match["revision"]
        known = found.get(revision, Seen(times[0], times[-1]))
        found[revision] = Seen(min(known.first, times[0]), max(known.last, times[-1]))
    return found


async def _expect_versions(prom: Prom, endpoint: Endpoint, plan: Plan, asked: Asked) -> None:
    label, selectors = plan.join.version_label or "", [term.selector for term in plan.terms]
    found = await _times(prom, endpoint, selectors, label, asked)
    for version in (asked.canary, asked.stable):
        if version not in found:
            there = ", ".join(sorted(found)) or "none"
            raise CommandError(
                f'there are no series of {_named(plan)} with {label}="{version}" {_span(asked)}; '
                f"there are: {there}"
            )


async def _times(
    prom: Prom, endpoint: Endpoint, selectors: Sequence[Selector], label: str, asked: Asked
) -> dict[str, Sequence[float]]:
    """Return when each value of a label was seen."""
    start, end = int(asked.start.timestamp()) - BEFORE_SECONDS, int(asked.end.timestamp())
    step = -(-(end - start) // POINTS)
    query = f"group by ({label}) ({' or '.join(map(str, selectors))})"
    answer = await prom.steps(endpoint, query, start, end, step)
    return {s.labels.get(label, ""): [at for at, _ in s.values] for s in answer if s.values}


def _named(plan: Plan) -> str:
    return " and ".join(str(term.selector) for term in plan.terms)


def _needs_pods(analysis: Analysis, *, by_label: bool) -> bool:
    """Tell whether any metric tells the versions apart by their pods."""
    for metric in analysis.metrics:
        if metric.query is not None:
            if _POD_PLACEHOLDER.search(metric.query.promql):
                return True
        elif metric.source is None:
            if not by_label:
                return True
        elif metric.source.version_label is None:
            return True
    return False


def _listed(seen: Mapping[str, Seen], asked: Asked) -> str:
    each = ", ".join(
        f"{revision} (seen {_clock(one.first)} to {_clock(one.last)})"
        for revision, one in sorted(seen.items(), key=lambda item: item[1].first)
    )
    return f"{_span(asked)} there are: {each}"


def _span(asked: Asked) -> str:
    return f"between {asked.start:%Y-%m-%d %H:%M:%S} and {asked.end:%H:%M:%S} UTC"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"
