"""Activations, sums, dropout and the loss on the packed layout.

Whatever works on single pixels runs over the flat memory of a batch, padding lanes included, with
the kernels that plain arrays use too.
"""

import numpy as np

from kernels import validation
from kernels.numba_backend.packed import checks
from kernels.numba_backend.packed.layout import PackedBatch, pack, unpack
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.simd.activation_kernels import (
    activate_grad_kernel,
    activate_kernel,
    add_kernel,
    multiply_kernel,
    softmax_cross_entropy_kernel,
    softmax_grad_kernel,
    softmax_kernel,
)
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numpy_backend.normalization import dropout_mask


def activate(x: PackedBatch, activation) -> PackedBatch:
    activation = activation_argument(activation, x.dtype)
    y = x.like()
    launch(activate_kernel.for_sweep(x.flat.size), x.flat, activation, y.flat)
    return y


def activate_grad(dy: PackedBatch, x: PackedBatch, activation) -> PackedBatch:
    checks.check_same_shape(dy=dy, x=x)
    activation = activation_argument(activation, x.dtype)
    dx = dy.like()
    launch(activate_grad_kernel.for_sweep(x.flat.size), dy.flat, x.flat, activation, dx.flat)
    return dx


def add(x: PackedBatch, other: PackedBatch, activation=None) -> PackedBatch:
    checks.check_same_shape(x=x, other=other)
    activation = activation_argument(activation, x.dtype)
    y = x.like()
    launch(add_kernel.for_sweep(x.flat.size), x.flat, other.flat, activation, y.flat)
    return y


def _draw_mask(mask: np.ndarray, rate: float, rng: np.random.Generator) -> None:
    mask[:] = dropout_mask(mask.shape, mask.dtype, rate, rng)


def dropout(x: PackedBatch, rate, rng):
    rate = validation.check_dropout(rate, rng)
    plain_mask = empty(x.shape, x.dtype)
    launch(_draw_mask, plain_mask, rate, rng)
    mask = pack(plain_mask)
    return dropout_grad(x, mask), mask


def dropout_grad(dy: PackedBatch, mask: PackedBatch) -> PackedBatch:
    checks.check_same_shape(dy=dy, mask=mask)
    dx = dy.like()
    launch(multiply_kernel, dy.flat, mask.flat, dx.flat)
    return dx


# A softmax inside a network is rare, so it has no packed kernel: the rows are unpacked.
def softmax(x: PackedBatch) -> PackedBatch:
    checks.check_rows(x, "x")
    rows = unpack(x)
    y = np.empty_like(rows)
    launch(softmax_kernel, rows, y)
    return pack(y)


def softmax_grad(dy: PackedBatch, y: PackedBatch) -> PackedBatch:
    checks.check_same_shape(dy=dy, y=y)
    checks.check_rows(y, "y")
    rows = unpack(dy)
    dx = np.empty_like(rows)
    launch(softmax_grad_kernel, rows, unpack(y), dx)
    return pack(dx)


def softmax_cross_entropy(logits: PackedBatch, labels, smoothing=0.0, weights=None):
    checks.check_rows(logits, "logits")
    labels = validation.check_labels(labels, *logits.shape)
    smoothing = validation.check_smoothing(smoothing)
    weights = validation.check_weights(weights, logits.shape[0])
    dlogits = logits.like()
    loss, n_correct = launch(
        softmax_cross_entropy_kernel, logits.planes, labels, smoothing, weights, dlogits.planes
    )
    return loss, n_correct, dlogits
