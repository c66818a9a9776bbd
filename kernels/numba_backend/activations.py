"""Activations, sums, softmax and the loss on plain arrays."""

import numpy as np

from kernels import validation
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.simd.activation_kernels import (
    activate_grad_kernel,
    activate_kernel,
    add_kernel,
    softmax_cross_entropy_kernel,
    softmax_grad_kernel,
    softmax_kernel,
)
from kernels.numba_backend.simd.activations import activation_argument


def activate(x, activation):
    x = validation.check_activations(x, "x")
    activation = activation_argument(activation, x.dtype)
    y = np.empty_like(x)
    launch(activate_kernel.for_sweep(x.size), x.reshape(-1), activation, y.reshape(-1))
    return y


def activate_grad(dy, x, activation):
    dy, x = validation.check_same_shape(dy, x)
    activation = activation_argument(activation, x.dtype)
    dx = np.empty_like(x)
    kernel = activate_grad_kernel.for_sweep(x.size)
    kernel(dy.reshape(-1), x.reshape(-1), activation, dx.reshape(-1))
    return dx


def add(x, other, activation=None):
    other, x = validation.check_same_shape(other, x, dy_name="other")
    activation = activation_argument(activation, x.dtype)
    y = np.empty_like(x)
    kernel = add_kernel.for_sweep(x.size)
    launch(kernel, x.reshape(-1), other.reshape(-1), activation, y.reshape(-1))
    return y


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
