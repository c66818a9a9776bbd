"""Leaky ReLU, softmax and the loss on plain arrays."""

import math

import numpy as np

from kernels import validation
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import serial
from kernels.numba_backend.simd.activation_kernels import (
    leaky_relu_grad_kernel,
    leaky_relu_kernel,
    softmax_grad_kernel,
    softmax_kernel,
    stays_largest,
)


@serial
def _cross_entropy(logits, labels, smoothing, dlogits):
    """Return the mean loss and the number of correct labels; write the gradient to dlogits."""
    N, K = logits.shape
    off_target = smoothing / K
    loss, n_correct = 0.0, 0
    for n in range(N):
        best = 0
        for k in range(1, K):
            best = best if stays_largest(logits[n, best], logits[n, k]) else k
        largest = logits[n, best]
        total = 0.0
        for k in range(K):
            dlogits[n, k] = math.exp(logits[n, k] - largest)
            total += dlogits[n, k]
        for k in range(K):
            dlogits[n, k] = (dlogits[n, k] / total - off_target) / N
        dlogits[n, labels[n]] -= (1 - smoothing) / N
        loss += math.log(total) - (1 - smoothing) * (logits[n, labels[n]] - largest)
        if smoothing > 0:  # 0 * -inf would be NaN
            for k in range(K):
                loss -= off_target * (logits[n, k] - largest)
        n_correct += best == labels[n]
    return loss / N, n_correct


def leaky_relu(x, negative_slope):
    x = validation.check_activations(x, "x")
    y = np.empty_like(x)
    launch(
        leaky_relu_kernel,
        x.reshape(-1),
        validation.check_negative_slope(negative_slope, x.dtype),
        y.reshape(-1),
    )
    return y


def leaky_relu_grad(dy, x, negative_slope):
    dy, x = validation.check_same_shape(dy, x)
    dx = np.empty_like(x)
    negative_slope = validation.check_negative_slope(negative_slope, x.dtype)
    leaky_relu_grad_kernel(dy.reshape(-1), x.reshape(-1), negative_slope, dx.reshape(-1))
    return dx


def softmax(x):
    x = validation.check_logits(x, "x")
    y = np.empty_like(x)
    softmax_kernel(x, y)
    return y


def softmax_grad(dy, y):
    validation.check_logits(y, "y")
    dy, y = validation.check_same_shape(dy, y)
    dx = np.empty_like(y)
    softmax_grad_kernel(dy, y, dx)
    return dx


def softmax_cross_entropy(logits, labels, smoothing=0.0):
    logits = validation.check_batch(validation.check_logits(logits, "logits"))
    smoothing = validation.check_smoothing(smoothing)
    labels = validation.check_labels(labels, *logits.shape)
    dlogits = np.empty_like(logits)
    loss, n_correct = _cross_entropy(logits, labels, smoothing, dlogits)
    return loss, n_correct, dlogits
