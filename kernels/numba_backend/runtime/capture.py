"""Capture the kernel calls of a step once, and replay them for every batch that follows.

One step of a small network is about thirty kernel calls of 10 to 50 us each. Between two calls,
Python looks up layers, checks shapes and allocates outputs. This takes about as long as the kernels
themselves, because the numbers of a kernel displace Python's own data from the processor's caches.
The outcome is the same in every step on a batch of the same shape. `capture` therefore records
which kernels a step launches with which arrays, and `CapturedStep` repeats only these launches,
in the same buffers. After some repetitions it compiles them into one function (`native_calls`).
CUDA graphs and tinygrad's JIT do the same for a GPU.

A replay sees new inputs, and numbers that were changed in place in the arrays that the kernels
use, such as parameters. It does not repeat anything else that the function did. A function whose
result depends on other work than its kernels is therefore never replayed. Values are not checked
in a replay: the caller must check them, such as the range of labels.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numba
import numpy as np
from numba.np.ufunc import parallel

from kernels.numba_backend.runtime.buffer_pool import BufferPool, allocate_from
from kernels.numba_backend.runtime.native_calls import (
    Input,
    KernelError,
    NativeCalls,
    UnsupportedCallError,
    is_compiled,
    is_parallel,
)
from kernels.numba_backend.runtime.thread_choice import ThreadChoice

# The replays after which the calls are compiled, which takes 20 ms for a prediction of the small
# network and 50 ms for a training step. Calls from Python take a tenth of a millisecond longer.
COMPILE_AFTER = 8


class _ThreadState(threading.local):
    graph: "_CallGraph | None" = None  # the graph that this thread captures now, if any
    in_step = False  # whether this thread runs the function of a CapturedStep


_state = _ThreadState()


def launch(kernel: Callable, *args: Any) -> Any:
    """Call a kernel; if this thread is capturing a step, add the call to its graph."""
    result = kernel(*args)
    graph = _state.graph
    if graph is not None:
        graph.add(kernel, args, result)
    return result


def invalidate_capture(reason: str = "values were computed outside the launched kernels") -> None:
    """Mark the current capture of this thread, if any, as not replayable."""
    graph = _state.graph
    if graph is not None:
        graph.invalidate(reason)


def in_step() -> bool:
    """Return whether this thread runs the function of a `CapturedStep`.

    A function that is not captured in this call may have been captured in another one. A kernel
    that has an alternative outside of `launch` must compute the same bits in both.
    """
    return _state.in_step


@contextlib.contextmanager
def suspended():
    """Run kernels that are no part of the step, until the end of a ``with`` block.

    A capture of this thread does not record them, and they take no memory of its graph.
    """
    graph, _state.graph = _state.graph, None
    try:
        with allocate_from(BufferPool()):
            yield
    finally:
        _state.graph = graph


def _describe(inputs: Sequence[np.ndarray]) -> str:
    return ", ".join(f"{x.dtype} {x.shape}" for x in inputs)


class _CallGraph:
    """The kernel calls of a step in their order, and the buffers that they work in.

    Attributes
    ----------
    threads : int
        How many threads Numba used during the capture. Kernels divide their work by it.
    invalid_reason : str or None
        Why a replay would not return what the function returns; None if it would.
    """

    def __init__(self, inputs: tuple[np.ndarray, ...]):
        self.pool = BufferPool(min_cached=math.inf)  # the calls keep using its blocks
        self.threads = numba.get_num_threads()
        self.invalid_reason: str | None = None
        self._inputs = inputs  # until the capture ends
        self._launched_inputs: set[int] = set()
        self._signature = [(x.shape, x.dtype) for x in inputs]
        self._calls: list[tuple[Callable, list[Any]]] = []  # an `Input` stands for an input
        self._replays = 0
        self._runs: list[Callable] = []  # compiled calls, and those of functions between them
        self._output: np.ndarray | None = None
        self._last_value: Any = None
        self._value_call = -1  # the last call that returned a value
        self._choice: ThreadChoice | None = None

    def invalidate(self, reason: str) -> None:
        self.invalid_reason = self.invalid_reason or reason

    def add(self, kernel: Callable, args: tuple[Any, ...], result: Any) -> None:
        """Add a call; an `Input` takes the place of an argument that is an input."""
        arguments: list[Any] = []
        for argument in args:
            index = next((i for i, x in enumerate(self._inputs) if argument is x), None)
            if index is not None:
                self._launched_inputs.add(index)
                argument = Input(index)
            elif isinstance(argument, np.ndarray):
                argument = self.pool.unowned_view(argument)
            arguments.append(argument)
        if result is not None:
            self._value_call, self._last_value = len(self._calls), result
        self._calls.append((kernel, arguments))

    def end_capture(self, result: Any) -> None:
        """Invalidate the graph if its calls do not compute what the function returned."""
        if not self._calls:
            self.invalidate("no kernel was launched")
        for index in range(len(self._inputs)):
            if index not in self._launched_inputs:
                self.invalidate(f"no kernel was launched with input {index} itself")
        if isinstance(result, np.ndarray):
            self._output = result
        elif result != self._last_value:
            self.invalidate("the function did not return what its last kernel returned")
        self._inputs, self._last_value = (), None
        if self.threads > 1 and any(is_parallel(kernel) for kernel, _ in self._calls):
            self._choice = ThreadChoice(self.threads)

    def check_inputs(self, inputs: tuple[np.ndarray, ...]) -> None:
        """Raise ValueError if the inputs differ in shape or dtype from those of the capture."""
        if [(x.shape, x.dtype) for x in inputs] != self._signature:
            captured = ", ".join(f"{dtype} {shape}" for shape, dtype in self._signature)
            raise ValueError(f"the step was captured for {captured}, got {_describe(inputs)}")

    def replay(self, inputs: tuple[np.ndarray, ...]) -> Any:
        """Repeat the calls on other inputs, and return what the function would return."""
        self._replays += 1
        if self._replays == COMPILE_AFTER:
            self._compile(inputs)
        value = self._launch_timed(inputs)
        return value if self._output is None else self._output.copy()

    def _compile(self, inputs: tuple[np.ndarray, ...]) -> None:
        """Compile all calls of kernels that follow each other into one function."""
        if not NativeCalls.fits(inputs):
            return
        runs: list[Callable] = []
        start = 0
        with contextlib.suppress(UnsupportedCallError):
            for is_kernel, group in groupby(self._calls, lambda call: is_compiled(call[0])):
                calls = list(group)
                value_call = self._value_call - start if self._output is None else -1
                is_here = 0 <= value_call < len(calls)
                runs.append(
                    NativeCalls(calls, inputs, value_call if is_here else -1)
                    if is_kernel
                    else partial(_call, calls)
                )
                start += len(calls)
            self._runs = runs

    def _launch_timed(self, inputs: tuple[np.ndarray, ...]) -> Any:
        """Repeat the calls on all threads or on one, whichever is faster."""
        choice = self._choice
        if choice is None or self._replays < COMPILE_AFTER:
            return self._launch(inputs)
        begin = time.perf_counter()
        value = self._launch_on(choice.threads, inputs)
        choice.add_run(time.perf_counter() - begin)
        return value

    def _launch_on(self, threads: int, inputs: tuple[np.ndarray, ...]) -> Any:
        if threads == self.threads:
            return self._launch(inputs)
        numba.set_num_threads(threads)
        try:
            return self._launch(inputs)
        finally:
            numba.set_num_threads(self.threads)

    def _launch(self, inputs: tuple[np.ndarray, ...]) -> Any:
        """Repeat the calls, and return the value of the last call that has one."""
        if self._runs and NativeCalls.fits(inputs):
            last = None
            try:
                for run in self._runs:
                    value = run(inputs)
                    last = last if value is None else value
                return last
            except KernelError:
                pass  # the calls below raise the exception itself
        return _call(self._calls, inputs)


def _call(calls: Sequence[tuple[Callable, list[Any]]], inputs: Sequence[np.ndarray]) -> Any:
    """Make calls from Python, and return the value of the last one that has one."""
    last = None
    for kernel, arguments in calls:
        value = kernel(*[inputs[each] if type(each) is Input else each for each in arguments])
        last = last if value is None else value
    return last


class CapturedStep:
    """A function whose kernel calls are captured in one call and replayed in those that follow.

    A step is in one of three states, which decide what a call does:

    * *not captured*: the call runs the function and captures its kernel calls;
    * *captured*: the call replays them, on inputs of the same shapes and dtypes. It captures them
      again after the number of threads has changed. It runs the function while another thread
      replays, because the buffers can serve one replay at a time;
    * *invalid*: the call runs the function. `invalid_reason` says what prevents a replay.

    Parameters
    ----------
    function : callable
        Takes arrays, and returns an array or what the last kernel with a value returns. See
        `capture`.
    """

    def __init__(self, function: Callable):
        self._function = function
        self._graph: _CallGraph | None = None
        self._lock = threading.Lock()

    @property
    def invalid_reason(self) -> str | None:
        """What prevents a replay; None if nothing does."""
        return "the step was not captured" if self._graph is None else self._graph.invalid_reason

    def __call__(self, *inputs: np.ndarray) -> Any:
        if not self._lock.acquire(blocking=False):
            return self._run(inputs)
        try:
            graph = self._graph
            if graph is None:
                return self._capture(inputs)
            if graph.invalid_reason is not None:
                return self._run(inputs)
            graph.check_inputs(inputs)
            # numba.get_num_threads would take 0.8 us to make sure that the threads are launched.
            if graph.threads != parallel._get_num_threads():  # type: ignore[attr-defined]
                return self._capture(inputs)
            return graph.replay(inputs)
        finally:
            self._lock.release()

    def _run(self, inputs: tuple[np.ndarray, ...]) -> Any:
        outer, _state.in_step = _state.in_step, True
        try:
            return self._function(*inputs)
        finally:
            _state.in_step = outer

    def _capture(self, inputs: tuple[np.ndarray, ...]) -> Any:
        # An array given twice is copied: the calls must show which input each argument is.
        inputs = tuple(
            x.copy() if any(x is other for other in inputs[:index]) else x
            for index, x in enumerate(inputs)
        )
        graph = _CallGraph(inputs)
        _state.graph = graph
        try:
            with allocate_from(graph.pool):
                result = self._run(inputs)
        finally:
            _state.graph = None
        graph.end_capture(result)
        self._graph = graph  # only now: an interrupted capture must not be replayed
        return result.copy() if isinstance(result, np.ndarray) else result


def capture(function: Callable, *inputs: np.ndarray) -> tuple[Any, CapturedStep | None]:
    """Run a function of arrays once, and capture the kernel calls that it makes.

    Parameters
    ----------
    function : callable
        It must pass the inputs themselves to kernels, not views or copies of them. All its
        arithmetic must be done by kernels that `launch` runs. It must return an array that a
        kernel wrote, or the value that the last kernel with a value returned.
    inputs : arrays

    Returns
    -------
    result
        What the function returned.
    step : CapturedStep or None
        Does the same with other inputs of the same shapes and dtypes. None if a replay would not
        return what the function returns. The function has run once in both cases.
    """
    step = CapturedStep(function)
    result = step(*inputs)
    return result, step if step.invalid_reason is None else None
