"""How a call is timed: a warm-up, which also compiles, and then a number of rounds."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

SECONDS = 1.0  # approximate time of all rounds of a benchmark


def measure(benchmark, function):
    """Time ``function`` with pytest-benchmark and return what it returns.

    The references take seconds where the numba backend takes microseconds: the number of rounds
    follows from the time of one round.
    """
    result = function()
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    rounds = int(min(max(SECONDS / once, 1), 200))
    benchmark.pedantic(function, rounds=rounds, iterations=1)
    return result


def seconds_per_call(function: Callable[[], object], seconds: float) -> float:
    """Call a function for about this long, at least once, and return the mean time of a call."""
    calls, start = 0, time.perf_counter()
    while True:
        function()
        calls += 1
        spent = time.perf_counter() - start
        if spent >= seconds:
            return spent / calls


def interleave(
    functions: Mapping[Name, Callable[[], object]], rounds: int, seconds: float, warmup: float = 0.0
) -> dict[Name, list[float]]:
    """Time functions alternately, so that a machine that slows down slows all of them.

    Parameters
    ----------
    functions : dict of name to function without arguments
        Call each function once before: its first call may compile.
    rounds : int
        How often each function is timed.
    seconds : float
        Approximate time of one round of one function; at least one call is made.
    warmup : float
        Seconds of untimed calls before each round.

    Returns
    -------
    times : dict of name to list of float
        Seconds a call, one number a round.
    """
    times: dict[Name, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            if warmup:
                seconds_per_call(function, warmup)
            times[name].append(seconds_per_call(function, seconds))
    return times
