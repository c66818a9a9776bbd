"""How a call is timed: a warm-up that also compiles, then as many rounds as are worth it."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

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


def seconds_per_call(function: Callable[[], object], seconds: float) -> float:
    """Call for about this long, at least once, and return the mean time of a call."""
    calls, start = 0, time.perf_counter()
    while True:
        function()
        calls += 1
        spent = time.perf_counter() - start
        if spent >= seconds:
            return spent / calls


def interleave(
    functions: Mapping[Name, Callable[[], object]], turns: int, seconds: float, lead: float = 0.0
) -> dict[Name, list[float]]:
    """Time functions in turns, so that a machine that slows down slows all of them.

    Parameters
    ----------
    functions : dict of name to function without arguments
        Called before already: the first call of a function may compile.
    turns : int
        Of each function.
    seconds : float
        That a turn takes, about; at least one call is made.
    lead : float
        Seconds of calls before each turn that do not count.

    Returns
    -------
    times : dict of name to list of float
        Seconds a call, a figure a turn.
    """
    times: dict[Name, list[float]] = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            if lead:
                seconds_per_call(function, lead)
            times[name].append(seconds_per_call(function, seconds))
    return times
