"""What works on each pixel, or on each row of a classifier, with the images in the lanes."""

import math

import numpy as np

from kernels import validation
from kernels.numba_backend import activations as plain
from kernels.numba_backend.normalization import multiply
from kernels.numba_backend.packed import checks
from kernels.numba_backend.packed.layout import PackedBatch, pack, unpack
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import serial
from kernels.numpy_backend.normalization import dropout_mask


def leaky_relu(x: PackedBatch, negative_slope) -> PackedBatch:
    y = x.like()
    launch(
        plain.leaky_relu_kernel,
        x.flat,
        validation.check_negative_slope(negative_slope, x.dtype),
        y.flat,
    )
    return y


def leaky_relu_grad(dy: PackedBatch, x: PackedBatch, negative_slope) -> PackedBatch:
    checks.check_compatible("x", x, dy)
    dx, negative_slope = dy.like(), validation.check_negative_slope(negative_slope, x.dtype)
    launch(plain.leaky_relu_grad_kernel, dy.flat, x.flat, negative_slope, dx.flat)
    return dx


def _draw(mask: np.ndarray, rate: float, rng: np.random.Generator) -> None:
    mask[:] = dropout_mask(mask.shape, mask.dtype, rate, rng)


def dropout(x: PackedBatch, rate, rng):
    rate = validation.check_dropout(rate, rng)
    plain_mask = empty(x.shape, x.dtype)
    launch(_draw, plain_mask, rate, rng)
    mask = pack(plain_mask)
    return dropout_grad(x, mask), mask


def dropout_grad(dy: PackedBatch, mask: PackedBatch) -> PackedBatch:
    checks.check_compatible("mask", mask, dy)
    dx = dy.like()
    launch(multiply, dy.flat, mask.flat, dx.flat)
    return dx


# A softmax within a network is rare: it works on plain rows.
def softmax(x: PackedBatch) -> PackedBatch:
    checks.check_rows(x)
    rows = unpack(x)
    y = np.empty_like(rows)
    launch(plain.softmax_kernel, rows, y)
    return pack(y)


def softmax_grad(dy: PackedBatch, y: PackedBatch) -> PackedBatch:
    checks.check_compatible("y", y, dy)
    checks.check_rows(y)
    rows = unpack(dy)
    dx = np.empty_like(rows)
    launch(plain.softmax_grad_kernel, rows, unpack(y), dx)
    return pack(dx)


# A classifier's rows are few numbers: waking threads for them would cost more than it saves.
@serial
def _cross_entropy(logits, labels, smoothing, dlogits):
    """logits and dlogits (B, K, 1, L): the mean loss, and how many labels were right."""
    B, K, _, L = logits.shape
    N = labels.size
    loss, correct, rest = 0.0, 0, smoothing / K
    for n in range(B * L):
        b, lane = n // L, n % L
        if n >= N:
            for k in range(K):
                dlogits[b, k, 0, lane] = 0
            continue
        best = 0
        for k in range(1, K):
            largest = logits[b, best, 0, lane]
            best = best if plain.stays_largest(largest, logits[b, k, 0, lane]) else k
        largest = logits[b, best, 0, lane]
        total = 0.0
        for k in range(K):
            share = math.exp(logits[b, k, 0, lane] - largest)
            dlogits[b, k, 0, lane] = share
            total += share
        for k in range(K):
            dlogits[b, k, 0, lane] = (dlogits[b, k, 0, lane] / total - rest) / N
        dlogits[b, labels[n], 0, lane] -= (1 - smoothing) / N
        loss += math.log(total) - (1 - smoothing) * (logits[b, labels[n], 0, lane] - largest)
        if smoothing > 0:  # or else 0 * -inf would come in
            for k in range(K):
                loss -= rest * (logits[b, k, 0, lane] - largest)
        correct += best == labels[n]
    return loss / N, correct


def softmax_cross_entropy(logits: PackedBatch, labels, smoothing=0.0):
    checks.check_rows(logits)
    labels = validation.check_labels(labels, *logits.shape)
    dlogits = logits.like()
    loss, correct = launch(
        _cross_entropy, logits.planes, labels, validation.check_smoothing(smoothing), dlogits.planes
    )
    return loss, correct, dlogits
