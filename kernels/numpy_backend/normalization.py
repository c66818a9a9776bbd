"""Batch normalization, alone and together with an activation and max pooling, and dropout."""

import numpy as np

from kernels.numpy_backend.activations import activate, activate_grad
from kernels.numpy_backend.pooling import max_pool, max_pool_grad
from kernels.validation import (
    check_activations,
    check_batch,
    check_batch_norm,
    check_batch_norm_grad,
    check_dropout,
    check_epsilon,
    check_folding,
    check_images,
    check_number,
    check_same_shape,
    check_vectors,
)


def _per_channel(vector, x):
    """Return a vector (C,) in a shape that broadcasts against x, (N, C, H, W) or (N, C)."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def _all_but_channel(x):
    """Return the axes of x, (N, C, H, W) or (N, C), without that of the channels."""
    return (0, *range(2, x.ndim))


def _normalize(x, gamma, beta, mean, variance, epsilon):
    scale = gamma / np.sqrt(variance + x.dtype.type(epsilon))
    return (x - _per_channel(mean, x)) * _per_channel(scale, x) + _per_channel(beta, x)


def _normalize_grad(dy, x, gamma, mean, variance, epsilon):
    axes = _all_but_channel(x)
    inverse_std = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    x_hat = (x - _per_channel(mean, x)) * _per_channel(inverse_std, x)
    dgamma = (dy * x_hat).sum(axis=axes, dtype=np.float64).astype(x.dtype)
    dbeta = dy.sum(axis=axes, dtype=np.float64).astype(x.dtype)
    count = x.size // x.shape[1]
    # The mean and the variance depend on x as well. The last two terms are their contributions.
    dx_hat = dy - _per_channel(dbeta / count, x) - x_hat * _per_channel(dgamma / count, x)
    return dx_hat * _per_channel(gamma * inverse_std, x), dgamma, dbeta


def batch_norm(x, gamma, beta, epsilon):
    x, epsilon, (gamma, beta) = check_batch_norm(x, epsilon, gamma=gamma, beta=beta)
    check_batch(x)
    # float64 sums: in float32, the mean of 10^7 pixels has lost its last three digits.
    mean = x.mean(axis=_all_but_channel(x), dtype=np.float64)
    variance = np.square(x - _per_channel(mean, x)).mean(axis=_all_but_channel(x))
    mean, variance = mean.astype(x.dtype), variance.astype(x.dtype)
    return _normalize(x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out=None):
    dy, x, epsilon, (gamma, mean, variance) = check_batch_norm_grad(
        dy, x, epsilon, out, gamma=gamma, mean=mean, variance=variance
    )
    return _normalize_grad(dy, x, gamma, mean, variance, epsilon)


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    x, epsilon, (gamma, beta, mean, variance) = check_batch_norm(
        x, epsilon, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    return _normalize(x, gamma, beta, mean, variance, epsilon)


def fold_batch_norm(b, gamma, beta, mean, variance, epsilon):
    b, gamma, beta, mean, variance = check_folding(
        b, gamma, beta=beta, mean=mean, variance=variance
    )
    scale = gamma / np.sqrt(variance + gamma.dtype.type(check_epsilon(epsilon)))
    return scale, (b - mean) * scale + beta


def update_running_stats(running_mean, running_variance, mean, variance, momentum):
    check_vectors(
        running_mean=running_mean, running_variance=running_variance, mean=mean, variance=variance
    )
    momentum = check_number(momentum, "momentum", 0, 1)
    for running, batch in ((running_mean, mean), (running_variance, variance)):
        running *= momentum
        running += (1 - momentum) * batch


def batch_norm_activation(x, gamma, beta, epsilon, activation):
    y, mean, variance = batch_norm(x, gamma, beta, epsilon)
    return activate(y, activation), mean, variance


def batch_norm_activation_grad(dy, x, gamma, beta, mean, variance, epsilon, activation, out=None):
    dy, x, epsilon, (gamma, beta, mean, variance) = check_batch_norm_grad(
        dy, x, epsilon, out, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    y = _normalize(x, gamma, beta, mean, variance, epsilon)
    dy = activate_grad(dy, y, activation)
    return _normalize_grad(dy, x, gamma, mean, variance, epsilon)


def batch_norm_activation_pool(x, gamma, beta, epsilon, activation, pool_size):
    y, mean, variance = batch_norm_activation(x, gamma, beta, epsilon, activation)
    y, index = max_pool(y, pool_size)
    return y, index, mean, variance


def batch_norm_activation_pool_grad(
    dy, x, index, gamma, beta, mean, variance, epsilon, activation, pool_size, out=None
):
    x = check_images(x, "x")
    dy = max_pool_grad(dy, index, x.shape, pool_size)
    return batch_norm_activation_grad(dy, x, gamma, beta, mean, variance, epsilon, activation, out)


def dropout_mask(shape, dtype, rate, rng):
    """Return the factor of each element: 0 with probability ``rate``, else 1 / (1 - rate)."""
    return (rng.random(shape, dtype=np.float32) >= rate) * dtype.type(1 / (1 - rate))


def dropout(x, rate, rng):
    x, rate = check_activations(x, "x"), check_dropout(rate, rng)
    mask = dropout_mask(x.shape, x.dtype, rate, rng)
    return x * mask, mask


def dropout_grad(dy, mask):
    dy, mask = check_same_shape(dy, mask, "mask")
    return dy * mask
