"""Activation functions, softmax, and the cross-entropy loss."""

import numpy as np

from kernels.activations import (
    GELU_CUBIC,
    GELU_LINEAR,
    ClippedRelu,
    Gelu,
    LeakyRelu,
    Sigmoid,
    Silu,
    Tanh,
)
from kernels.validation import (
    check_activation,
    check_activations,
    check_batch,
    check_labels,
    check_logits,
    check_same_shape,
    check_smoothing,
    check_weights,
)


def _sigmoid(x):
    z = np.exp(-np.abs(x))  # at most 1: it cannot overflow
    return np.where(x > 0, 1, z) / (1 + z)


def _gelu_argument(x):
    """Return u and its derivative, where gelu(x) = x * sigmoid(u)."""
    with np.errstate(over="ignore"):  # infinity is right
        square = x * x
        return x * (GELU_LINEAR + GELU_CUBIC * square), GELU_LINEAR + 3 * GELU_CUBIC * square


def evaluate(activation, x):
    """Return the activation of an array."""
    match activation:
        case LeakyRelu(negative_slope=1):
            return x
        case LeakyRelu(negative_slope):
            return np.where(x > 0, x, x * negative_slope)
        case ClippedRelu(max_value):
            return np.clip(x, 0, max_value)
        case Sigmoid():
            return _sigmoid(x)
        case Tanh():
            return np.tanh(x)
        case Silu():
            return x * _sigmoid(x)
        case Gelu():
            return x * _sigmoid(_gelu_argument(x)[0])
        case _:
            raise TypeError(f"this backend has no activation {activation!r}")


def evaluate_grad(activation, dy, x):
    """Return dy times the derivative of the activation at x."""
    match activation:
        case LeakyRelu(negative_slope):
            return np.where(x > 0, dy, dy * negative_slope)
        case ClippedRelu(max_value):
            return np.where((x > 0) & (x < max_value), dy, 0)
        case Sigmoid():
            return dy * _sigmoid(x) * _sigmoid(-x)
        case Tanh():
            return dy * (1 - np.square(np.tanh(x)))
        case Silu():
            return dy * _sigmoid(x) * (1 + x * _sigmoid(-x))
        case Gelu():
            u, du = _gelu_argument(x)
            return dy * _sigmoid(u) * (1 + x * _sigmoid(-u) * du)
        case _:
            raise TypeError(f"this backend has no activation {activation!r}")


def activate(x, activation):
    x = check_activations(x, "x")
    return evaluate(check_activation(activation, x.dtype), x)


def activate_grad(dy, x, activation):
    dy, x = check_same_shape(dy, x)
    return evaluate_grad(check_activation(activation, x.dtype), dy, x)


def leaky_relu(x, negative_slope):
    return activate(x, LeakyRelu(negative_slope))


def leaky_relu_grad(dy, x, negative_slope):
    return activate_grad(dy, x, LeakyRelu(negative_slope))


def add(x, other, activation=None):
    other, x = check_same_shape(other, x, dy_name="other")
    return evaluate(check_activation(activation, x.dtype), x + other)


def scale_and_activate(y, scale, bias, activation):
    """Return the activation of scale * y + bias.

    The scale and the bias broadcast along the last axis of y. None stands for 1 and 0.
    """
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    return evaluate(activation, y)


def softmax(x):
    x = check_logits(x, "x")
    # Subtracting the maximum does not change the result. All exponents are then at most 0, so
    # that nothing overflows, and one of them is 0, so that the sum is at least 1.
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def softmax_grad(dy, y):
    check_logits(y, "y")
    dy, y = check_same_shape(dy, y, "y")
    return y * (dy - (dy * y).sum(axis=1, keepdims=True))


def softmax_cross_entropy(logits, labels, smoothing=0.0, weights=None):
    logits = check_batch(check_logits(logits, "logits"))
    N, classes = logits.shape
    labels, smoothing = check_labels(labels, N, classes), check_smoothing(smoothing)
    weights = check_weights(weights, N)
    rows = np.arange(N)
    shifted = logits - logits.max(axis=1, keepdims=True)  # as in softmax
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1)
    losses = np.log(sums) - (1 - smoothing) * shifted[rows, labels]
    if smoothing:  # without smoothing, 0 * -inf would make the loss NaN
        losses -= smoothing * shifted.mean(axis=1)
    n_correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))
    dlogits = exponentials / sums[:, None] - logits.dtype.type(smoothing / classes)
    dlogits[rows, labels] -= 1 - smoothing
    if weights is not None:
        losses = losses * weights
        dlogits *= weights[:, None]
    return float(np.mean(losses)), n_correct, dlogits / logits.dtype.type(N)
