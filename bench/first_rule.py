"""Simulate the first rule as shipped: false rollbacks of healthy canaries, and times to harm.

Counters of two pods are scraped, each at its own phase, looked at every interval and folded by
the same code that the operator runs. Traffic is Poisson. Seeded, standard library only:

    python bench/first_rule.py [runs [text in the row's name]]

A time to harm counts from the first bad answer to the look that says harm, so the scrapes of
both pods and the wait for the look are in it, and the write of the route is not.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))

from crossfade.evidence.counters import Series, Side
from crossfade.evidence.ledger import Ledger, Limits
from crossfade.evidence.rules import Asked, judge
from crossfade.evidence.verdicts import Verdict

TICK_MS = 500


@dataclass(frozen=True)
class Scene:
    """One row of the table."""

    name: str
    limits: Limits = field(default_factory=lambda: Limits(share=0.02))
    canary_rate: float = 0.01
    stable_rate: float = 0.01
    weight: float = 0.1
    requests_per_second: float = 20.0
    scrape_s: float = 1.0
    look_s: float = 1.0
    minutes: float = 30.0
    worse_from_s: float = 0.0
    healthy_rate: float = 0.01
    burst: Callable[[float], float] | None = None
    """The rate of both versions at a second, where it is higher than their own."""


@dataclass
class Outcome:
    """What one run came to."""

    harm_s: float | None = None
    first_bad_s: float | None = None
    bad: int = 0
    held_s: float = 0.0


def poisson(rng: random.Random, mean: float) -> int:
    """Draw from Poisson (Knuth; the means here are small)."""
    limit, k, p = math.exp(-mean), 0, rng.random()
    while p > limit:
        k += 1
        p *= rng.random()
    return k


class Pod:
    """A pod's two counters, and Prometheus' samples of them since the last look."""

    def __init__(self, side: Side, phase_s: float) -> None:
        self.side = side
        self.next_scrape_s = phase_s
        self.total = self.errors = 0
        self.samples: list[list[tuple[int, float]]] = [[], []]

    def serve(self, rng: random.Random, mean: float, rate: float) -> int:
        """Answer some requests; return how many were bad."""
        requests = poisson(rng, mean)
        bad = sum(rng.random() < rate for _ in range(requests))
        self.total += requests
        self.errors += bad
        return bad

    def scrape(self, now_s: float, interval_s: float) -> None:
        """Store a sample of each counter when it is time."""
        while self.next_scrape_s <= now_s:
            at = round(self.next_scrape_s * 1000)
            self.samples[0].append((at, self.total))
            self.samples[1].append((at, self.errors))
            self.next_scrape_s += interval_s

    def series(self) -> Iterator[Series]:
        """Yield what is new."""
        for key, requests, bad in (("total", 1, 0), ("errors", 0, 1)):
            samples = self.samples[bad]
            yield Series(self.side, self.side.value, key, requests, bad, samples)
        self.samples = [[], []]


def run(scene: Scene, seed: int) -> Outcome:
    """Play one rollout; stop at harm."""
    rng = random.Random(seed)
    ledger = Ledger(scene.limits, 0, has_stable=True)
    before_s = 10 * scene.scrape_s
    canary = Pod(Side.CANARY, rng.random() * scene.scrape_s - before_s)
    stable = Pod(Side.STABLE, rng.random() * scene.scrape_s - before_s)
    outcome = Outcome()
    tick_s = TICK_MS / 1000
    per_tick = scene.requests_per_second * tick_s
    for tick in range(1, int(scene.minutes * 60 / tick_s) + 1):
        now_s = tick * tick_s
        shared = scene.burst(now_s) if scene.burst else 0.0
        own = scene.canary_rate if now_s > scene.worse_from_s else scene.healthy_rate
        bad = canary.serve(rng, per_tick * scene.weight, max(own, shared))
        stable.serve(rng, per_tick * (1 - scene.weight), max(scene.stable_rate, shared))
        if now_s > scene.worse_from_s:
            outcome.bad += bad
            if bad and outcome.first_bad_s is None:
                outcome.first_bad_s = now_s
        canary.scrape(now_s, scene.scrape_s)
        stable.scrape(now_s, scene.scrape_s)
        if now_s % scene.look_s:
            continue
        ledger.add([*canary.series(), *stable.series()])
        now = round(now_s * 1000)
        asked = Asked(now, in_force=True, answered=ledger.answered(0), min_requests=50)
        verdict, _ = judge(ledger.standing(), scene.limits, asked)
        if verdict is Verdict.HARM:
            outcome.harm_s = now_s
            return outcome
        outcome.held_s += scene.look_s if verdict is Verdict.UNAVAILABLE else 0
    return outcome


def incident(start: float, seconds: float, rate: float) -> Callable[[float], float]:
    """Return a failure that hits both versions."""
    return lambda t: rate if start < t <= start + seconds else 0.0


def bursts(every: float, seconds: float, rate: float) -> Callable[[float], float]:
    """Return a failure of both versions that comes again and again."""
    return lambda t: rate if t % every < seconds else 0.0


LIMIT = Limits(share=0.02)
BOTH = Limits(share=0.02, ratio=1.2)
RATIO = Limits(ratio=1.2)

HEALTHY = [
    Scene("1 %, limit 2 %", look_s=5, scrape_s=5),
    Scene("1 %, limit 2 %, 1-s scrape"),
    Scene("1 %, 1.2 x stable", RATIO, look_s=5, scrape_s=5),
    Scene("1 %, m = 1 (the border)", Limits(ratio=1), look_s=5, scrape_s=5),
    Scene("1 %, both, weight 50 %", BOTH, weight=0.5, look_s=5, scrape_s=5),
    Scene("2 %, limit 2 % (the border)", canary_rate=0.02, look_s=5, scrape_s=5),
    Scene("the same, 1-s scrape", canary_rate=0.02),
    Scene("shared 10 % for 2 min", BOTH, burst=incident(600, 120, 0.1), look_s=5, scrape_s=5),
    Scene("the same, 1-s scrape", BOTH, burst=incident(600, 120, 0.1)),
    Scene("shared 50 % for 3 s, each min", BOTH, burst=bursts(60, 3, 0.5), look_s=5, scrape_s=5),
    Scene("the same, 1-s scrape", BOTH, burst=bursts(60, 3, 0.5)),
    Scene("the same, 15-s scrape", BOTH, burst=bursts(60, 3, 0.5), look_s=5, scrape_s=15),
    Scene("the same, 15 s, 200 rps", BOTH, burst=bursts(60, 3, 0.5), look_s=5, scrape_s=15,
          requests_per_second=200, minutes=10),
    Scene("the same, 30 s, weight 50 %", BOTH, burst=bursts(60, 3, 0.5), look_s=5, scrape_s=30,
          weight=0.5),
    Scene("the same, 5 s, weight 90 %", BOTH, burst=bursts(60, 3, 0.5), look_s=5, scrape_s=5,
          weight=0.9),
]  # fmt: skip

WORSE = [
    Scene("50 %, limit 2 %", canary_rate=0.5, minutes=5),
    Scene("50 %, limit 2 %, 5-s scrape", canary_rate=0.5, scrape_s=5, look_s=5, minutes=5),
    Scene("50 % from second 8 on", canary_rate=0.5, worse_from_s=8, minutes=5),
    Scene("50 % from second 60 on", canary_rate=0.5, worse_from_s=60, minutes=5),
    Scene("50 % from minute 10 on", canary_rate=0.5, worse_from_s=600, minutes=15),
    Scene("the same, no error before", canary_rate=0.5, healthy_rate=0, worse_from_s=600,
          minutes=15),
    Scene("50 % from s 8 on, 5-s scrape", canary_rate=0.5, worse_from_s=8, scrape_s=5, look_s=5,
          minutes=5),
    Scene("50 % from s 60 on, 5-s scrape", canary_rate=0.5, worse_from_s=60, scrape_s=5, look_s=5,
          minutes=5),
    Scene("50 % from min 10 on, 5-s scrape", canary_rate=0.5, worse_from_s=600, scrape_s=5,
          look_s=5, minutes=15),
    Scene("50 %, 1.2 x stable", RATIO, canary_rate=0.5, minutes=5),
    Scene("20 %, limit 2 %", canary_rate=0.2, minutes=15),
    Scene("20 %, 1.2 x stable", RATIO, canary_rate=0.2, minutes=15),
    Scene("5 %, limit 2 %", canary_rate=0.05, scrape_s=5, look_s=5),
    Scene("5 % from minute 10 on", canary_rate=0.05, worse_from_s=600, scrape_s=5, look_s=5,
          minutes=40),
    Scene("5 %, 1.2 x stable", RATIO, canary_rate=0.05, scrape_s=5, look_s=5),
    Scene("5 %, both limits", BOTH, canary_rate=0.05, scrape_s=5, look_s=5),
]  # fmt: skip


def quantile(values: list[float], q: float) -> float:
    """Return an empirical quantile."""
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


def main(runs: int, only: str = "") -> None:
    """Print both tables, or the rows with a text in their name."""
    print(
        f"{runs} runs a row, seeded; 1 % errors, 20 requests/s, weight 10 % where nothing is said"
    )
    print(f"{'healthy canary, 30 min':34} {'called harm':>12} {'held, s a run':>14}")
    for scene in HEALTHY:
        if only not in scene.name:
            continue
        outcomes = [run(scene, seed) for seed in range(runs)]
        harm = sum(o.harm_s is not None for o in outcomes)
        held = statistics.fmean(o.held_s for o in outcomes)
        print(f"{scene.name:34} {100 * harm / runs:>10.2f} % {held:>14.1f}")
    print(f"\n{'worse canary':34} {'found':>7} {'s from 1st bad: median':>23} {'p95':>6} "
          f"{'bad: median':>12} {'p95':>5}")  # fmt: skip
    for scene in WORSE:
        if only not in scene.name:
            continue
        outcomes = [run(replace(scene), seed) for seed in range(runs)]
        found = [o for o in outcomes if o.harm_s is not None and o.first_bad_s is not None
                 and o.harm_s >= scene.worse_from_s]  # fmt: skip
        times = [(o.harm_s or 0) - (o.first_bad_s or 0) for o in found] or [math.nan]
        bad = [float(o.bad) for o in found] or [math.nan]
        share = 100 * len(found) / runs
        print(f"{scene.name:34} {share:>5.1f} % {statistics.median(times):>23.1f} "
              f"{quantile(times, 0.95):>6.1f} {statistics.median(bad):>12.0f} "
              f"{quantile(bad, 0.95):>5.0f}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, *sys.argv[2:3])
