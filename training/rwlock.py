"""Threads that share a model take turns: any number may read it, one that changes it is alone."""

import os
import threading
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])

LOST = -1  # no thread's number

# For the few instructions in which a turn begins. A signal's handler may come in between them, and
# save the model.
_lock = threading.RLock()
_all: "weakref.WeakSet[RWLock]" = weakref.WeakSet()


class RWLock:
    """Who uses a model. Whoever comes at a wrong time is refused by a RuntimeError.

    To wait would be no better: what a thread read between the steps of another would depend on
    chance. A thread that changes the model may read it too, and call what changes it.

    Attributes
    ----------
    changer : int, optional
        The thread that changes the model.
    readers : set of int
        The threads that read it.
    """

    def __init__(self) -> None:
        self.changer: int | None = None
        self.readers: set[int] = set()
        _all.add(self)

    def begin_change(self, thread: int) -> None:
        with _lock:
            if self.changer is not None:
                self._refuse()
            if self.readers - {thread}:
                raise RuntimeError("another thread uses the model: wait until it is done")
            self.changer = thread

    def begin_read(self, thread: int) -> None:
        with _lock:
            if self.changer not in (None, thread):
                self._refuse()
            self.readers.add(thread)

    def _refuse(self) -> NoReturn:
        if self.changer == LOST:
            raise RuntimeError(
                "another thread was changing the model when this process was forked: make it anew"
            )
        raise RuntimeError("another thread changes the model: wait until it is done")


def _after_fork() -> None:
    """Forget the threads that a forked child does not have."""
    _lock.release()
    mine = threading.get_ident()
    for turns in list(_all):
        turns.readers &= {mine}
        if turns.changer not in (None, mine):
            turns.changer = LOST


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork
    )


# In both, Ctrl-C may come at any place: what was begun is seen from what it left behind.


def exclusive(function: Method) -> Method:
    """Let a function of a model, which has `turns`, run only while no other thread uses it."""

    @wraps(function)
    def alone(model: Any, *args: Any, **options: Any) -> Any:
        turns, mine = model.rwlock, threading.get_ident()
        if turns.changer == mine:
            return function(model, *args, **options)
        try:
            turns.begin_change(mine)
            return function(model, *args, **options)
        finally:
            if turns.changer == mine:
                turns.changer = None

    return cast(Method, alone)


def shared(function: Method) -> Method:
    """Let a function of a model, which has `turns`, run only while no other thread changes it."""

    @wraps(function)
    def together(model: Any, *args: Any, **options: Any) -> Any:
        turns, mine = model.rwlock, threading.get_ident()
        if mine in turns.readers:
            return function(model, *args, **options)
        try:
            turns.begin_read(mine)
            return function(model, *args, **options)
        finally:
            turns.readers.discard(mine)

    return cast(Method, together)
