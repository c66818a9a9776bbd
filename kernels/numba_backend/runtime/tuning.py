"""Choices between kernels that compute the same, measured once on the user's machine.

Which of two algorithms is faster depends on the processor, the number of threads and the shapes.
`choose` times the candidates for a class of shapes when it is first asked for it, and keeps the
answer: in the process, and in a file beside the compiled kernels, so that the next start does not
measure again. The candidates differ in their rounding. A kept choice is therefore also what gives
the same seed the same bits at the next start; a run that is resumed pins the choices in its file.

The environment variable ``CNN_TUNING`` turns the measurements off:

* ``off``: the default of each choice, the same on every machine.
* The path of a JSON file: the choices in it, as `kernel_choices` returns them, and the default of
  each choice that is missing there.
"""

import contextlib
import json
import math
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import filelock
import numba
from llvmlite import binding
from numba import config

from kernels.numba_backend.runtime.cache import CACHE_FOLDER
from kernels.numba_backend.runtime.capture import suspended
from kernels.validation import check_kernel_choices

# Each candidate runs MIN_ROUNDS times, up to MAX_ROUNDS times while all rounds together have taken
# less than SHORT_SECONDS, and fewer times once they have taken LONG_SECONDS: short kernels are more
# easily disturbed than long ones.
MIN_ROUNDS, MAX_ROUNDS, SHORT_SECONDS, LONG_SECONDS = 3, 12, 0.02, 0.3
# A candidate must be faster than the default by more than this share of its own time. Smaller
# differences change from one measurement to the next.
MIN_GAIN = 0.05
LOCK_SECONDS = 10  # to wait for another process that writes the file

Choices = dict[str, str]


def _processor() -> str:
    """Return the name of the processor that the kernels are compiled for."""
    name, features = config.CPU_NAME, config.CPU_FEATURES  # type: ignore[attr-defined]
    if name in (None, "host"):
        name = binding.get_host_cpu_name()
    return f"{name} {features}" if features else name


class Tuner:
    """Makes and keeps the choices of a process.

    Parameters
    ----------
    setting : str or None
        The value of ``CNN_TUNING``; None or "" measures.
    folder : Path
        Where the choices of this machine are kept.

    Raises
    ------
    ValueError
        If the setting names a file that is missing or is no table of choices.
    """

    def __init__(self, setting: str | None, folder: Path):
        self._measures = not setting
        self._file = folder / "tuning.json"
        self.lock = threading.RLock()
        # The choices that were asked for, by kernel, class of shapes and number of threads.
        self._decided: dict[tuple[str, Hashable, int], str] = {}
        self._pinned: Choices = {}
        self._given = _read_given(setting) if setting and setting != "off" else {}
        # The choices of this machine, by processor and number of threads. None: not read yet.
        self._tables: dict[str, Choices] | None = None

    def choose(
        self,
        kernel: str,
        shape_class: Hashable,
        candidates: Mapping[str, Callable[[], Any]],
        default: str,
    ) -> str:
        """Return the name of the candidate that is the fastest for a class of shapes.

        A choice is, in this order: what `pin` says, what the file of ``CNN_TUNING`` says, what was
        measured before on this processor with as many threads, or what is measured now. Every
        later call returns the same, and takes about a microsecond.

        Parameters
        ----------
        kernel : str
            What the candidates compute.
        shape_class : hashable
            What their times depend on. Its text, with the name of the kernel, is the key under
            which the choice is kept.
        candidates : mapping of str to callable
            Each callable runs the kernel once. While a step is captured, its launches are not
            recorded.
        default : str
            The candidate that is chosen without a measurement, and where no other one is faster by
            more than 5 %.
        """
        threads = numba.get_num_threads()
        name = self._decided.get((kernel, shape_class, threads))
        if name is None:
            with self.lock:
                name = self._decide(f"{kernel} {shape_class}", threads, candidates, default)
                self._decided[kernel, shape_class, threads] = name
        return name

    def _decide(
        self,
        key: str,
        threads: int,
        candidates: Mapping[str, Callable[[], Any]],
        default: str,
    ) -> str:
        for choices in (self._pinned, self._given):
            # A name may be no candidate here, if the choice comes from another processor.
            if choices.get(key) in candidates:
                return choices[key]
        if not self._measures:
            return default
        if self._tables is None:
            self._tables = self._read()
        machine = f"{_processor()}, threads: {threads}"
        table = self._tables.setdefault(machine, {})
        if table.get(key) not in candidates:
            table[key] = self._keep(machine, key, measure(candidates, default), candidates)
        return table[key]

    def _read(self) -> dict[str, Choices]:
        """Return the tables in the file, without those that are damaged."""
        tables = {}
        try:
            for name, table in json.loads(self._file.read_text(encoding="utf-8")).items():
                with contextlib.suppress(TypeError):
                    tables[name] = check_kernel_choices(table)
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}
        return tables

    def _keep(self, machine: str, key: str, name: str, candidates: Mapping[str, Any]) -> str:
        """Add a new choice to the file, and return the one that counts.

        If another process has measured the same meanwhile, that is its choice: all later starts
        will read it. A file that cannot be written only costs a measurement at the next start.
        """
        lock = filelock.FileLock(self._file.with_suffix(".lock"), timeout=LOCK_SECONDS)
        # As in `KernelCache`.
        with contextlib.suppress(OSError, filelock.Timeout, RuntimeError), lock:
            tables = self._read()
            table = tables.setdefault(machine, {})
            if table.get(key) in candidates:
                return table[key]
            table[key] = name
            _replace(self._file, json.dumps(tables, indent=1, sort_keys=True))
        return name

    def choices(self) -> Choices:
        """Return all choices that were made with the present number of threads, and the pinned.

        The keys do not contain the processor and the number of threads.
        """
        with self.lock:
            if not self._decided:  # Numba would start its threads, only to count them
                return dict(self._pinned)
            threads = numba.get_num_threads()
            return self._pinned | {
                f"{kernel} {shape_class}": name
                for (kernel, shape_class, count), name in self._decided.items()
                if count == threads
            }

    def pin(self, choices: Choices) -> None:
        """Make these choices, whatever the processor and the number of threads; {}: none.

        Steps that were captured before keep their kernels.
        """
        choices = check_kernel_choices(choices)
        with self.lock:
            self._pinned = choices
            self._decided.clear()


def measure(candidates: Mapping[str, Callable[[], Any]], default: str) -> str:
    """Return the name of the fastest candidate, by the shortest time of each.

    The first run of each is not timed: it compiles the kernel, and touches the memory. The rounds
    alternate between the candidates, so that a slower clock or another program meets all of them.
    """
    seconds = dict.fromkeys(candidates, math.inf)
    with suspended():
        for run in candidates.values():
            run()
        start = perf_counter()
        for done in range(1, MAX_ROUNDS + 1):
            for name, run in candidates.items():
                begin = perf_counter()
                run()
                seconds[name] = min(seconds[name], perf_counter() - begin)
            if perf_counter() - start > (SHORT_SECONDS if done >= MIN_ROUNDS else LONG_SECONDS):
                break
    fastest = min(seconds, key=seconds.__getitem__)
    return fastest if (1 + MIN_GAIN) * seconds[fastest] < seconds[default] else default


def _read_given(setting: str) -> Choices:
    """Return the choices in the file that ``CNN_TUNING`` names."""
    expected = 'it must be "off", or name a JSON file of the choices that kernel_choices() returned'
    try:
        choices = json.loads(Path(setting).expanduser().read_text(encoding="utf-8"))
        return check_kernel_choices(choices)
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror})"
    except (ValueError, TypeError, RecursionError, RuntimeError) as error:
        problem = f"the file is not valid ({error})"
    raise ValueError(f"CNN_TUNING={setting}: {problem}: {expected}")


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, and nothing in between."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


_tuner = Tuner(os.environ.get("CNN_TUNING"), CACHE_FOLDER)
choose = _tuner.choose
# A forked child has only the thread that forked. A lock that another thread held would stay locked.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_tuner.lock.acquire,
        after_in_parent=_tuner.lock.release,
        after_in_child=_tuner.lock.release,
    )


def kernel_choices() -> Choices:
    return _tuner.choices()


def pin_kernel_choices(choices: Choices) -> None:
    _tuner.pin(choices)
