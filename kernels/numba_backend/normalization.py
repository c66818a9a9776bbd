"""Batch normalisation, dropout, and the normalisation of images at the model's door.

Every kernel sees its input as (N, C, S): S pixels of a channel lie together, one for rows.
"""

import math

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.activations import leaky_relu, leaky_relu_grad
from kernels.numba_backend.pooling import max_pool, max_pool_grad
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activation_kernels import multiply_kernel
from kernels.numpy_backend.normalization import dropout_mask


def _rows(x):
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


@parallel
def _moments(x, mean, deviation):
    """Mean and summed squared deviation of each row of S pixels, in float64."""
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        pixels = x[n, c]
        total = 0.0
        for p in range(S):
            total += np.float64(pixels[p])
        centre = total / S
        squares = 0.0
        for p in range(S):
            squares += (np.float64(pixels[p]) - centre) ** 2
        mean[n, c] = centre
        deviation[n, c] = squares


@parallel
def _normalize(x, mean, scale, shift, y):
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        for p in range(S):
            y[n, c, p] = (x[n, c, p] - mean[c]) * scale[c] + shift[c]


@parallel
def _gradient_sums(dy, x, mean, sums):
    """Sums of dy and of dy * (x - mean) over each row, in float64: sums (2, N, C)."""
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        plain, weighted = 0.0, 0.0
        for p in range(S):
            plain += np.float64(dy[n, c, p])
            weighted += np.float64(dy[n, c, p] * (x[n, c, p] - mean[c]))
        sums[0, n, c] = plain
        sums[1, n, c] = weighted


@parallel
def _input_gradient(dy, x, mean, a, b, d, dx):
    N, C, S = x.shape
    for row in prange(N * C):
        n, c = row // C, row % C
        for p in range(S):
            dx[n, c, p] = a[c] * dy[n, c, p] - b[c] - d[c] * (x[n, c, p] - mean[c])


def batch_norm(x, gamma, beta, epsilon):
    x, epsilon = (
        validation.check_batch(validation.check_activations(x, "x")),
        validation.check_epsilon(epsilon),
    )
    gamma, beta = validation.check_channel_vectors(x, gamma=gamma, beta=beta)
    row_mean, deviation = np.empty((2, *x.shape[:2]))
    _moments(_rows(x), row_mean, deviation)
    # Chan, Golub, LeVeque (1983): the deviations within the rows and those between them.
    mean = row_mean.mean(axis=0)
    between = np.square(row_mean - mean).mean(axis=0)
    variance = between + deviation.sum(axis=0) / (x.size // x.shape[1])
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
    sums = np.empty((2, *x.shape[:2]))
    _gradient_sums(_rows(dy), _rows(x), mean, sums)
    count = x.size // x.shape[1]
    inverse = 1 / np.sqrt(variance + np.float64(epsilon))
    dbeta, dgamma = sums.sum(axis=1)
    dgamma *= inverse
    a = gamma * inverse
    b = a * dbeta / count
    d = a * dgamma * inverse / count
    dx = np.empty_like(x)
    _input_gradient(_rows(dy), _rows(x), mean, *(v.astype(x.dtype) for v in (a, b, d)), _rows(dx))
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


@serial
def fold_kernel(b, gamma, beta, mean, variance, epsilon, scale, shift):
    for c in range(b.size):
        scale[c] = gamma[c] / math.sqrt(variance[c] + gamma.dtype.type(epsilon))
        shift[c] = (b[c] - mean[c]) * scale[c] + beta[c]


@serial
def update_running_stats_kernel(running_mean, running_variance, mean, variance, momentum):
    keep = mean.dtype.type(momentum)
    take = mean.dtype.type(1 - momentum)
    for c in range(mean.size):
        running_mean[c] = keep * running_mean[c] + take * mean[c]
        running_variance[c] = keep * running_variance[c] + take * variance[c]


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    x, epsilon = validation.check_activations(x, "x"), validation.check_epsilon(epsilon)
    gamma, beta, mean, variance = validation.check_channel_vectors(
        x, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    scale = gamma / np.sqrt(variance + x.dtype.type(epsilon))
    y = np.empty_like(x)
    _normalize(_rows(x), mean, scale, beta, _rows(y))
    return y


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


def dropout(x, rate, rng):
    x, rate = validation.check_activations(x, "x"), validation.check_dropout(rate, rng)
    # The same random numbers as the reference's, so that the backends train alike.
    mask = dropout_mask(x.shape, x.dtype, rate, rng)
    return dropout_grad(x, mask), mask


def dropout_grad(dy, mask):
    dy, mask = validation.check_same_shape(dy, mask)
    dx = np.empty_like(dy)
    multiply_kernel(dy.reshape(-1), mask.reshape(-1), dx.reshape(-1))
    return dx


@parallel
def _load(images, mean, std, out):
    N, C, H, W = images.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        scale = mean.dtype.type(1) / std[c]
        for i in range(H):
            for j in range(W):
                out[n, c, i, j] = (images[n, c, i, j] - mean[c]) * scale


def normalize_images(images, mean, std):
    out = np.empty(images.shape, mean.dtype)
    launch(_load, images, mean, std, out)
    return out
