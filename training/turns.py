"""Threads that share a model take turns: any number may read it, one that changes it is alone."""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


class Turns:
    """Who uses an object. Whoever comes at a wrong time is refused by a RuntimeError.

    To wait would be no better: what a thread read between the steps of another would depend on
    chance. A thread that changes the object may read it too, and call what changes it.

    Both announce themselves before they look for each other, so that one of two at least sees the
    other. No lock is held meanwhile for which a forked child would wait.
    """

    def __init__(self) -> None:
        self.changing = threading.RLock()
        self.changer: int | None = None
        self.readers: set[int] = set()


def changes(method: Method) -> Method:
    """Let a method of an object that has `turns` run only while no other thread uses it."""

    @wraps(method)
    def alone(self: Any, *args: Any, **options: Any) -> Any:
        turns, mine = self.turns, threading.get_ident()
        if not turns.changing.acquire(blocking=False):
            raise RuntimeError("another thread changes the model: wait until it is done")
        before, turns.changer = turns.changer, mine
        try:
            if turns.readers - {mine}:
                raise RuntimeError("another thread uses the model: wait until it is done")
            return method(self, *args, **options)
        finally:
            turns.changer = before
            turns.changing.release()

    return cast(Method, alone)


def reads(method: Method) -> Method:
    """Let a method of an object that has `turns` run only while no other thread changes it."""

    @wraps(method)
    def together(self: Any, *args: Any, **options: Any) -> Any:
        turns, mine = self.turns, threading.get_ident()
        known = mine in turns.readers
        turns.readers.add(mine)
        try:
            if turns.changer not in (None, mine):
                raise RuntimeError("another thread changes the model: wait until it is done")
            return method(self, *args, **options)
        finally:
            if not known:
                turns.readers.discard(mine)

    return cast(Method, together)
