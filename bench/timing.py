"""How a call is timed: a warm-up that also compiles, then as many rounds as are worth it."""

import time

SECONDS = 1.0  # spent on a benchmark's rounds, about


def measure(benchmark, function):
    """Time ``function`` with pytest-benchmark and return what it returns.

    The references take seconds where the fast path takes microseconds: the number of rounds
    follows from how long one takes.
    """
    result = function()
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    rounds = int(min(max(SECONDS / once, 1), 200))
    benchmark.pedantic(function, rounds=rounds, iterations=1)
    return result
