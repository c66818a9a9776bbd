"""ReLU and leaky ReLU, softmax, and the cross-entropy loss."""

import numpy as np

from kernels.validation import (
    check_activations,
    check_batch,
    check_labels,
    check_logits,
    check_negative_slope,
    check_same_shape,
    check_smoothing,
    check_weights,
)


def leaky_relu(x, negative_slope):
    x = check_activations(x, "x")
    return np.where(x > 0, x, x * check_negative_slope(negative_slope, x.dtype))


def leaky_relu_grad(dy, x, negative_slope):
    dy, x = check_same_shape(dy, x)
    return np.where(x > 0, dy, dy * check_negative_slope(negative_slope, x.dtype))


def apply_activation(y, scale, bias, negative_slope):
    """Return the leaky ReLU of scale * y + bias.

    The scale and the bias broadcast along the last axis of y. None stands for 1 and 0, and a
    negative slope of 1 for no activation.
    """
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    return y if negative_slope == 1 else np.where(y > 0, y, y * negative_slope)


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
