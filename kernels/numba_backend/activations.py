"""Leaky ReLU, softmax and the loss on plain arrays."""

import numpy as np

from kernels import validation
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.simd.activation_kernels import (
    leaky_relu_grad_kernel,
    leaky_relu_kernel,
    softmax_cross_entropy_kernel,
    softmax_grad_kernel,
    softmax_kernel,
)


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
    dy, y = validation.check_same_shape(dy, y, "y")
    dx = np.empty_like(y)
    softmax_grad_kernel(dy, y, dx)
    return dx


def softmax_cross_entropy(logits, labels, smoothing=0.0, weights=None):
    logits = validation.check_batch(validation.check_logits(logits, "logits"))
    smoothing = validation.check_smoothing(smoothing)
    labels = validation.check_labels(labels, *logits.shape)
    weights = validation.check_weights(weights, len(logits))
    dlogits = np.empty_like(logits)
    N, K = logits.shape
    loss, n_correct = softmax_cross_entropy_kernel(
        logits.reshape(N, K, 1, 1), labels, smoothing, weights, dlogits.reshape(N, K, 1, 1)
    )
    return loss, n_correct, dlogits
