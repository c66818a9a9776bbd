"""The plan of a step: its kernel calls, recorded once and made again for each batch.

A step of a small network is some thirty kernel calls of 10 to 50 us each. Between two of them
Python looks up layers, shapes and memory; after a kernel has filled the caches with its numbers
that takes about as long again. All of it comes out the same in every step with a batch of the
same size. So the first step writes down which kernels it calls with which arrays, and the next
ones only make these calls, in the same memory.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from kernels.numba_backend.runtime import buffer_pool

# Seconds from which on a step is not tried on one thread, and how often it is tried below. A
# wrong choice, made while others used the cores, costs little where a step is so short.
SHORT, TRIES = 1.5e-4, 10

_local = threading.local()


def launch(kernel: Callable, *arguments: Any) -> Any:
    """Call a kernel, and note the call if this thread is recording."""
    result = kernel(*arguments)
    notes = getattr(_local, "notes", None)
    if notes is not None:
        notes.add(kernel, arguments, result)
    return result


def invalidate_capture() -> None:
    """Say that numbers are worked on in a way that no tape can note."""
    notes = getattr(_local, "notes", None)
    if notes is not None:
        notes.spoiled = True


class _Notes:
    """Kernel calls and the memory that they work in."""

    def __init__(self, inputs: tuple[Any, ...]):
        self._inputs = inputs
        self._reached: set[int] = set()
        self.arena = buffer_pool.BufferPool(
            spare=math.inf
        )  # the calls hold what they once worked in
        self.threads = numba.get_num_threads()
        self._tries = [1, self.threads] * TRIES if self.threads > 1 else []
        self._seconds = {self.threads: math.inf, 1: math.inf}
        self.calls: list[tuple[Callable, list[Any]]] = []
        self.slots: list[tuple[list[Any], int, int]] = []
        self.returned: Any = None
        self.result = -1
        self.output: np.ndarray | None = None
        self.spoiled = False

    def add(self, kernel: Callable, arguments: tuple[Any, ...], result: Any) -> None:
        """Write a call down; an input leaves a slot for the next one."""
        noted: list[Any] = []
        for place, argument in enumerate(arguments):
            numbers = [n for n, given in enumerate(self._inputs) if argument is given]
            if numbers:
                self.slots.append((noted, place, numbers[0]))
                self._reached.update(numbers)
                argument = None
            elif isinstance(argument, np.ndarray):
                argument = self.arena.unowned_view(argument)
            noted.append(argument)
        if result is not None:
            self.result, self.returned = len(self.calls), result
        self.calls.append((kernel, noted))

    def close(self, result: Any) -> None:
        """End the recording of a function that returned this."""
        self.spoiled |= len(self._reached) < len(self._inputs)
        if isinstance(result, np.ndarray):
            self.output = result
        else:
            self.spoiled |= result != self.returned
        self._inputs, self.returned = (), None

    def play(self, inputs: tuple[Any, ...]) -> Any:
        """Make the calls again."""
        try:
            for arguments, place, number in self.slots:
                arguments[place] = inputs[number]
            results = self._make_calls()
        finally:
            for arguments, place, _ in self.slots:  # not to keep the caller's arrays alive
                arguments[place] = None
        return results[self.result] if self.output is None else self.output.copy()

    def _make_calls(self) -> list[Any]:
        """Make the calls on all threads or on one, whichever has been faster.

        Threads take 1 to 5 us to begin and end a kernel, more where they are many: one image of
        the small network takes 59 us on 2 threads and 48 us on one.
        """
        if not self._tries:
            return self._calls_on(min(self._seconds, key=self._seconds.__getitem__))
        threads = self._tries.pop()
        begin = time.perf_counter()
        results = self._calls_on(threads)
        seconds = time.perf_counter() - begin
        self._seconds[threads] = min(self._seconds[threads], seconds)
        if threads > 1 and seconds > SHORT:
            self._tries.clear()
        return results

    def _calls_on(self, threads: int) -> list[Any]:
        if threads == self.threads:
            return [kernel(*arguments) for kernel, arguments in self.calls]
        numba.set_num_threads(threads)
        try:
            return [kernel(*arguments) for kernel, arguments in self.calls]
        finally:
            numba.set_num_threads(self.threads)


class CapturedStep:
    """The kernel calls that a function made, to be made again with other inputs.

    What the tape returns is the array that the function returned, filled anew, or else what the
    last kernel that returned anything returns.
    """

    def __init__(self, function: Callable):
        self._function = function
        self._notes: _Notes | None = None
        self._playing = threading.Lock()

    def record(self, *inputs: Any) -> Any:
        """Run the function, and write down what it calls."""
        inputs = tuple(
            given.copy() if any(given is other for other in inputs[:place]) else given
            for place, given in enumerate(inputs)
        )
        notes = _Notes(inputs)
        _local.notes = notes
        try:
            with buffer_pool.allocate_from(notes.arena):
                result = self._function(*inputs)
        finally:
            _local.notes = None
        notes.close(result)
        self._notes = notes  # only now: what was interrupted is not played
        return result.copy() if notes.output is not None else result

    def __call__(self, *inputs: Any) -> Any:
        notes = self._notes
        if notes is None or not self._playing.acquire(blocking=False):
            return self._function(*inputs)  # another thread is at work in the tape's memory
        try:
            if notes.threads != numba.get_num_threads():  # there may be room for fewer
                return self.record(*inputs)
            return notes.play(inputs)
        finally:
            self._playing.release()

    @property
    def whole(self) -> bool:
        """Whether the notes hold all that the function did."""
        return self._notes is not None and not self._notes.spoiled


def capture(function: Callable, *inputs: Any) -> tuple[Any, CapturedStep | None]:
    """Run a function of arrays; return its result, and the tape that runs it again.

    The inputs must reach kernels as the very objects that they are, and all work on numbers must
    be done by kernels; None instead of a tape where it was not so.
    """
    tape = CapturedStep(function)
    result = tape.record(*inputs)
    return result, tape if tape.whole else None
