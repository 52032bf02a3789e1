"""What the Gateways say about an HTTPRoute: whether its newest generation is in force.

A controller writes one entry in ``status.parents`` for each parent that the route names. Entries of
several controllers for one parent can stand side by side, since a controller that no longer has the
Gateway leaves its entry behind; so one good entry for a parent is enough.

Every parent must have one. A Gateway that has not taken the route over still splits by the weights
before, and its traffic would be judged, or drained, by weights that it does not have.

``Accepted`` at the newest generation means that the controller has read the weights, not that its
proxies have them; docs/adr/0004-routing.md says how much later traffic follows. Nor does it mean
that the rule is served: Traefik drops a rule whose filter it does not support and still says
Accepted. So this is necessary, and only the pods' own counters are sufficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crossfade.core.actions import Manifest

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
GATEWAY_KIND: Final = "Gateway"


@dataclass(frozen=True, slots=True, order=True)
class _Parent:
    """Whom a parentRef means, its defaults filled in."""

    group: str
    kind: str
    namespace: str
    name: str
    section: str
    port: int

    @classmethod
    def of(cls, ref: Manifest, namespace: str) -> _Parent:
        return cls(
            ref.get("group", GATEWAY_GROUP),
            ref.get("kind", GATEWAY_KIND),
            ref.get("namespace", namespace),
            ref.get("name", ""),
            ref.get("sectionName", ""),
            ref.get("port", 0),
        )

    @property
    def words(self) -> str:
        listener = f" (listener {self.section})" if self.section else ""
        return f"{self.kind} {self.namespace}/{self.name}{listener}"


def problem_of_acceptance(live: Manifest, *, ours: str = "") -> str:
    """Say which Gateway has not taken over the newest generation, and why; "" when all have.

    Args:
        live: the route.
        ours: on a route that is shared, what our backends' names begin with. A reference that
            cannot be resolved is then a problem only when the Gateway's words name ours: another
            team's missing Service must not hold our rollout. The Services of our own exist before
            they are routed to.
    """
    metadata, namespace = live["metadata"], live["metadata"].get("namespace", "")
    wanted = [_Parent.of(ref, namespace) for ref in live.get("spec", {}).get("parentRefs") or ()]
    if not wanted:
        return f"HTTPRoute {namespace}/{metadata['name']} names no Gateway in spec.parentRefs"
    entries = live.get("status", {}).get("parents") or ()
    for parent in wanted:
        said = [e for e in entries if _Parent.of(e.get("parentRef", {}), namespace) == parent]
        problem = _problem_of_parent(parent, said, metadata.get("generation", 0), ours)
        if problem:
            return problem
    return ""


def _problem_of_parent(parent: _Parent, entries: list[Manifest], generation: int, ours: str) -> str:
    problems = [_problem_of_entry(entry, generation, ours) for entry in entries]
    if "" in problems:
        return ""
    refusals = [problem for problem in problems if problem is not None]
    return f"{parent.words} {refusals[0] if refusals else 'has not accepted the route yet'}"


def _problem_of_entry(entry: Manifest, generation: int, ours: str) -> str | None:
    """Say why a controller does not serve this generation; "": it does; None: not said yet."""
    conditions = {
        condition.get("type"): condition
        for condition in entry.get("conditions") or ()
        if condition.get("observedGeneration") == generation
    }
    accepted = conditions.get("Accepted")
    if accepted is None or accepted.get("status") == "Unknown":
        return None
    if accepted.get("status") != "True":
        return f"does not accept the route: {_words(accepted)}"
    resolved = conditions.get("ResolvedRefs")
    unresolved = resolved is not None and resolved.get("status") == "False"
    if resolved is not None and unresolved and ours in _words(resolved):
        return f"cannot resolve a reference of the route: {_words(resolved)}"
    partial = conditions.get("PartiallyInvalid")
    if partial is not None and partial.get("status") == "True":
        return f"accepts only a part of the route: {_words(partial)}"
    return ""


def _words(condition: Manifest) -> str:
    reason, message = condition.get("reason", ""), condition.get("message", "")
    return ": ".join(part for part in (reason, message) if part) or "it does not say why"
