from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from crossfade.evidence.counters import BAD, REQUESTS, Series, Side
from crossfade.evidence.kernel import Tolerance
from crossfade.evidence.ledger import Cell, Ledger, Seen, Tally
from crossfade.evidence.rates import Limits, RateTests
from crossfade.evidence.rules import Asked, evidence_of, judge, odds, percent
from crossfade.evidence.verdicts import Counts, Evidence, Verdict

WORSE = Tolerance(1.2, 0.0)
LIMIT = Limits(share=0.02)
MARGIN = Limits(tolerance=WORSE)
BOTH = Limits(share=0.02, tolerance=WORSE)
ASKED = Asked(now=100_000, in_force=True, answered=80, min_requests=50, log_needed=math.log(100))
SEEN = Seen(newest=99_000, spacing=5000, stable_is_scraped=True)
NOTHING = Counts()

Steps = Sequence[tuple[Counts, Counts]]


def tally(counts: Counts) -> Tally:
    every = {REQUESTS: counts.requests, BAD: counts.bad}
    return {what: amount for what, amount in every.items() if amount}


def taken(*steps: tuple[Counts, Counts], limits: Limits = LIMIT) -> RateTests:
    """What is made of a canary's and stable's counts, a step each 5 s up to now."""
    tests = RateTests(limits, has_stable=True)
    for i, (canary, stable) in enumerate(steps):
        number = 95 - 5 * (len(steps) - 1 - i)
        tests.take(Cell(number, tally(canary), tally(canary), tally(stable)))
    tests.close()
    return tests


def evidence_in(tests: RateTests) -> str:
    """Say it; the number depends on constants that are no matter of rules."""
    return f"evidence {odds(evidence_of(tests, ASKED).log_e)}, needs 100 : 1"


def quiet(steps: int) -> Steps:
    """Ten requests of the canary and 90 of stable in each; one of stable fails every other time."""
    return [(Counts(10, 0), Counts(90, i % 2)) for i in range(steps)]


BROKEN: Steps = [(Counts(2, 1), Counts(18, 0))] * 3


def test_is_healthy_with_enough_requests_and_no_harm() -> None:
    tests = taken(*[(Counts(301, 3), Counts(2700, 27))] * 4)
    assert judge(tests, SEEN, LIMIT, ASKED) == (
        Verdict.HEALTHY,
        (
            "canary 1.0 % [0.34, 2.2] of 1,204, stable 1.0 % [0.7, 1.4] of 10,800; limit 2 %; "
            f"{evidence_in(tests)}"
        ),
    )


def test_finds_harm_over_the_limit() -> None:
    broken = taken(*BROKEN)
    assert judge(broken, SEEN, LIMIT, ASKED) == (
        Verdict.HARM,
        f"canary 50.0 % of 6, stable 0.0 % of 54; limit 2 %; {evidence_in(broken)}",
    )


def test_harm_is_what_is_needed_and_not_less() -> None:
    tests = taken(*BROKEN)
    reached = evidence_of(tests, ASKED).log_e
    exactly = replace(ASKED, log_needed=reached)
    more = replace(ASKED, log_needed=reached + 1e-9)
    assert judge(tests, SEEN, LIMIT, exactly)[0] is Verdict.HARM
    assert judge(tests, SEEN, LIMIT, more)[0] is Verdict.HEALTHY
    worse = taken(*[(Counts(100, 10), Counts(900, 9))] * 3, limits=MARGIN)
    reached = evidence_of(worse, ASKED).log_e
    assert judge(worse, SEEN, MARGIN, replace(ASKED, log_needed=reached))[0] is Verdict.HARM
    more = replace(ASKED, log_needed=reached + 1e-9)
    assert judge(worse, SEEN, MARGIN, more)[0] is Verdict.HEALTHY


def test_no_single_scrape_is_harm_however_bad() -> None:
    tests = taken((Counts(1000, 1000), Counts(9000, 0)), limits=BOTH)
    verdict, message = judge(tests, SEEN, BOTH, ASKED)
    assert verdict is Verdict.HEALTHY
    assert message.startswith("canary 100.0 % [")


def test_says_since_when_a_late_harm_lasts() -> None:
    late = taken(*quiet(200), *[(Counts(12, 6), Counts(90, 0))] * 3)
    verdict, message = judge(late, SEEN, LIMIT, ASKED)
    assert verdict is Verdict.HARM
    assert message.startswith("canary 50.0 % of 36, stable ")
    assert ", in the last 14 s; evidence " in message


def test_holds_while_stable_breaks_the_limit_too() -> None:
    tests = taken(*[(Counts(10, 5), Counts(90, 40))] * 3)
    verdict, message = judge(tests, SEEN, LIMIT, ASKED)
    assert verdict is Verdict.UNAVAILABLE
    assert message == (
        "stable breaks the limit too (44.4 % of 270): inputs or a shared dependency, "
        "not this version; canary 50.0 % of 30, stable 44.4 % of 270; limit 2 %"
    )


UNTOLD: Steps = [(Counts(20, 4), Counts(1, 0))] * 3


def test_holds_while_the_versions_cannot_be_told_apart() -> None:
    verdict, message = judge(taken(*UNTOLD), SEEN, LIMIT, ASKED)
    assert verdict is Verdict.NOT_ENOUGH_DATA
    assert message == (
        "the versions cannot be told apart yet; canary 20.0 % of 60, stable 0.0 % of 3; limit 2 %"
    )


def test_an_interval_cut_short_does_not_tell_the_versions_apart() -> None:
    """It may hold nothing but a burst that hit both, and stable's beside it much else."""
    tests = RateTests(LIMIT, has_stable=True)
    for number in (80, 85, 90):
        tests.take(Cell(number, {REQUESTS: 20, BAD: 10}, {}, {REQUESTS: 100, BAD: 1}))
    verdict, words = judge(tests, SEEN, LIMIT, ASKED)
    assert verdict is Verdict.NOT_ENOUGH_DATA
    assert words.startswith("the versions cannot be told apart yet; canary 50.0 % of 60")
    whole = {REQUESTS: 20, BAD: 10}
    tests.take(Cell(95, whole, whole, {REQUESTS: 100, BAD: 1}))
    assert judge(tests, SEEN, LIMIT, ASKED)[0] is Verdict.HARM


def test_clusters_of_stables_failures_make_it_harder_to_tell_the_versions_apart() -> None:
    broken = taken(*BROKEN)
    assert judge(broken, SEEN, LIMIT, ASKED)[0] is Verdict.HARM
    for i in range(40):
        broken.dispersion.learn(NOTHING, Counts(1000, 10 * (i % 2)))
    assert judge(broken, SEEN, LIMIT, ASKED)[0] is Verdict.NOT_ENOUGH_DATA


def test_does_not_wait_for_a_stable_version_that_gets_nearly_nothing() -> None:
    tests = taken(*[(Counts(200, 40), Counts(1, 0))] * 3)
    assert judge(tests, SEEN, LIMIT, ASKED)[0] is Verdict.HARM


def test_judges_by_the_limit_alone_when_stable_is_not_scraped() -> None:
    unscraped = replace(SEEN, stable_is_scraped=False)
    assert judge(taken(*UNTOLD), unscraped, LIMIT, ASKED)[0] is Verdict.HARM


def test_finds_harm_against_stable() -> None:
    worse = taken(*[(Counts(100, 10), Counts(900, 9))] * 3, limits=MARGIN)
    assert judge(worse, SEEN, MARGIN, ASKED) == (
        Verdict.HARM,
        (
            "canary 10.0 % [5.1, 17.1] of 300, stable 1.0 % [0.49, 1.8] of 2,700; "
            f"tolerated 1.2 times stable; {evidence_in(worse)}"
        ),
    )


def test_what_is_tolerated_beside_stable_is_no_harm() -> None:
    steps = [(Counts(100, 10), Counts(900, 9))] * 3
    limits = Limits(tolerance=Tolerance(2.0, 0.08))
    verdict, message = judge(taken(*steps, limits=limits), SEEN, limits, ASKED)
    assert verdict is Verdict.HEALTHY
    assert "; tolerated 2 times stable + 8 %; evidence " in message


def test_a_hold_of_the_limit_does_not_hide_harm_against_stable() -> None:
    """Both break the limit, and the canary is by far the worse."""
    steps = [(Counts(100, 60), Counts(900, 90))] * 3
    assert judge(taken(*steps), SEEN, LIMIT, ASKED)[0] is Verdict.UNAVAILABLE
    assert judge(taken(*steps, limits=BOTH), SEEN, BOTH, ASKED)[0] is Verdict.HARM


@pytest.mark.parametrize("bad_of_stable", [9, 300])
def test_the_evidence_is_that_of_the_test_that_is_closest(bad_of_stable: int) -> None:
    both = taken(*[(Counts(100, 10), Counts(900, bad_of_stable))] * 3, limits=BOTH)
    assert both.limit is not None
    assert both.margin is not None
    limit, margin = both.limit.log_e(), both.margin.log_e()
    assert (limit > margin) == (bad_of_stable == 300)
    assert evidence_of(both, ASKED) == Evidence(max(limit, margin), ASKED.log_needed)


def test_harm_stands_when_the_source_falls_silent() -> None:
    silent = replace(SEEN, newest=1000)
    assert judge(taken(*BROKEN), silent, LIMIT, ASKED)[0] is Verdict.HARM


HEALTHY: Steps = [(Counts(25, 0), Counts(225, 2))] * 4


def test_old_samples_are_neither_harm_nor_health() -> None:
    assert judge(taken(*HEALTHY), replace(SEEN, newest=58_000), LIMIT, ASKED) == (
        Verdict.UNAVAILABLE,
        "the canary's newest sample is 42 s old",
    )


def test_old_samples_do_not_make_blind_before_the_weight_is_in_force() -> None:
    """A retry, or pods that came back: a series may begin only with the first request."""
    asked = replace(ASKED, in_force=False, answered=0)
    assert judge(taken(*HEALTHY), replace(SEEN, newest=58_000), LIMIT, asked) == (
        Verdict.NOT_ENOUGH_DATA,
        "the weight is not yet seen in force",
    )


def test_a_slow_scrape_is_not_old() -> None:
    slow = replace(SEEN, newest=58_000, spacing=15_000)
    assert judge(taken(*HEALTHY), slow, LIMIT, ASKED)[0] is Verdict.HEALTHY


ALONE: Steps = [(Counts(20, 0), NOTHING)] * 4


@pytest.mark.parametrize(
    ("tests", "seen", "limits", "asked", "message"),
    [
        (taken(), replace(SEEN, newest=None), LIMIT, ASKED, "the canary has no series yet"),
        (
            taken(*HEALTHY),
            SEEN,
            LIMIT,
            replace(ASKED, answered=1200, min_requests=5000),
            "canary answered 1,200 of the 5,000 requests that this step asks for",
        ),
        (
            taken(*HEALTHY),
            SEEN,
            LIMIT,
            replace(ASKED, in_force=False),
            "the weight is not yet seen in force",
        ),
        (
            taken(*ALONE, limits=MARGIN),
            SEEN,
            MARGIN,
            ASKED,
            "no answer of stable is counted yet to compare with",
        ),
        (
            taken(*ALONE, limits=MARGIN),
            SEEN,
            MARGIN,
            replace(ASKED, in_probation=True),
            "nothing to compare with: no other version has traffic",
        ),
    ],
)
def test_says_what_is_missing(
    tests: RateTests, seen: Seen, limits: Limits, asked: Asked, message: str
) -> None:
    assert judge(tests, seen, limits, asked) == (Verdict.NOT_ENOUGH_DATA, message)


def test_the_limit_alone_judges_in_probation() -> None:
    alone = RateTests(BOTH, has_stable=False)
    alone.take(Cell(1, {REQUESTS: 80}, {REQUESTS: 80}, {}))
    asked = replace(ASKED, in_probation=True)
    verdict, message = judge(alone, replace(SEEN, stable_is_scraped=False), BOTH, asked)
    assert verdict is Verdict.HEALTHY
    assert message.startswith("canary 0.0 % [0.0, 4.9] of 80; limit 2 %; tolerated 1.2 times")


def widths(tests: RateTests) -> tuple[float, float]:
    """Return how wide the intervals of the canary and of stable are that people see."""
    _, message = judge(tests, SEEN, LIMIT, ASKED)
    canary, stable = re.findall(r"\[([\d.]+), ([\d.]+)\]", message)
    return float(canary[1]) - float(canary[0]), float(stable[1]) - float(stable[0])


EVEN: Steps = [(Counts(100, 2), Counts(100, 2))] * 20


def test_clusters_of_stable_widen_both_intervals_that_people_see() -> None:
    even = taken(*EVEN)
    bursts = taken(*[(Counts(100, 2), Counts(100, 20 * (i % 10 == 5))) for i in range(20)])
    assert (even.canary, even.stable) == (bursts.canary, bursts.stable)
    for clustered, usual in zip(widths(bursts), widths(even), strict=True):
        assert clustered > 2 * usual


def test_a_canary_that_breaks_does_not_widen_the_intervals() -> None:
    """Its failures come all at once, and are no clusters that are usual."""
    bursts = taken(*[(Counts(100, 20 * (i % 10 == 5)), Counts(100, 2)) for i in range(20)])
    assert bursts.dispersion.phi > 2
    assert widths(bursts) == widths(taken(*EVEN))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1e-9, "0.01 : 1"),
        (0.25, "0.25 : 1"),
        (1.0, "1 : 1"),
        (9.94, "9.9 : 1"),
        (9.96, "10 : 1"),
        (339.6, "340 : 1"),
        (999_999_999.0, "999,999,999 : 1"),
        (1.1e9, "over 1,000,000,000 : 1"),
    ],
)
def test_says_evidence_as_odds(value: float, said: str) -> None:
    assert odds(math.log(value)) == said


def test_overwhelming_evidence_has_its_words_too() -> None:
    assert odds(1e6) == "over 1,000,000,000 : 1"
    assert odds(-1e6) == "0.01 : 1"


def test_no_share_is_said_of_no_requests() -> None:
    """A step may ask for none."""
    words = {
        judge(taken(*steps, limits=BOTH), SEEN, BOTH, replace(ASKED, answered=0, min_requests=0))
        for steps in ([], [(NOTHING, Counts(90, 1))] * 3)
    }
    rest = "limit 2 %; tolerated 1.2 times stable; evidence 1 : 1, needs 100 : 1"
    assert words == {
        (Verdict.NOT_ENOUGH_DATA, "no answer of stable is counted yet to compare with"),
        (
            Verdict.HEALTHY,
            f"canary answered nothing yet, stable 1.1 % [0.1, 4.2] of 270; {rest}",
        ),
    }


def test_small_shares_are_said_with_two_digits() -> None:
    assert percent(Counts(10_000, 3)) == "0.03 %"
    assert percent(Counts(1000, 123)) == "12.3 %"
    assert percent(NOTHING) == "0.0 %"


@dataclass(frozen=True)
class Scene:
    """A rollout of two minutes: 20 requests a second, of which the canary gets a tenth."""

    limits: Limits = LIMIT
    canary: Callable[[float], float] = lambda _: 0.01
    stable: Callable[[float], float] = lambda _: 0.01
    scrape_s: int = 1


@dataclass
class Outcome:
    harm_s: int | None = None
    bad: int = 0
    held_s: int = 0


def run(scene: Scene, seed: int) -> Outcome:
    """Play one rollout with a look at each scrape; stop at harm."""
    rng, since_s = random.Random(seed), 1_000_000
    ledger = Ledger(RateTests(scene.limits, has_stable=True), since_s * 1000, has_stable=True)
    totals = {(side, what): 0 for side in Side for what in (REQUESTS, BAD)}
    outcome = Outcome()
    for second in range(-5 * scene.scrape_s, 121):
        samples = []
        for side, requests, rate, late_ms in (
            (Side.CANARY, 2, scene.canary(second), 300),
            (Side.STABLE, 18, scene.stable(second), 700),
        ):
            if second > 0:
                totals[side, REQUESTS] += requests
                bad = sum(rng.random() < rate for _ in range(requests))
                totals[side, BAD] += bad
                outcome.bad += bad * (side is Side.CANARY)
            at = (since_s + second) * 1000 - 1000 + late_ms
            samples += [
                Series(side, side.value, what, {what: 1}, [(at, totals[side, what])])
                for what in (REQUESTS, BAD)
            ]
        if second % scene.scrape_s:
            continue
        ledger.add(samples)
        now = (since_s + second) * 1000
        asked = replace(ASKED, now=now, answered=ledger.answered(since_s * 1000))
        tests = ledger.standing()
        tests.close()
        verdict, _ = judge(tests, ledger.seen(), scene.limits, asked)
        if verdict is Verdict.HARM:
            outcome.harm_s = second
            return outcome
        outcome.held_s += scene.scrape_s * (verdict is Verdict.UNAVAILABLE)
    return outcome


def test_no_healthy_canary_of_twenty_is_taken_back() -> None:
    """Seeded. At most 1 % of rollouts fail (Ville), so 20 others would pass with 82 % at least."""
    assert [run(Scene(scrape_s=5), seed).harm_s for seed in range(20)] == [None] * 20


def test_a_broken_canary_is_found_after_a_few_bad_answers() -> None:
    """Seeded: half the answers fail, at one a second; the bench has the quantiles."""
    outcomes = [run(Scene(canary=lambda _: 0.5), seed) for seed in range(20)]
    assert all(outcome.harm_s is not None for outcome in outcomes)
    assert sorted(outcome.bad for outcome in outcomes)[10] <= 6


def test_a_canary_that_breaks_while_it_runs_is_found_nearly_as_fast() -> None:
    scene = Scene(canary=lambda second: 0.5 if second > 8 else 0.01)
    outcomes = [run(scene, seed) for seed in range(20)]
    assert all(outcome.harm_s is not None and outcome.harm_s > 8 for outcome in outcomes)
    assert sorted(outcome.bad for outcome in outcomes)[10] <= 8


def test_a_burst_that_hits_both_versions_takes_nobody_back() -> None:
    def burst(second: float) -> float:
        return 0.3 if 60 < second <= 90 else 0.01

    scene = Scene(BOTH, canary=burst, stable=burst, scrape_s=5)
    outcomes = [run(scene, seed) for seed in range(10)]
    assert [outcome.harm_s for outcome in outcomes] == [None] * 10
    assert sum(outcome.held_s for outcome in outcomes) > 0
