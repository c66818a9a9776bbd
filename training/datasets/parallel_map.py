"""Apply a function to many items on all cores, with a progress bar."""

import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from typing import Any, TypeVar

from tqdm import tqdm

MAX_TASK_ITEMS = 64  # that a thread or process works on before it reports
TRIAL_ITEMS = 64  # that show how long the others will take
# Processes are started where threads would take so long: they begin after about a second.
MIN_SECONDS = 4.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[int], Result], n: int, description: str) -> Iterator[Result]:
    """Yield function(0), ..., function(n - 1), computed in threads."""
    with _bar(n, description) as bar:
        yield from _in_threads(function, range(n), bar)


def map_in_processes(
    function: Callable[[Item], Result], item: Callable[[int], Item], n: int, description: str
) -> Iterator[Result]:
    """Yield function(item(0)), ..., computed in processes where threads would take long.

    This is for functions that Python's global lock keeps from running in threads at once.

    Parameters
    ----------
    function : callable
        It, the items and the results can be pickled.
    item : callable
        Returns the item of an index. It is called in this process.
    n : int
        Number of items.
    description : str
        What the progress bar says.
    """
    with _bar(n, description) as bar:
        trial, start = min(n, TRIAL_ITEMS), time.perf_counter()
        yield from _in_threads(lambda index: function(item(index)), range(trial), bar)
        seconds_left = (time.perf_counter() - start) / max(trial, 1) * (n - trial)
        if _n_cores() > 1 and seconds_left >= MIN_SECONDS and find_spec("loky") is not None:
            yield from _in_processes(function, item, range(trial, n), bar)
        else:
            yield from _in_threads(lambda index: function(item(index)), range(trial, n), bar)


def _n_cores() -> int:
    return min(os.cpu_count() or 1, 32)


def _bar(n: int, description: str) -> Any:
    hidden = not sys.stdout.isatty()
    options = {"desc": description, "unit": " pictures", "leave": False, "file": sys.stdout}
    return closing(tqdm(total=n, disable=hidden, **options))


def _tasks(indices: range) -> Iterator[range]:
    """Yield ranges of neighboring indices: several for each core, if they are enough."""
    size = max(1, min(MAX_TASK_ITEMS, len(indices) // (4 * _n_cores())))
    return (indices[start : start + size] for start in range(0, len(indices), size))


def _in_threads(function: Callable[[int], Result], indices: range, bar: Any) -> Iterator[Result]:
    executor = ThreadPoolExecutor(_n_cores())
    try:
        tasks = _tasks(indices)
        for results in executor.map(lambda task: [function(index) for index in task], tasks):
            yield from results
            bar.update(len(results))
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare_process() -> None:
    """Leave Ctrl-C and warnings to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")


def _map_items(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def _in_processes(
    function: Callable[[Item], Result], item: Callable[[int], Item], indices: range, bar: Any
) -> Iterator[Result]:
    # Unlike those of the standard library, its processes do not import the main module again.
    # Without it, threads do the work.
    from loky import ProcessPoolExecutor

    executor = ProcessPoolExecutor(_n_cores(), initializer=_prepare_process)
    is_done = False
    try:
        pending: deque = deque()  # of tasks, which hold their items in memory
        for task in _tasks(indices):
            items = [item(index) for index in task]
            pending.append(executor.submit(_map_items, function, items))
            if len(pending) > 2 * _n_cores():
                yield from _finish(pending, bar)
        while pending:
            yield from _finish(pending, bar)
        is_done = True
    finally:
        executor.shutdown(wait=True, kill_workers=not is_done)


def _finish(pending: deque, bar: Any) -> list:
    results = pending.popleft().result()
    bar.update(len(results))
    return results
