"""Batch normalisation and dropout."""

import numpy as np

from kernels import validation
from kernels.numpy_backend.activations import leaky_relu, leaky_relu_grad
from kernels.numpy_backend.pooling import max_pool, max_pool_grad


def _per_channel(vector, x):
    """Return a vector (C,) in a shape that broadcasts against (N, C, H, W) or (N, C)."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def _all_but_channel(x):
    return (0, *range(2, x.ndim))


def batch_norm(x, gamma, beta, epsilon):
    x, epsilon = (
        validation.check_batch(validation.check_activations(x, "x")),
        validation.check_epsilon(epsilon),
    )
    gamma, beta = validation.check_channel_vectors(x, gamma=gamma, beta=beta)
    # float64 sums: in float32 a channel of 10^7 pixels loses its last three digits.
    mean = x.mean(axis=_all_but_channel(x), dtype=np.float64)
    variance = np.square(x - _per_channel(mean, x)).mean(axis=_all_but_channel(x))
    mean, variance = mean.astype(x.dtype), variance.astype(x.dtype)
    return batch_norm_inference(x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out=None):
    dy, x = validation.check_same_shape(dy, x)
    validation.check_batch(x)
    epsilon = validation.check_epsilon(epsilon)
    gamma, mean, variance = validation.check_channel_vectors(
        x, gamma=gamma, mean=mean, variance=variance
    )
    validation.check_out(out, [gamma.shape] * 2, (gamma, mean, variance))
    axes = _all_but_channel(x)
    scale = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    x_hat = (x - _per_channel(mean, x)) * _per_channel(scale, x)
    dgamma = (dy * x_hat).sum(axis=axes, dtype=np.float64).astype(x.dtype)
    dbeta = dy.sum(axis=axes, dtype=np.float64).astype(x.dtype)
    count = x.size // x.shape[1]
    # The batch's mean and variance depend on x too: take their share out of dy.
    centred = dy - _per_channel(dbeta / count, x) - x_hat * _per_channel(dgamma / count, x)
    return centred * _per_channel(gamma * scale, x), dgamma, dbeta


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    x, epsilon = validation.check_activations(x, "x"), validation.check_epsilon(epsilon)
    gamma, beta, mean, variance = validation.check_channel_vectors(
        x, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    scale = gamma / np.sqrt(variance + x.dtype.type(epsilon))
    return (x - _per_channel(mean, x)) * _per_channel(scale, x) + _per_channel(beta, x)


def fold_batch_norm(b, gamma, beta, mean, variance, epsilon):
    b, gamma, beta, mean, variance = validation.check_folding(
        b, gamma, beta=beta, mean=mean, variance=variance
    )
    scale = gamma / np.sqrt(variance + gamma.dtype.type(validation.check_epsilon(epsilon)))
    return scale, (b - mean) * scale + beta


def update_running_stats(running_mean, running_variance, mean, variance, momentum):
    validation.check_vectors(
        running_mean=running_mean, running_variance=running_variance, mean=mean, variance=variance
    )
    momentum = validation.check_number(momentum, "momentum", 0, 1)
    for running, batch in ((running_mean, mean), (running_variance, variance)):
        running *= momentum
        running += (1 - momentum) * batch


def batch_norm_relu(x, gamma, beta, epsilon, negative_slope):
    y, mean, variance = batch_norm(x, gamma, beta, epsilon)
    return leaky_relu(y, negative_slope), mean, variance


def batch_norm_relu_grad(dy, x, gamma, beta, mean, variance, epsilon, negative_slope, out=None):
    y = batch_norm_inference(x, gamma, beta, mean, variance, epsilon)
    dy = leaky_relu_grad(dy, y, negative_slope)
    validation.check_out(out, [gamma.shape] * 2, (beta,))
    return batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out)


def batch_norm_relu_inference(x, gamma, beta, mean, variance, epsilon, negative_slope):
    return leaky_relu(batch_norm_inference(x, gamma, beta, mean, variance, epsilon), negative_slope)


def batch_norm_relu_pool(x, gamma, beta, epsilon, negative_slope, pool_size):
    y, mean, variance = batch_norm_relu(x, gamma, beta, epsilon, negative_slope)
    y, index = max_pool(y, pool_size)
    return y, index, mean, variance


def batch_norm_relu_pool_grad(
    dy, x, index, gamma, beta, mean, variance, epsilon, negative_slope, pool_size, out=None
):
    x = validation.check_images(x, "x")
    dy = max_pool_grad(dy, index, x.shape, pool_size)
    return batch_norm_relu_grad(dy, x, gamma, beta, mean, variance, epsilon, negative_slope, out)


def dropout_mask(shape, dtype, rate, rng):
    """Return what to multiply by: 0, or 1 / (1 - rate)."""
    return (rng.random(shape, dtype=np.float32) >= rate) * dtype.type(1 / (1 - rate))


def dropout(x, rate, rng):
    x, rate = validation.check_activations(x, "x"), validation.check_dropout(rate, rng)
    mask = dropout_mask(x.shape, x.dtype, rate, rng)
    return x * mask, mask


def dropout_grad(dy, mask):
    dy, mask = validation.check_same_shape(dy, mask)
    return dy * mask
