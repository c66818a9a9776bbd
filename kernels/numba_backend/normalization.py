"""Batch normalization and dropout on plain arrays.

Every kernel gets its input as (N, C, S): the S pixels of a channel are neighbors. For rows of
features S is 1.
"""

import math

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.activations import activate, activate_grad
from kernels.numba_backend.pooling import max_pool, max_pool_grad
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activation_kernels import multiply_kernel
from kernels.numba_backend.small_work import run_by_size

SWEEPS = 2  # how many sweeps over memory a kernel with several loops takes


def _rows(x):
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


@parallel
def _moments(x, mean, squared_deviations):
    """Write the mean and the sum of squared deviations of each row of S pixels, in float64."""
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        pixels = x[n, c]
        total = 0.0
        for p in range(S):
            total += np.float64(pixels[p])
        row_mean = total / S
        squares = 0.0
        for p in range(S):
            squares += (np.float64(pixels[p]) - row_mean) ** 2
        mean[n, c] = row_mean
        squared_deviations[n, c] = squares


@serial
def _merge_moments(row_means, squared_deviations, S, mean, variance):
    """Write the moments of each channel from those of its rows of S pixels.

    Chan, Golub, LeVeque (1983): the deviations within the rows, and those between them.
    """
    N, C = row_means.shape
    for c in range(C):
        center, within, between = 0.0, 0.0, 0.0
        for n in range(N):
            center += row_means[n, c] / N
            within += squared_deviations[n, c]
        for n in range(N):
            between += (row_means[n, c] - center) ** 2
        mean[c], variance[c] = center, between / N + within / (N * S)


@parallel
def _normalize(x, mean, scale, shift, y):
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        for p in range(S):
            y[n, c, p] = (x[n, c, p] - mean[c]) * scale[c] + shift[c]


@parallel
def _gradient_sums(dy, x, mean, sums):
    """Write the sums of dy and of dy * (x - mean) over each row, in float64, to sums (2, N, C)."""
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        sum_dy, sum_dy_centered = 0.0, 0.0
        for p in range(S):
            sum_dy += np.float64(dy[n, c, p])
            sum_dy_centered += np.float64(dy[n, c, p] * (x[n, c, p] - mean[c]))
        sums[0, n, c] = sum_dy
        sums[1, n, c] = sum_dy_centered


@parallel
def _input_gradient(dy, x, mean, scale, shift, linear_coef, dx):
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        for p in range(S):
            centered = x[n, c, p] - mean[c]
            dx[n, c, p] = scale[c] * dy[n, c, p] - shift[c] - linear_coef[c] * centered


@serial
def _batch_norm_inference(x, gamma, beta, mean, variance, epsilon, y):
    scale = gamma / np.sqrt(variance + gamma.dtype.type(epsilon))
    _normalize(x, mean, scale, beta, y)


@serial
def _batch_norm(x, gamma, beta, epsilon, mean, variance, y):
    N, C, S = x.shape
    row_means, squared_deviations = np.empty((N, C)), np.empty((N, C))
    _moments(x, row_means, squared_deviations)
    _merge_moments(row_means, squared_deviations, S, mean, variance)
    _batch_norm_inference(x, gamma, beta, mean, variance, epsilon, y)


@serial
def _batch_norm_grad(dy, x, gamma, mean, variance, epsilon, dx, dgamma, dbeta):
    N, C, S = x.shape
    sums = np.empty((2, N, C))
    _gradient_sums(dy, x, mean, sums)
    scale, shift, linear_coef = np.empty_like(gamma), np.empty_like(gamma), np.empty_like(gamma)
    for c in range(C):
        sum_dy, sum_dy_centered = 0.0, 0.0
        for n in range(N):
            sum_dy += sums[0, n, c]
            sum_dy_centered += sums[1, n, c]
        inverse_std = 1 / math.sqrt(np.float64(variance[c]) + epsilon)
        factor = gamma[c] * inverse_std
        scale[c], shift[c] = factor, factor * sum_dy / (N * S)
        linear_coef[c] = factor * inverse_std**2 * sum_dy_centered / (N * S)
        dgamma[c], dbeta[c] = sum_dy_centered * inverse_std, sum_dy
    _input_gradient(dy, x, mean, scale, shift, linear_coef, dx)


def batch_norm(x, gamma, beta, epsilon):
    x, epsilon, (gamma, beta) = validation.check_batch_norm(x, epsilon, gamma=gamma, beta=beta)
    validation.check_batch(x)
    y, mean, variance = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    run_by_size(
        SWEEPS * x.size, _batch_norm, _rows(x), gamma, beta, epsilon, mean, variance, _rows(y)
    )
    return y, mean, variance


def batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out=None):
    dy, x, epsilon, (gamma, mean, variance) = validation.check_batch_norm_grad(
        dy, x, epsilon, out, gamma=gamma, mean=mean, variance=variance
    )
    dx, dgamma, dbeta = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    run_by_size(
        SWEEPS * x.size, _batch_norm_grad, _rows(dy), _rows(x), gamma, mean, variance, epsilon,
        _rows(dx), dgamma, dbeta,
    )  # fmt: skip
    return dx, dgamma, dbeta


@serial
def fold_kernel(b, gamma, beta, mean, variance, epsilon, scale, shift):
    for c in range(b.size):
        scale[c] = gamma[c] / math.sqrt(variance[c] + gamma.dtype.type(epsilon))
        shift[c] = (b[c] - mean[c]) * scale[c] + beta[c]


@serial
def update_running_stats_kernel(running_mean, running_variance, mean, variance, momentum):
    old = mean.dtype.type(momentum)
    new = mean.dtype.type(1 - momentum)
    for c in range(mean.size):
        running_mean[c] = old * running_mean[c] + new * mean[c]
        running_variance[c] = old * running_variance[c] + new * variance[c]


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    x, epsilon, (gamma, beta, mean, variance) = validation.check_batch_norm(
        x, epsilon, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    y = np.empty_like(x)
    run_by_size(
        x.size, _batch_norm_inference, _rows(x), gamma, beta, mean, variance, epsilon, _rows(y)
    )
    return y


def batch_norm_activation(x, gamma, beta, epsilon, activation):
    y, mean, variance = batch_norm(x, gamma, beta, epsilon)
    return activate(y, activation), mean, variance


def batch_norm_activation_grad(dy, x, gamma, beta, mean, variance, epsilon, activation, out=None):
    validation.check_batch_norm_grad(
        dy, x, epsilon, out, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    y = batch_norm_inference(x, gamma, beta, mean, variance, epsilon)
    dy = activate_grad(dy, y, activation)
    return batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out)


def batch_norm_activation_pool(x, gamma, beta, epsilon, activation, pool_size):
    y, mean, variance = batch_norm_activation(x, gamma, beta, epsilon, activation)
    y, index = max_pool(y, pool_size)
    return y, index, mean, variance


def batch_norm_activation_pool_grad(
    dy, x, index, gamma, beta, mean, variance, epsilon, activation, pool_size, out=None
):
    x = validation.check_images(x, "x")
    dy = max_pool_grad(dy, index, x.shape, pool_size)
    return batch_norm_activation_grad(dy, x, gamma, beta, mean, variance, epsilon, activation, out)


@parallel
def _dropout(x, uniform, rate, factor, mask, y):
    """mask = factor where the uniform numbers are at least the rate, else 0; y = x * mask."""
    rate = uniform.dtype.type(rate)
    for p in prange(x.size):
        mask[p] = factor if uniform[p] >= rate else 0
        y[p] = x[p] * mask[p]


def dropout(x, rate, rng):
    x, rate = validation.check_activations(x, "x"), validation.check_dropout(rate, rng)
    # The numbers of the numpy backend, so that a seed gives the same training on all backends.
    uniform = rng.random(x.size, dtype=np.float32)
    mask, y = np.empty_like(x), np.empty_like(x)
    run_by_size(
        x.size, _dropout, x.reshape(-1), uniform, rate, x.dtype.type(1 / (1 - rate)),
        mask.reshape(-1), y.reshape(-1),
    )  # fmt: skip
    return y, mask


def dropout_grad(dy, mask):
    dy, mask = validation.check_same_shape(dy, mask, "mask")
    dx = np.empty_like(dy)
    run_by_size(dy.size, multiply_kernel, dy.reshape(-1), mask.reshape(-1), dx.reshape(-1))
    return dx
