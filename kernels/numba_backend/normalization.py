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
from kernels.numpy_backend.normalization import dropout_mask


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


def batch_norm(x, gamma, beta, epsilon):
    x, epsilon, (gamma, beta) = validation.check_batch_norm(x, epsilon, gamma=gamma, beta=beta)
    validation.check_batch(x)
    row_means, squared_deviations = np.empty((2, *x.shape[:2]))
    _moments(_rows(x), row_means, squared_deviations)
    # Chan, Golub, LeVeque (1983): the deviations within the rows and those between them.
    mean = row_means.mean(axis=0)
    between = np.square(row_means - mean).mean(axis=0)
    variance = between + squared_deviations.sum(axis=0) / (x.size // x.shape[1])
    mean, variance = mean.astype(x.dtype), variance.astype(x.dtype)
    return batch_norm_inference(x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out=None):
    dy, x, epsilon, (gamma, mean, variance) = validation.check_batch_norm_grad(
        dy, x, epsilon, out, gamma=gamma, mean=mean, variance=variance
    )
    sums = np.empty((2, *x.shape[:2]))
    _gradient_sums(_rows(dy), _rows(x), mean, sums)
    count = x.size // x.shape[1]
    inverse = 1 / np.sqrt(variance + np.float64(epsilon))
    dbeta, dgamma = sums.sum(axis=1)
    dgamma *= inverse
    scale = gamma * inverse
    shift = scale * dbeta / count
    linear_coef = scale * dgamma * inverse / count
    coefficients = (v.astype(x.dtype) for v in (scale, shift, linear_coef))
    dx = np.empty_like(x)
    _input_gradient(_rows(dy), _rows(x), mean, *coefficients, _rows(dx))
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


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
    scale = gamma / np.sqrt(variance + x.dtype.type(epsilon))
    y = np.empty_like(x)
    _normalize(_rows(x), mean, scale, beta, _rows(y))
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


def dropout(x, rate, rng):
    x, rate = validation.check_activations(x, "x"), validation.check_dropout(rate, rng)
    # The mask of the numpy backend, so that a seed gives the same training on all backends.
    mask = dropout_mask(x.shape, x.dtype, rate, rng)
    return dropout_grad(x, mask), mask


def dropout_grad(dy, mask):
    dy, mask = validation.check_same_shape(dy, mask, "mask")
    dx = np.empty_like(dy)
    multiply_kernel(dy.reshape(-1), mask.reshape(-1), dx.reshape(-1))
    return dx
