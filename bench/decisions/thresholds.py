"""The rules that people use today, on exact counts: what they do at their best.

Ported from the sources of Flagger, Argo Rollouts and Kayenta by the description in the study of
the analysis. They get the exact counts of each window, without the phases of scrapes, the lag of
queries and the extrapolation of ``rate()``; this favours them.

* Flagger (``pkg/controller/scheduler.go``, ``scheduler_metrics.go``): a check every interval, of
  the rate over a minute; failed checks add up and are never taken back, no data is a failed check,
  and the rollback comes at the start of the next run after ``threshold`` failed ones.
* Argo Rollouts (``analysis/analysis.go``, ``utils/evaluate``): failed when more than
  ``failureLimit`` measurements failed in total; with a success condition only, NaN fails it.
* Kayenta (``MannWhitney.scala``, ``MannWhitneyClassifier.scala``, ``NetflixACAJudge.scala``): rates
  of each minute as samples, all minutes so far, judged every five minutes; *high* when the lower
  end of the 98 % interval of the shift is above a quarter of its Hodges-Lehmann estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.decisions.judging import Decisions, Flags, Floats, Ints
from bench.decisions.traffic import Batch

NORMAL_98: Final = 2.3263478740408408
"""The 99 % quantile of the normal distribution: a two-sided 98 % interval."""

KAYENTA_TOLERANCE: Final = 0.25
"""The share of the Hodges-Lehmann estimate that the interval must be beyond."""

RATES_OVER_STABLE: Final = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0)
"""The alternatives of the conditional binomial mixture in the analysis."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Failed checks of the canary's share of bad answers over a sliding window."""

    name: str
    limit: float
    """A check fails above this share."""
    failed: int
    """So many failed checks in total are harm."""
    every_s: float = 60.0
    window_s: float = 60.0
    """At the beginning the window holds what there is."""
    acts_after_s: float = 0.0
    slow: bool = False

    def decide(self, batch: Batch, runs: int) -> Decisions:
        """Judge; a check without requests fails."""
        counts = batch.marks(math.gcd(round(self.every_s), round(self.window_s)))
        requests = self._windows(counts.canary_requests[:runs], counts.every_s)
        bad = self._windows(counts.canary_bad[:runs], counts.every_s)
        failed = np.cumsum((bad > self.limit * requests) | (requests == 0), axis=1)
        return first_time(failed >= self.failed, self.every_s, self.acts_after_s)

    def _windows(self, total: Ints, mark_s: float) -> Ints:
        return windows(total, round(self.every_s / mark_s), round(self.window_s / mark_s))


@dataclass(frozen=True, slots=True)
class Kayenta:
    """Mann-Whitney on the rates of each minute."""

    name: str = "Kayenta: Mann-Whitney, each 5 min"
    every_minutes: int = 5
    slow: bool = False

    def decide(self, batch: Batch, runs: int) -> Decisions:
        """Judge all minutes so far, again and again. Minutes without requests are left out."""
        counts = batch.marks(60)
        canary = _rates(counts.canary_requests, counts.canary_bad)[:runs]
        stable = _rates(counts.stable_requests, counts.stable_bad)[:runs]
        harm = np.full(runs, math.inf)
        for minute in range(self.every_minutes, canary.shape[1] + 1, self.every_minutes):
            for run in np.flatnonzero(np.isinf(harm)):
                if is_high(canary[run, :minute], stable[run, :minute]):
                    harm[run] = 60 * minute
        return Decisions(harm, np.zeros(runs))


def is_high(experiment: Floats, control: Floats) -> bool:
    """Return whether Kayenta classifies a metric as high.

    The root that R's and Kayenta's solvers look for is where a falling step function crosses the
    quantile, so it is one of the sorted differences. Ties across the two samples at exactly that
    shift are left out of the variance.
    """
    x, y = experiment[~np.isnan(experiment)], control[~np.isnan(control)]
    if not len(x) or not len(y) or len(np.unique(np.concatenate([x, y]))) == 1:
        return False
    pairs, total = len(x) * len(y), len(x) + len(y)
    tied = _tied(x) + _tied(y)
    variance = pairs / 12 * (total + 1 - tied / (total * (total - 1)))
    if variance <= 0:
        return False  # Kayenta: an error, "all observations are tied"
    differences = np.sort(np.subtract.outer(x, y), axis=None)
    place = max(math.ceil(pairs / 2 - 0.5 - NORMAL_98 * math.sqrt(variance)), 1)
    return bool(differences[place - 1] > KAYENTA_TOLERANCE * abs(float(np.median(differences))))


@dataclass(frozen=True, slots=True)
class ConditionalBinomial:
    """The prototype of the analysis' first table, to check the traffic with; it is not shipped."""

    name: str = "analysis.md's prototype (conditional binomial)"
    alpha: float = 0.01
    every_s: float = 10.0
    slow: bool = False

    def decide(self, batch: Batch, runs: int) -> Decisions:
        """Judge at every mark."""
        counts = batch.marks(self.every_s)
        n_c, x_c, n_s, x_s = (
            np.diff(a[:runs], axis=1)
            for a in (
                counts.canary_requests,
                counts.canary_bad,
                counts.stable_requests,
                counts.stable_bad,
            )
        )
        total = np.maximum(n_c + n_s, 1)
        logs = np.array(
            [
                np.cumsum(
                    x_c * math.log(r) - (x_c + x_s) * np.log((r * n_c + n_s) / total + (n_c == 0)),
                    axis=1,
                )
                for r in RATES_OVER_STABLE
            ]
        )
        top = logs.max(axis=0)
        log_e = top + np.log(np.exp(logs - top).mean(axis=0))
        return first_time(log_e >= -math.log(self.alpha), self.every_s)


def first_time(called: Flags, every_s: float, plus_s: float = 0.0) -> Decisions:
    """Return when each run was first called harmful; the first column is after ``every_s``."""
    when = (1 + called.argmax(axis=1)) * every_s + plus_s
    harm = np.where(called.any(axis=1), when, math.inf)
    return Decisions(harm, np.zeros(len(called)))


def windows(total: Ints, every: int, window: int) -> Ints:
    """Return sums over the last ``window`` marks at every ``every``-th mark, from cumulative sums.

    At the beginning a window holds what there is. The last axis is that of the marks.
    """
    ends = np.arange(every, total.shape[-1], every)
    sums: Ints = total[..., ends] - total[..., np.maximum(ends - window, 0)]
    return sums


def sensible_limit(stable_rate: float) -> float:
    """Return the limit that the study's sensible user sets."""
    return {0.001: 0.01, 0.01: 0.02, 0.05: 0.10}[stable_rate]


def flagger(limit: float, failed: int) -> RateLimit:
    """Return Flagger's rule; 1 failed check is its code's default, 5 are its documentation's."""
    name = f"Flagger: 1-min rate each 60 s, {failed} failed"
    return RateLimit(name, limit, failed, acts_after_s=60)


def argo(limit: float, failure_limit: int) -> RateLimit:
    """Return the rule of Argo Rollouts; a failureLimit of 0 is its default."""
    return RateLimit(
        f"Argo: 1-min rate each 60 s, failureLimit {failure_limit}", limit, failure_limit + 1
    )


FASTEST_NAME: Final = "1-min rate each 10 s, 2 failed"


def fastest(limit: float) -> RateLimit:
    """Return the fastest setting: Flagger's least interval."""
    return RateLimit(FASTEST_NAME, limit, 2, every_s=10)


ARGO_DOCS: Final = RateLimit(
    "Argo docs: irate >= 95 % each 5 min, failureLimit 3", 0.05, 4, every_s=300, window_s=10
)
"""As in its documentation. ``irate`` sees the last two scrapes, here 10 s apart."""


def _rates(requests: Ints, bad: Ints) -> Floats:
    requests, bad = np.diff(requests, axis=1), np.diff(bad, axis=1)
    with np.errstate(invalid="ignore"):
        rates: Floats = np.where(requests > 0, 100 * bad / np.maximum(requests, 1), np.nan)
    return rates


def _tied(values: Floats) -> int:
    """Return the sum of v^3 - v over groups of v equal values."""
    sizes = np.unique(values, return_counts=True)[1]
    return int((sizes**3 - sizes).sum())
