"""A readers-writer lock: any number of threads may read a model, or one may change it."""

import os
import threading
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])

LOST_THREAD = -1  # stands for a writer that a forked process does not have; no thread's number

# Held for the few instructions in which a lock is acquired. Reentrant, because a signal's handler
# may run between them, and save the model.
_acquiring = threading.RLock()
_all_locks: "weakref.WeakSet[RWLock]" = weakref.WeakSet()


class RWLock:
    """A lock for many readers or one writer.

    Acquiring it while another thread holds it in a conflicting way raises RuntimeError. It does
    not wait, because the values read would then depend on timing. The writer may read too, and
    acquire the lock again.

    Attributes
    ----------
    writer : int, optional
        The thread that changes the model.
    readers : set of int
        The threads that read the model.
    """

    def __init__(self) -> None:
        self.writer: int | None = None
        self.readers: set[int] = set()
        _all_locks.add(self)

    def acquire_write(self, thread: int) -> None:
        """Make a thread the writer.

        Raises
        ------
        RuntimeError
            When another thread reads or changes the model.
        """
        with _acquiring:
            if self.writer is not None:
                self._raise_changing()
            if self.readers - {thread}:
                raise RuntimeError("another thread uses the model: wait until it is done")
            self.writer = thread

    def acquire_read(self, thread: int) -> None:
        """Add a thread to the readers.

        Raises
        ------
        RuntimeError
            When another thread changes the model.
        """
        with _acquiring:
            if self.writer not in (None, thread):
                self._raise_changing()
            self.readers.add(thread)

    def _raise_changing(self) -> NoReturn:
        if self.writer == LOST_THREAD:
            raise RuntimeError(
                "another thread was changing the model when this process was forked: build or "
                "load it again"
            )
        raise RuntimeError("another thread changes the model: wait until it is done")


def _after_fork() -> None:
    """Remove the threads that a forked child does not have from all locks."""
    _acquiring.release()
    this_thread = threading.get_ident()
    for lock in list(_all_locks):
        lock.readers &= {this_thread}
        if lock.writer not in (None, this_thread):
            lock.writer = LOST_THREAD


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_acquiring.acquire, after_in_parent=_acquiring.release, after_in_child=_after_fork
    )


# Ctrl-C may interrupt both wrappers at any instruction. Whether the lock was acquired is therefore
# read from the lock itself and not from a variable that is set afterwards.


def exclusive(function: Method) -> Method:
    """Decorate a function of a model, which has an `rwlock`, to run while no other thread uses it.

    A function that holds the lock may call another that is exclusive or shared.
    """

    @wraps(function)
    def run_exclusive(model: Any, *args: Any, **options: Any) -> Any:
        lock, thread = model.rwlock, threading.get_ident()
        if lock.writer == thread:
            return function(model, *args, **options)
        try:
            lock.acquire_write(thread)
            return function(model, *args, **options)
        finally:
            if lock.writer == thread:
                lock.writer = None

    return cast(Method, run_exclusive)


def shared(function: Method) -> Method:
    """Decorate a function of a model, which has an `rwlock`, to run while no other changes it."""

    @wraps(function)
    def run_shared(model: Any, *args: Any, **options: Any) -> Any:
        lock, thread = model.rwlock, threading.get_ident()
        if thread in lock.readers:
            return function(model, *args, **options)
        try:
            lock.acquire_read(thread)
            return function(model, *args, **options)
        finally:
            lock.readers.discard(thread)

    return cast(Method, run_shared)
