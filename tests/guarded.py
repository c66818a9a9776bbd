"""A pytest plugin: kernels work in memory that ends where none is.

    python -m pytest -p tests.guarded tests/test_kernels.py

Each array that a kernel gets or makes lies in pages of its own, at their end, with a page behind
and one before that may not be touched: a number too far, read or written, ends the process.
CNN_GUARD=start moves the arrays to the beginning of their pages.
"""

import ctypes
import math
import mmap
import os
import sys
from types import FunctionType

import numpy as np
import pytest

from kernels import validation
from kernels.numba_backend.runtime import buffer_pool

PAGE = mmap.PAGESIZE
PROT_NONE = 0
at_start = os.environ.get("CNN_GUARD") == "start"
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
made = 0


def guarded_bytes(size: int) -> np.ndarray:
    """Return uninitialised bytes between two pages that may not be touched."""
    global made
    made += 1
    pages = max(1, -(-size // PAGE)) * PAGE
    region = mmap.mmap(-1, pages + 2 * PAGE)
    whole = np.frombuffer(region, np.uint8)
    for start in (0, PAGE + pages):
        if libc.mprotect(whole.ctypes.data + start, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE if at_start else PAGE + pages - size
    part = whole[first : first + size]
    part[:] = 0xA5
    return part


def empty(shape, dtype=float, order="C", **_) -> np.ndarray:
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    dtype = np.dtype(dtype)
    if dtype.hasobject or order not in ("C", "K"):
        return unguarded(shape, dtype, order)
    return guarded_bytes(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


unguarded, check_array = np.empty, validation.check_array


def guarded_array(value, name, ndim, dtype=None):
    """Check an array, and return a guarded copy of it."""
    checked = check_array(value, name, ndim, dtype)
    copy = empty(checked.shape, checked.dtype)
    copy[...] = checked
    return copy


# The same code with the plain check: what is written into must not be a copy.
in_place = FunctionType(
    validation.check_writable.__code__, {**vars(validation), "check_array": guarded_array}
)


class _Numpy:
    """NumPy as the kernels' modules see it, with arrays that are guarded."""

    empty = staticmethod(empty)

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def empty_like(a, dtype=None):
        return empty(a.shape, dtype or a.dtype)

    @staticmethod
    def zeros(shape, dtype=float):
        array = empty(shape, dtype)
        array[...] = 0
        return array


def _modules():
    """Return the modules of the numba backend whose Python functions make arrays."""
    prefix = "kernels.numba_backend"
    return [
        module
        for name, module in sys.modules.items()
        if name.startswith(prefix) and getattr(module, "np", None) is np
    ]


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run each test twice: at first as it is, so that all kernels that it needs are compiled."""
    names = pyfuncitem._fixtureinfo.argnames
    pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "check_array", guarded_array)
        patch.setattr(validation, "check_writable", in_place)
        patch.setattr(buffer_pool, "allocate_block", lambda size: memoryview(guarded_bytes(size)))
        patch.setattr(buffer_pool, "shared_pool", buffer_pool.BufferPool())
        for module in _modules():
            patch.setattr(module, "np", _Numpy())
        yield


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{made:,} guarded arrays")
