"""ReLU and its leaky form, softmax, and the loss."""

import numpy as np

from kernels import validation


def leaky_relu(x, negative_slope):
    x = validation.check_activations(x, "x")
    return np.where(x > 0, x, x * validation.check_negative_slope(negative_slope, x.dtype))


def apply_activation(y, scale, bias, negative_slope):
    """Return the leaky ReLU of scale * y + bias, which belong to the last axis of sums y.

    None, None and a slope of 1 leave them as they are.
    """
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    negative_slope = validation.check_negative_slope(negative_slope, y.dtype)
    return y if negative_slope == 1 else np.where(y > 0, y, y * negative_slope)


def leaky_relu_grad(dy, x, negative_slope):
    dy, x = validation.check_same_shape(dy, x)
    return np.where(x > 0, dy, dy * validation.check_negative_slope(negative_slope, x.dtype))


def softmax(x):
    x = validation.check_logits(x, "x")
    # exp of differences of at most 0: nothing overflows, and the largest term is 1.
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def softmax_grad(dy, y):
    validation.check_logits(y, "y")
    dy, y = validation.check_same_shape(dy, y)
    return y * (dy - (dy * y).sum(axis=1, keepdims=True))


def softmax_cross_entropy(logits, labels, smoothing=0.0):
    logits = validation.check_batch(validation.check_logits(logits, "logits"))
    smoothing = validation.check_smoothing(smoothing)
    N, classes = logits.shape
    labels = validation.check_labels(labels, N, classes)
    rows = np.arange(N)
    shifted = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=1)
    losses = np.log(total) - (1 - smoothing) * shifted[rows, labels]
    if smoothing:  # or else 0 * -inf would come in
        losses -= smoothing * shifted.mean(axis=1)
    correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))
    dlogits = powers / total[:, None] - logits.dtype.type(smoothing / classes)
    dlogits[rows, labels] -= 1 - smoothing
    return float(np.mean(losses)), correct, dlogits / logits.dtype.type(N)
