"""The choice between one thread and all threads for a short step that is repeated.

A parallel kernel takes 2 to 5 us to begin and end, so that a short step may be faster on one
thread. While another process uses a core, a parallel kernel waits for a thread that sleeps: one
image of a network of four parallel kernels took 3.4 ms on two threads then, and 0.3 ms on one. The
choice is therefore checked again and again. It does not change a bit of a result.
"""

import math

# A step that takes longer runs on all threads.
LIMIT_SECONDS = 5e-3
# The number of threads that is not used is tried for N_TRIALS runs, first after MIN_PAUSE others.
# Whenever it is slower, the pause is doubled. A trial ends with the first run that is HOPELESS
# times as slow: the first hundred steps of a training would spend a tenth of their time in trials
# otherwise.
N_TRIALS, MIN_PAUSE, MAX_PAUSE = 5, 16, 1024
MIN_GAIN, HOPELESS = 1.05, 1.3
# The time of a step is the least one of the last runs: it grows by at most this factor a run, since
# single runs are interrupted. When it has grown by SLOWED, the next trial begins at once.
GROWTH, SLOWED = 1.05, 1.5


class ThreadChoice:
    """Counts the runs of a step, and says on how many threads the next one should be.

    Parameters
    ----------
    threads : int
        All threads.

    Attributes
    ----------
    threads : int
        Those of the next run.

    Examples
    --------
    >>> choice = ThreadChoice(4)
    >>> for _ in range(100):
    ...     choice.add_run(2e-4 if choice.threads == 4 else 1e-4)
    >>> choice.threads
    1
    """

    def __init__(self, threads: int):
        self.threads, self._other = threads, 1
        self._seconds = self._seconds_at_trial = math.inf
        self._trials: list[float] = []
        self._is_trial, self._pause, self._runs_left = False, MIN_PAUSE, MIN_PAUSE

    def add_run(self, seconds: float) -> None:
        """Add a run of a step on `threads`, which took so many seconds."""
        if self._is_trial:
            self._trials.append(seconds)
            is_hopeless = seconds > HOPELESS * self._seconds
            if len(self._trials) == N_TRIALS or is_hopeless:
                self._end_trial()
            return
        self._seconds = min(seconds, GROWTH * self._seconds)
        self._runs_left -= 1
        has_slowed = self._seconds > SLOWED * self._seconds_at_trial
        if (has_slowed or self._runs_left <= 0) and self._seconds < LIMIT_SECONDS:
            self._is_trial = True
            self._swap()

    def _swap(self) -> None:
        self.threads, self._other = self._other, self.threads

    def _end_trial(self) -> None:
        seconds = min(self._trials)
        self._pause = min(2 * self._pause, MAX_PAUSE)
        if seconds * MIN_GAIN < self._seconds:
            self._seconds, self._pause = seconds, MIN_PAUSE
        else:
            self._swap()
        self._seconds_at_trial, self._runs_left = self._seconds, self._pause
        self._is_trial, self._trials = False, []
