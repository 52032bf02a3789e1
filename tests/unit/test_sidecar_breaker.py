"""The breaker opens when the model fails, lets one request try, and closes by itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.sidecar.breaker import SUB_WINDOWS, CircuitBreaker, Window
from crossfade.sidecar.config import Breaker

RULES = Breaker(failure_percent=50, min_requests=4, window_seconds=10, open_seconds=5)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, rules: Breaker = RULES) -> CircuitBreaker:
    breaker = CircuitBreaker(rules, clock)
    for _ in range(rules.min_requests):
        assert breaker.allow()
        breaker.failed()
    assert breaker.is_open
    return breaker


def test_failures_open_it_only_after_the_least_number_of_requests() -> None:
    breaker = CircuitBreaker(RULES, Clock())
    for _ in range(3):
        breaker.failed()
    assert not breaker.is_open
    assert breaker.allow()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allow()


def test_exactly_the_share_that_is_allowed_does_not_open_it_and_one_more_does() -> None:
    breaker = CircuitBreaker(RULES, Clock())
    for _ in range(5):
        breaker.succeeded()
        breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open


def test_a_success_never_opens_it() -> None:
    breaker = CircuitBreaker(RULES, Clock())
    for _ in range(3):
        breaker.failed()
    breaker.succeeded()
    assert not breaker.is_open


def test_failures_that_are_out_of_the_window_do_not_count() -> None:
    clock = Clock()
    breaker = CircuitBreaker(RULES, clock)
    for _ in range(3):
        breaker.failed()
    clock.now += 10
    breaker.failed()
    assert not breaker.is_open


def test_one_request_at_a_time_tries_again() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 4.9
    assert not breaker.allow()
    clock.now += 0.1
    assert breaker.allow()
    assert [breaker.allow() for _ in range(3)] == [False, False, False]
    assert breaker.is_open


def test_the_trial_that_succeeds_closes_it_and_the_past_is_forgotten() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5
    assert breaker.allow()
    breaker.succeeded()
    assert not breaker.is_open
    breaker.failed()
    assert not breaker.is_open
    assert breaker.allow()


def test_the_trial_that_fails_opens_it_for_the_same_time() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5
    for _ in range(3):
        assert breaker.allow()
        clock.now += 1
        breaker.failed()
        assert breaker.is_open
        clock.now += 4.75
        assert not breaker.allow()
        clock.now += 0.25


def test_a_trial_that_nothing_is_heard_of_does_not_block_the_next() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 5
    assert breaker.allow()
    clock.now += 4.9
    assert not breaker.allow()
    clock.now += 0.1
    assert breaker.allow()
    breaker.succeeded()
    assert not breaker.is_open


def test_answers_from_before_it_opened_change_nothing() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 4.9
    breaker.succeeded()
    breaker.failed()
    assert breaker.is_open
    clock.now += 0.1
    assert breaker.allow()


def test_a_window_may_begin_at_any_time_of_the_clock() -> None:
    for start in (0.0, 0.95, 1e9):
        clock = Clock(start)
        window = Window(10, clock)
        window.add()
        clock.now += 8.9
        assert window.total() == 1
        clock.now += 1.2
        assert window.total() == 0


@given(
    seconds=st.sampled_from([0.1, 1.0, 10.0, 60.0]),
    steps=st.lists(st.tuples(st.floats(0, 12), st.integers(0, 3)), max_size=60),
)
def test_a_window_counts_what_a_list_of_all_would(
    seconds: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock(0.0)
    window = Window(seconds, clock)
    width = seconds / SUB_WINDOWS
    happened: list[int] = []
    for wait, times in steps:
        clock.now += wait * seconds / 10
        now = int(clock.now // width)
        for _ in range(times):
            window.add()
            happened.append(now)
        assert window.total() == sum(now - SUB_WINDOWS < at <= now for at in happened)


@given(
    failure_percent=st.sampled_from([1.0, 33.0, 50.0, 99.0, 100.0]),
    min_requests=st.integers(1, 8),
    steps=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80),
)
def test_whatever_comes_it_opens_only_for_a_reason_and_lets_through_at_most_one_each_time(
    failure_percent: float, min_requests: int, steps: list[tuple[float, bool]]
) -> None:
    rules = Breaker(
        failure_percent=failure_percent,
        min_requests=min_requests,
        window_seconds=10,
        open_seconds=5,
    )
    clock = Clock(0.0)
    breaker = CircuitBreaker(rules, clock)
    since_closed: list[tuple[int, bool]] = []
    opened_at: float | None = None
    for wait, ok in steps:
        clock.now += wait
        was_open = breaker.is_open
        allowed = breaker.allow()
        if not was_open:
            assert allowed
        else:
            assert opened_at is not None
            assert allowed == (clock.now >= opened_at + 5)
        if not allowed:
            continue
        assert breaker.allow() is not was_open  # nobody beside a trial
        (breaker.succeeded if ok else breaker.failed)()
        if was_open:
            assert breaker.is_open is not ok
            opened_at = None if ok else clock.now
            since_closed = []
            continue
        since_closed.append((int(clock.now), ok))
        seen = [good for at, good in since_closed if int(clock.now) - 10 < at]
        too_many = seen.count(False) * 100 > failure_percent * len(seen)
        assert breaker.is_open is (not ok and too_many and len(seen) >= min_requests)
        opened_at = clock.now if breaker.is_open else None


@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_the_borders_of_the_share(percent: float) -> None:
    """0: the first failure opens it. 100: nothing can be more, so it never does."""
    breaker = CircuitBreaker(Breaker(failure_percent=percent, min_requests=1), Clock())
    breaker.failed()
    assert breaker.is_open is (percent == 0.0)
