"""The inner loops that LLVM turns into vector code; the kernels are loops around them.

Four terms at once: a sum is loaded and stored once for four multiply-adds, where one term at
a time would be bound by the stores.
"""

from kernels.numba_backend.runtime.compiler import serial


@serial
def add_scaled(out, x, w):
    """out += w * x"""
    for p in range(out.size):
        out[p] += w * x[p]


@serial
def add_scaled_4(out, x0, x1, x2, x3, w0, w1, w2, w3):
    """out += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3"""
    for p in range(out.size):
        out[p] += w0 * x0[p] + w1 * x1[p] + w2 * x2[p] + w3 * x3[p]


@serial
def dot(a, x):
    """Return the sum of a * x."""
    total = a[0] * x[0]
    for p in range(1, a.size):
        total += a[p] * x[p]
    return total


@serial
def dot_4(a, x0, x1, x2, x3):
    """Return the sums of a * x0, a * x1, a * x2 and a * x3."""
    t0, t1, t2, t3 = a[0] * x0[0], a[0] * x1[0], a[0] * x2[0], a[0] * x3[0]
    for p in range(1, a.size):
        t0 += a[p] * x0[p]
        t1 += a[p] * x1[p]
        t2 += a[p] * x2[p]
        t3 += a[p] * x3[p]
    return t0, t1, t2, t3
