"""Clocks: how far ahead each worker is, and how far a bound lets it get."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mpisgd.clocks import Clocks
from strategies import examples

WORKERS = range(1, 5)
crews = st.integers(1, len(WORKERS)).map(lambda workers: WORKERS[:workers])
bounds = st.integers(0, 4)
orders = st.randoms(use_true_random=False)


@examples
@given(st.lists(st.tuples(st.sampled_from(WORKERS), st.integers(0, 3)), max_size=60), st.none() | bounds)
def test_a_worker_is_ahead_by_its_turns_above_the_slowest(ticks: list[tuple[int, int]], bound: int | None) -> None:
    clocks, turns = Clocks(WORKERS, bound), dict.fromkeys(WORKERS, 0)
    for ticking, more in [(1, 0), *ticks]:
        clocks.tick(ticking, more)
        turns[ticking] += more
        for worker in WORKERS:
            ahead = turns[worker] - min(turns.values())
            assert clocks.ahead(worker) == ahead
            assert clocks.must_wait(worker) == (bound is not None and ahead > bound)


@examples
@given(crews, bounds, orders)
def test_who_waits_when_told_gets_no_further_than_a_turn_beyond_the_bound(
    workers: range, bound: int, order: Random
) -> None:
    clocks, turns = Clocks(workers, bound), dict.fromkeys(workers, 0)
    for _ in range(100):
        free = [worker for worker in workers if not clocks.must_wait(worker)]
        assert free, "the slowest need not wait"
        worker = order.choice(free)
        clocks.tick(worker)
        turns[worker] += 1
        assert max(turns.values()) - min(turns.values()) <= bound + 1
        assert clocks.ahead(worker) <= bound + 1


@examples
@given(crews, bounds)
def test_the_bound_is_made_full_use_of(workers: range, bound: int) -> None:
    """A worker alone at work takes one turn more than the bound before it must wait; with one worker, for ever."""
    clocks, first = Clocks(workers, bound), workers[0]
    for _ in range(bound + 1):
        assert not clocks.must_wait(first)
        clocks.tick(first)
    assert clocks.must_wait(first) == (len(workers) > 1)


@examples
@given(crews, orders)
def test_a_bound_of_nothing_is_lock_step(workers: range, order: Random) -> None:
    """Every worker takes its turn of a round, in any order, before any takes one of the next."""
    clocks = Clocks(workers, 0)
    for _ in range(10):
        ticked = []
        while free := [worker for worker in workers if worker not in ticked]:
            assert [worker for worker in workers if not clocks.must_wait(worker)] == free
            ticked.append(order.choice(free))
            clocks.tick(ticked[-1])
        assert all(clocks.ahead(worker) == 0 for worker in workers)
