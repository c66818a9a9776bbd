"""ReLU and its leaky form, softmax, and the loss."""

import numpy as np

from kernels import checks


def leaky_relu(x, slope):
    x = checks.activations(x, "x")
    return np.where(x > 0, x, x * checks.slope(slope, x.dtype))


def activated(y, scale, bias, slope):
    """Return the leaky ReLU of scale * y + bias, which belong to the last axis of sums y.

    None, None and a slope of 1 leave them as they are.
    """
    if scale is not None:
        y = y * scale
    if bias is not None:
        y = y + bias
    slope = checks.slope(slope, y.dtype)
    return y if slope == 1 else np.where(y > 0, y, y * slope)


def leaky_relu_grad(dy, x, slope):
    dy, x = checks.same_shape(dy, x)
    return np.where(x > 0, dy, dy * checks.slope(slope, x.dtype))


def softmax(x):
    x = checks.logits(x, "x")
    # exp of differences of at most 0: nothing overflows, and the largest term is 1.
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def softmax_grad(dy, y):
    checks.logits(y, "y")
    dy, y = checks.same_shape(dy, y)
    return y * (dy - (dy * y).sum(axis=1, keepdims=True))


def softmax_cross_entropy(logits, labels, smoothing=0.0):
    logits = checks.batch(checks.logits(logits, "logits"))
    smoothing = checks.smoothing(smoothing)
    N, classes = logits.shape
    labels = checks.labels(labels, N, classes)
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
