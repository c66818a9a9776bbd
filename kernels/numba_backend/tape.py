"""The plan of a step: its kernel calls, recorded once and made again for each batch.

A step of a small network is some thirty kernel calls of 10 to 50 us each. Between two of them
Python looks up layers, shapes and memory; after a kernel has filled the caches with its numbers
that takes about as long again. All of it comes out the same in every step with a batch of the
same size. So the first step writes down which kernels it calls with which arrays, and the next
ones only make these calls, in the same memory.
"""

import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from kernels.numba_backend import memory

_local = threading.local()


def call(kernel: Callable, *arguments: Any) -> Any:
    """Call a kernel, and note the call if this thread is recording."""
    result = kernel(*arguments)
    tape = getattr(_local, "tape", None)
    if tape is not None:
        tape.note(kernel, arguments, result)
    return result


def spoil() -> None:
    """Say that numbers are worked on in a way that no tape can note."""
    tape = getattr(_local, "tape", None)
    if tape is not None:
        tape.spoiled = True


class Tape:
    """The kernel calls that a function made, to be made again with other inputs.

    What the tape returns is the array that the function returned, which its kernels fill anew, or
    else what the last kernel that returned anything returns.
    """

    def __init__(self, function: Callable):
        self._function = function

    def record(self, *inputs: Any) -> Any:
        """Run the function, and write down what it calls."""
        self._inputs = inputs
        self._arena = memory.Arena()
        self._threads = numba.get_num_threads()
        self._calls: list[tuple[Callable, list[Any]]] = []
        self._slots: list[tuple[list[Any], int, int]] = []
        self._result = -1
        self.spoiled = False
        _local.tape = self
        try:
            with memory.taken_from(self._arena):
                result = self._function(*inputs)
        finally:
            _local.tape = None
        self._output = result if isinstance(result, np.ndarray) else None
        self._inputs = ()
        return result

    def note(self, kernel: Callable, arguments: tuple[Any, ...], result: Any) -> None:
        """Write a call down; an input is replaced by a slot for the next one."""
        noted: list[Any] = []
        for place, argument in enumerate(arguments):
            for number, given in enumerate(self._inputs):
                if argument is given:
                    self._slots.append((noted, place, number))
            borrowed = isinstance(argument, np.ndarray)
            noted.append(self._arena.borrow(argument) if borrowed else argument)
        if result is not None:
            self._result = len(self._calls)
        self._calls.append((kernel, noted))

    def __call__(self, *inputs: Any) -> Any:
        if numba.get_num_threads() != self._threads:  # there may be room for fewer
            return self.record(*inputs)
        for arguments, place, number in self._slots:
            arguments[place] = inputs[number]
        results = [kernel(*arguments) for kernel, arguments in self._calls]
        return results[self._result] if self._output is None else self._output

    def is_whole(self, inputs: tuple[Any, ...]) -> bool:
        """Return whether every input found its way into a kernel, and nothing else was done."""
        reached = {number for *_, number in self._slots}
        return not self.spoiled and reached == set(range(len(inputs)))


def record(function: Callable, *inputs: Any) -> tuple[Any, Tape | None]:
    """Run a function of arrays; return its result, and the tape that runs it again.

    The inputs must reach kernels as the very objects that they are, and all work on numbers must
    be done by kernels; None instead of a tape where it was not so.
    """
    tape = Tape(function)
    result = tape.record(*inputs)
    return result, tape if tape.is_whole(inputs) else None
