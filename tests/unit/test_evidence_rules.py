from __future__ import annotations

from dataclasses import replace

import pytest

from bench.first_rule import Scene, run
from crossfade.evidence.eprocesses import LimitTest, RatioTest
from crossfade.evidence.ledger import Limits, Standing
from crossfade.evidence.rules import Asked, judge, percent
from crossfade.evidence.verdicts import Counts, Verdict

LIMIT = Limits(share=0.02)
RATIO = Limits(ratio=1.2)
BOTH = Limits(share=0.02, ratio=1.2)
ASKED = Asked(now=100_000, in_force=True, answered=80, min_requests=50)


def standing(
    canary: Counts,
    stable: Counts = Counts(),  # noqa: B008 - frozen
    limits: Limits = LIMIT,
    *,
    newest: int | None = 99_000,
    scraped: bool = True,
    before: tuple[Counts, ...] = (),
) -> Standing:
    limit = LimitTest(limits.share) if limits.share else None
    ratio = RatioTest(limits.ratio) if limits.ratio else None
    if limit:
        for i, counts in enumerate(before):
            limit.step(counts, Counts(), i * 5000)
        limit.step(canary, stable, 70_000)
    if ratio:
        ratio.step(canary, stable)
    return Standing(canary, stable, limit, ratio, newest, 5000, scraped)


def test_is_healthy_with_enough_requests_and_no_harm() -> None:
    assert judge(standing(Counts(1204, 12), Counts(10911, 109)), LIMIT, ASKED) == (
        Verdict.HEALTHY,
        "canary 1.0 % of 1,204, stable 1.0 % of 10,911; limit 2 %",
    )


def test_finds_harm_over_the_limit() -> None:
    assert judge(standing(Counts(6, 3), Counts(54, 0)), LIMIT, ASKED) == (
        Verdict.HARM,
        "canary 50.0 % of 6, stable 0.0 % of 54; limit 2 %",
    )


def test_says_since_when_a_late_harm_lasts() -> None:
    late = standing(Counts(12, 6), Counts(90, 1), before=(Counts(10, 0),) * 200)
    verdict, message = judge(late, LIMIT, ASKED)
    assert verdict is Verdict.HARM
    assert message.endswith("in the last 29 s")


def test_holds_while_stable_breaks_the_limit_too() -> None:
    verdict, message = judge(standing(Counts(20, 10), Counts(180, 80)), LIMIT, ASKED)
    assert verdict is Verdict.UNAVAILABLE
    assert message.startswith(
        "stable breaks the limit too (44.4 % of 180): inputs or a shared dependency, "
        "not this version; canary 50.0 % of 20"
    )


def test_holds_while_the_versions_cannot_be_told_apart() -> None:
    verdict, message = judge(standing(Counts(40, 8), Counts(3, 0)), LIMIT, ASKED)
    assert verdict is Verdict.NOT_ENOUGH_DATA
    assert message.startswith("the versions cannot be told apart yet; canary 20.0 % of 40")


def test_does_not_wait_for_a_stable_version_that_gets_nearly_nothing() -> None:
    assert judge(standing(Counts(400, 80), Counts(3, 0)), LIMIT, ASKED)[0] is Verdict.HARM


def test_judges_by_the_limit_alone_when_stable_is_not_scraped() -> None:
    assert judge(standing(Counts(6, 3), scraped=False), LIMIT, ASKED)[0] is Verdict.HARM


def test_finds_harm_against_stable() -> None:
    worse = standing(Counts(300, 30), Counts(2700, 27), RATIO)
    assert judge(worse, RATIO, ASKED) == (
        Verdict.HARM,
        "canary 10.0 % of 300, stable 1.0 % of 2,700; tolerated 1.2 times stable",
    )


def test_harm_stands_when_the_source_falls_silent() -> None:
    old = standing(Counts(6, 3), Counts(54, 0), newest=1000)
    assert judge(old, LIMIT, ASKED)[0] is Verdict.HARM


def test_old_samples_are_neither_harm_nor_health() -> None:
    old = standing(Counts(100, 1), Counts(900, 9), newest=58_000)
    assert judge(old, LIMIT, ASKED) == (
        Verdict.UNAVAILABLE,
        "the canary's newest sample is 42 s old",
    )


def test_old_samples_do_not_make_blind_before_the_weight_is_in_force() -> None:
    """A retry, or pods that came back: a series may begin only with the first request."""
    old = standing(Counts(100, 1), Counts(900, 9), newest=58_000)
    assert judge(old, LIMIT, replace(ASKED, in_force=False, answered=0)) == (
        Verdict.NOT_ENOUGH_DATA,
        "the weight is not yet seen in force",
    )


def test_a_slow_scrape_is_not_old() -> None:
    slow = replace(standing(Counts(100, 1), Counts(900, 9), newest=58_000), spacing=15_000)
    assert judge(slow, LIMIT, ASKED)[0] is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("evidence", "limits", "asked", "message"),
    [
        (standing(Counts(), newest=None), LIMIT, ASKED, "the canary has no series yet"),
        (
            standing(Counts(12, 0), Counts(90, 0)),
            LIMIT,
            replace(ASKED, answered=12),
            "canary answered 12 of the 50 requests that this step asks for",
        ),
        (
            standing(Counts(80, 0), Counts(90, 0)),
            LIMIT,
            replace(ASKED, in_force=False),
            "the weight is not yet seen in force",
        ),
        (
            standing(Counts(80, 0), limits=RATIO),
            RATIO,
            ASKED,
            "stable answered no request to compare with",
        ),
        (
            standing(Counts(80, 0), limits=RATIO),
            RATIO,
            replace(ASKED, in_probation=True),
            "nothing to compare with: no other version has traffic",
        ),
    ],
)
def test_says_what_is_missing(
    evidence: Standing, limits: Limits, asked: Asked, message: str
) -> None:
    assert judge(evidence, limits, asked) == (Verdict.NOT_ENOUGH_DATA, message)


def test_the_limit_alone_judges_in_probation() -> None:
    alone = replace(standing(Counts(80, 0)), ratio=None)
    verdict, message = judge(alone, BOTH, replace(ASKED, in_probation=True))
    assert verdict is Verdict.HEALTHY
    assert message == "canary 0.0 % of 80; limit 2 %; tolerated 1.2 times stable"


def test_small_shares_are_said_with_two_digits() -> None:
    assert percent(Counts(10_000, 3)) == "0.03 %"


def test_no_healthy_canary_of_twenty_is_taken_back() -> None:
    """Seeded. At most 1 % of rollouts fail (Ville), so 20 others would pass with 82 % at least."""
    scene = Scene("healthy", scrape_s=5, look_s=5, minutes=2)
    assert [run(scene, seed).harm_s for seed in range(20)] == [None] * 20


def test_a_broken_canary_is_found_after_a_few_bad_answers() -> None:
    """Seeded: half the answers fail, at 2 a second; the bench has the quantiles."""
    scene = Scene("broken", canary_rate=0.5, minutes=2)
    outcomes = [run(scene, seed) for seed in range(20)]
    assert all(outcome.harm_s is not None for outcome in outcomes)
    assert sorted(outcome.bad for outcome in outcomes)[10] <= 6


def test_a_canary_that_breaks_while_it_runs_is_found_nearly_as_fast() -> None:
    scene = Scene("breaks", canary_rate=0.5, worse_from_s=8, minutes=2)
    outcomes = [run(scene, seed) for seed in range(20)]
    assert all(outcome.harm_s is not None and outcome.harm_s > 8 for outcome in outcomes)
    assert sorted(outcome.bad for outcome in outcomes)[10] <= 6


def test_a_burst_that_hits_both_versions_takes_nobody_back() -> None:
    def burst(second: float) -> float:
        return 0.1 if 60 < second <= 120 else 0.0

    scene = Scene("shared", BOTH, burst=burst, scrape_s=5, look_s=5, minutes=2)
    outcomes = [run(scene, seed) for seed in range(10)]
    assert [outcome.harm_s for outcome in outcomes] == [None] * 10
    assert sum(outcome.held_s for outcome in outcomes) > 0
