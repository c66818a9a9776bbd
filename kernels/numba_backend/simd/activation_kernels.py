"""Kernels that do not depend on the layout of the images: activations, masks, rows of logits.

Elementwise kernels take flat arrays of any layout. Softmax takes plain rows (N, K), to which the
packed layout is converted first.
"""

import math

from numba import prange

from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.vectors import where


@inlined
def leaky_relu_vector(value, slope, zero):
    """Return the leaky ReLU of a vector; the slope and the zero are vectors, too."""
    return where(value > zero, value, value * slope)


@parallel
def leaky_relu_kernel(x, negative_slope, y):
    """y = x where x is positive, and else negative_slope * x."""
    for p in prange(x.size):
        y[p] = x[p] if x[p] > 0 else x[p] * negative_slope


@parallel
def leaky_relu_grad_kernel(dy, x, negative_slope, dx):
    """dx = dy where x is positive, and else negative_slope * dy."""
    for p in prange(x.size):
        dx[p] = dy[p] if x[p] > 0 else dy[p] * negative_slope


@parallel
def multiply_kernel(x, mask, y):
    """y = x * mask."""
    for p in prange(x.size):
        y[p] = x[p] * mask[p]


# The rows of a classifier are short: a parallel call would cost more than it saves.
@serial
def softmax_kernel(x, y):
    """y (N, K) = the softmax of each row of x."""
    N, K = x.shape
    for n in range(N):
        largest = x[n, 0]
        for k in range(1, K):
            # This comparison lets a NaN become the largest, so that the whole row becomes NaN.
            largest = largest if largest >= x[n, k] else x[n, k]
        total = 0.0
        for k in range(K):
            y[n, k] = math.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(K):
            y[n, k] /= total


@serial
def softmax_grad_kernel(dy, y, dx):
    """dx (N, K) = y * (dy - the sum over the row of dy * y)."""
    N, K = y.shape
    for n in range(N):
        mean = 0.0
        for k in range(K):
            mean += dy[n, k] * y[n, k]
        for k in range(K):
            dx[n, k] = y[n, k] * (dy[n, k] - mean)


@inlined
def stays_largest(largest, number):
    """Return whether `numpy.argmax` keeps ``largest`` over a later number.

    It keeps the first of equal numbers, and the first NaN.
    """
    return largest >= number or largest != largest
