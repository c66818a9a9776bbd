"""Kernels that do not depend on the layout of the images: activations, sums, masks, rows of logits.

Elementwise kernels take flat arrays of any layout, pairs of bfloat16 numbers included. The loss
takes its logits in either layout. Softmax takes plain rows (N, K), to which the packed layout is
converted first.
"""

import math

from numba import prange

from kernels.numba_backend.runtime.compiler import SizedKernel, inlined, parallel, serial
from kernels.numba_backend.simd.activations import activate, activate_grad
from kernels.numba_backend.simd.pixels import (
    load_pixel,
    masked_load_pixel,
    masked_store_pixel,
    store_pixel,
)
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, masked_load, masked_store, store


@inlined
def activate_row(x, activation):
    """Replace the numbers of a row by their activations."""
    L = VECTOR_BYTES // x.itemsize
    full = x.size // L * L
    for p in range(0, full, L):
        store(x, p, activate(load(x, p), activation))
    value = activate(masked_load(x, full, x.size - full), activation)
    masked_store(x, full, value, x.size - full)


@SizedKernel
def activate_kernel(x, activation, y):
    """y = the activation of x."""
    L = VECTOR_BYTES // x.itemsize
    for v in prange(x.size // L):
        store_pixel(y, v * L, activate(load_pixel(x, v * L), activation))
    full = x.size // L * L  # the numbers after the whole vectors follow
    value = activate(masked_load_pixel(x, full, x.size - full), activation)
    masked_store_pixel(y, full, value, x.size - full)


@SizedKernel
def activate_grad_kernel(dy, x, activation, dx):
    """dx = dy times the derivative of the activation at x."""
    L = VECTOR_BYTES // x.itemsize
    for v in prange(x.size // L):
        g = activate_grad(load_pixel(dy, v * L), load_pixel(x, v * L), activation)
        store_pixel(dx, v * L, g)
    full = x.size // L * L
    rest = x.size - full
    g, value = masked_load_pixel(dy, full, rest), masked_load_pixel(x, full, rest)
    masked_store_pixel(dx, full, activate_grad(g, value, activation), rest)


@SizedKernel
def add_kernel(x, other, activation, y):
    """y = the activation of x + other."""
    L = VECTOR_BYTES // x.itemsize
    for v in prange(x.size // L):
        total = load_pixel(x, v * L) + load_pixel(other, v * L)
        store_pixel(y, v * L, activate(total, activation))
    full = x.size // L * L
    rest = x.size - full
    total = masked_load_pixel(x, full, rest) + masked_load_pixel(other, full, rest)
    masked_store_pixel(y, full, activate(total, activation), rest)


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
            # A NaN need not stay the largest: its exponential makes the total NaN in any case.
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
        dot = 0.0
        for k in range(K):
            dot += dy[n, k] * y[n, k]
        for k in range(K):
            dx[n, k] = y[n, k] * (dy[n, k] - dot)


@inlined
def stays_largest(largest, number):
    """Return whether `numpy.argmax` keeps ``largest`` over a later number.

    It keeps the first of equal numbers, and the first NaN.
    """
    return largest >= number or largest != largest


# A classifier has few logits: waking threads for them would cost more than it saves.
@serial
def softmax_cross_entropy_kernel(logits, labels, smoothing, weights, dlogits):
    """dlogits = weights * (softmax(logits) - targets) / N; return the mean loss and n_correct.

    logits and dlogits are (B, K, 1, L) with K classes; for plain rows (N, K) they are
    (N, K, 1, 1). The target of the label is 1 - smoothing, and smoothing / K is added to that of
    each class. Padding lanes of dlogits become 0. Without weights, which are None then, Numba
    compiles the kernel as if the factor of 1 were not there.

    A replay of a captured step does not check its labels. A label that is out of range therefore
    makes the loss NaN and gets no target; as an index it would reach the memory of other arrays.
    """
    B, K, _, L = logits.shape
    N = labels.size
    loss, n_correct, uniform = 0.0, 0, smoothing / K
    for n in range(B * L):
        b, lane = n // L, n % L
        if n >= N:
            for k in range(K):
                dlogits[b, k, 0, lane] = 0
            continue
        weight = 1.0 if weights is None else weights[n]
        argmax = 0
        for k in range(1, K):
            largest = logits[b, argmax, 0, lane]
            argmax = argmax if stays_largest(largest, logits[b, k, 0, lane]) else k
        largest = logits[b, argmax, 0, lane]
        total = 0.0
        for k in range(K):
            exp_k = math.exp(logits[b, k, 0, lane] - largest)
            dlogits[b, k, 0, lane] = exp_k
            total += exp_k
        for k in range(K):
            dlogits[b, k, 0, lane] = (dlogits[b, k, 0, lane] / total - uniform) / N * weight
        label = labels[n]
        if not 0 <= label < K:
            loss = math.nan
            continue
        dlogits[b, label, 0, lane] -= (1 - smoothing) / N * weight
        loss += weight * (math.log(total) - (1 - smoothing) * (logits[b, label, 0, lane] - largest))
        if smoothing > 0:  # without smoothing, a logit of -inf would add 0 * -inf = NaN
            for k in range(K):
                loss -= weight * uniform * (logits[b, k, 0, lane] - largest)
        n_correct += argmax == label
    return loss / N, n_correct
