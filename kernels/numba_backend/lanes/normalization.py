"""Batch normalisation, with the activation behind it, with the images in the lanes.

All kernels take the slope of a leaky ReLU: 1 is no activation at all, 0 the plain ReLU.
"""

import math
from functools import lru_cache

import numpy as np
from numba import prange

from kernels.numba_backend.jit import parallel, serial
from kernels.numba_backend.lanes.layout import Lanes


@lru_cache(maxsize=64)
def _mask(S: int, L: int, images: int, dtype: np.dtype) -> np.ndarray:
    """Return 1 for the lanes of a plane that hold images and 0 for the empty ones, as one run."""
    return np.tile(np.arange(L) < images, S).astype(dtype)


@serial
def _sums(run, mask, centre):
    """Return the sums of x - centre and of its square over the lanes that hold images."""
    total, squares = 0.0, 0.0
    if mask.size == 0:
        for p in range(run.size):
            away = run[p] - centre
            total += away
            squares += away * away
    else:
        for p in range(run.size):
            away = (run[p] - centre) * mask[p]
            total += away
            squares += away * away
    return total, squares


@parallel
def _moments(x, N, mask, means, deviations):
    """x (B, C, S, L): mean and summed squared deviation of each plane's images, in float64."""
    B, C, S, L = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        images = min(L, N - b * L)
        run, used = x[b, c].reshape(S * L), mask if images < L else mask[:0]
        total, _ = _sums(run, used, 0.0)
        centre = total / (S * images)
        _, squares = _sums(run, used, centre)
        means[b, c] = centre
        deviations[b, c] = squares


@serial
def _join(means, deviations, N, S, L, mean, variance):
    """Join the moments of each channel's planes: Chan, Golub, LeVeque (1983)."""
    B, C = means.shape
    for c in range(C):
        centre = 0.0
        for b in range(B):
            centre += means[b, c] * min(L, N - b * L)
        centre /= N
        total = 0.0
        for b in range(B):
            total += deviations[b, c] + S * min(L, N - b * L) * (means[b, c] - centre) ** 2
        mean[c] = centre
        variance[c] = total / (N * S)


@parallel
def _normalize(x, mean, variance, gamma, beta, epsilon, slope, y):
    B, C, run = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        scale = gamma[c] / math.sqrt(variance[c] + epsilon)
        for p in range(run):
            value = (x[b, c, p] - mean[c]) * scale + beta[c]
            y[b, c, p] = value if value > 0 else value * slope


@parallel
def _gradient_sums(dy, x, mean, variance, gamma, beta, epsilon, slope, sums):
    """Sums of g and of g * (x - mean) over each plane: sums (2, B, C). Empty lanes hold 0.

    g is dy before the activation: what stands there is computed again from x.
    """
    B, C, run = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        scale = gamma[c] / math.sqrt(variance[c] + epsilon)
        plain, weighted = 0.0, 0.0
        for p in range(run):
            away = x[b, c, p] - mean[c]
            g = dy[b, c, p] if away * scale + beta[c] > 0 else dy[b, c, p] * slope
            plain += np.float64(g)
            weighted += np.float64(g * away)
        sums[0, b, c] = plain
        sums[1, b, c] = weighted


@parallel
def _input_gradient(dy, x, N, mean, variance, gamma, beta, epsilon, slope, sums, dgamma, dbeta, dx):
    """dx = scale * (g - mean of g - x_hat * mean of g * x_hat); empty lanes become 0 again."""
    B, C, S, L = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        plain, weighted = 0.0, 0.0
        for block in range(B):
            plain += sums[0, block, c]
            weighted += sums[1, block, c]
        inverse = 1 / math.sqrt(np.float64(variance[c]) + epsilon)
        if b == 0:
            dgamma[c] = weighted * inverse
            dbeta[c] = plain
        scale = gamma[c] / math.sqrt(variance[c] + epsilon)
        constant = x.dtype.type(gamma[c] * inverse * plain / (N * S))
        linear = x.dtype.type(gamma[c] * inverse**3 * weighted / (N * S))
        to, sent, plane = dx[b, c].reshape(S * L), dy[b, c].reshape(S * L), x[b, c].reshape(S * L)
        for p in range(S * L):
            away = plane[p] - mean[c]
            g = sent[p] if away * scale + beta[c] > 0 else sent[p] * slope
            to[p] = scale * g - constant - linear * away
        for s in range(S):
            for lane in range(min(L, N - b * L), L):
                to[s * L + lane] = 0


def _planes(x: Lanes):
    return x.data.reshape(*x.data.shape[:2], -1, x.lanes)


def batch_norm_relu(x: Lanes, gamma, beta, epsilon, slope):
    planes = _planes(x)
    B, C, S, L = planes.shape
    N = x.shape[0]
    moments = np.empty((2, B, C))
    mean, variance = np.empty(C, x.dtype), np.empty(C, x.dtype)
    _moments(planes, N, _mask(S, L, N % L, x.dtype), moments[0], moments[1])
    _join(moments[0], moments[1], N, S, L, mean, variance)
    y = batch_norm_relu_inference(x, gamma, beta, mean, variance, epsilon, slope)
    return y, mean, variance


def batch_norm_relu_inference(x: Lanes, gamma, beta, mean, variance, epsilon, slope) -> Lanes:
    y = x.like()
    real = x.dtype.type
    _normalize(x.runs, mean, variance, gamma, beta, real(epsilon), real(slope), y.runs)
    return y


def batch_norm_relu_grad(dy: Lanes, x: Lanes, gamma, beta, mean, variance, epsilon, slope):
    B, C = x.data.shape[:2]
    real = x.dtype.type
    epsilon, slope = real(epsilon), real(slope)
    sums = np.empty((2, B, C))
    _gradient_sums(dy.runs, x.runs, mean, variance, gamma, beta, epsilon, slope, sums)
    dgamma, dbeta = np.empty(C, x.dtype), np.empty(C, x.dtype)
    dx = x.like()
    _input_gradient(
        _planes(dy),
        _planes(x),
        x.shape[0],
        mean,
        variance,
        gamma,
        beta,
        epsilon,
        slope,
        sums,
        dgamma,
        dbeta,
        _planes(dx),
    )
    return dx, dgamma, dbeta


def batch_norm(x: Lanes, gamma, beta, epsilon):
    return batch_norm_relu(x, gamma, beta, epsilon, 1)


def batch_norm_inference(x: Lanes, gamma, beta, mean, variance, epsilon) -> Lanes:
    return batch_norm_relu_inference(x, gamma, beta, mean, variance, epsilon, 1)


def batch_norm_grad(dy: Lanes, x: Lanes, gamma, mean, variance, epsilon):
    return batch_norm_relu_grad(dy, x, gamma, gamma, mean, variance, epsilon, 1)
