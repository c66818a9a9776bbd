"""The number of threads of a step, with times that are made up."""

import itertools

from kernels.numba_backend.runtime.thread_choice import (
    LIMIT_SECONDS,
    MAX_PAUSE,
    MIN_PAUSE,
    N_TRIALS,
    ThreadChoice,
)


def run(choice: ThreadChoice, count: int, one: float, all_threads: float) -> list[int]:
    """Make runs that take so many seconds on one thread and on all; return their threads."""
    used = []
    for _ in range(count):
        used.append(choice.threads)
        choice.add_run(one if choice.threads == 1 else all_threads)
    return used


def test_the_faster_number_of_threads_is_used():
    choice = ThreadChoice(4)
    assert run(choice, MIN_PAUSE, 1e-4, 2e-4) == [4] * MIN_PAUSE
    assert set(run(choice, 10 * MIN_PAUSE, 1e-4, 2e-4)[: MIN_PAUSE + N_TRIALS]) == {1}
    choice = ThreadChoice(4)
    used = run(choice, 20 * MAX_PAUSE, 1.2e-4, 1e-4)
    assert N_TRIALS <= used.count(1) < len(used) // 100


def test_a_trial_that_is_much_slower_ends_at_once():
    used = run(ThreadChoice(4), 20 * MIN_PAUSE, 2e-4, 1e-4)
    assert 1 <= used.count(1) < N_TRIALS
    assert all(pair != (1, 1) for pair in itertools.pairwise(used))


def test_a_step_that_becomes_slower_is_tried_at_once():
    choice = ThreadChoice(4)
    run(choice, 5 * MAX_PAUSE, 2e-4, 1e-4)  # the pauses are long now
    used = run(choice, 200, 2e-4, 2e-3)
    assert used.index(1) < 50
    assert used[-1] == 1
    assert run(choice, 2 * MAX_PAUSE, 2e-4, 1e-4)[-1] == 4  # and when it is faster again


def test_a_single_slow_run_changes_nothing():
    choice = ThreadChoice(4)
    run(choice, 2 * MAX_PAUSE, 2e-4, 1e-4)
    pause_left = choice._runs_left
    choice.add_run(1e-3)
    assert choice.threads == 4
    assert choice._runs_left == pause_left - 1


def test_a_long_step_uses_all_threads():
    seconds = 2 * LIMIT_SECONDS
    assert set(run(ThreadChoice(4), 3 * MAX_PAUSE, seconds / 10, seconds)) == {4}
