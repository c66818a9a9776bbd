"""What pooling kernels of every layout share: the pixels of a window, and its running maximum."""

from kernels.numba_backend.runtime.compiler import inlined, serial
from kernels.numba_backend.simd.vectors import logical_not


@serial
def clip(first, size, length):
    """Return [start, stop) of the pixels first .. first + size - 1 that lie in [0, length)."""
    return max(first, 0), min(first + size, length)


@serial
def valid_range(offset, stride, length, count):
    """Return the range [first, last) of i < count for which 0 <= offset + i * stride < length."""
    first = max(0, (-offset + stride - 1) // stride)
    last = min(count, (length - 1 - offset) // stride + 1)
    return first, max(first, last)


@inlined
def is_new_max(value, largest):
    """Return the mask of the lanes where a value replaces the maximum of the values before it.

    Of equal values the first one stays the maximum. NaN replaces every number and then stays, as
    in `numpy.argmax`.
    """
    return logical_not(value <= largest) & (largest == largest)
