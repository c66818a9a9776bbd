"""Batch normalisation with the images in the lanes."""

import numpy as np
from numba import prange

from kernels.numba_backend.jit import parallel, serial
from kernels.numba_backend.lanes.layout import Lanes


@parallel
def _moments(x, N, mean, deviation):
    """x (B, C, S, L): mean and summed squared deviation of each plane's images, in float64."""
    B, C, S, L = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        images = min(L, N - b * L)
        plane = x[b, c]
        total, squares = 0.0, 0.0
        if images == L:
            run = plane.reshape(S * L)
            for p in range(S * L):
                total += np.float64(run[p])
            centre = total / (S * L)
            for p in range(S * L):
                squares += (np.float64(run[p]) - centre) ** 2
        else:
            for s in range(S):
                for lane in range(images):
                    total += np.float64(plane[s, lane])
            centre = total / (S * images)
            for s in range(S):
                for lane in range(images):
                    squares += (np.float64(plane[s, lane]) - centre) ** 2
        mean[b, c] = centre
        deviation[b, c] = squares


@serial
def _combine(means, deviations, N, L, S, mean, variance):
    """Join the planes of each channel: Chan, Golub, LeVeque (1983)."""
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
def _normalize(x, mean, scale, shift, y):
    B, C, run = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        for p in range(run):
            y[b, c, p] = (x[b, c, p] - mean[c]) * scale[c] + shift[c]


@parallel
def _gradient_sums(dy, x, mean, sums):
    """Sums of dy and of dy * (x - mean) over each plane: sums (2, B, C). Empty lanes hold 0."""
    B, C, run = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        plain, weighted = 0.0, 0.0
        for p in range(run):
            plain += np.float64(dy[b, c, p])
            weighted += np.float64(dy[b, c, p] * (x[b, c, p] - mean[c]))
        sums[0, b, c] = plain
        sums[1, b, c] = weighted


@parallel
def _input_gradient(dy, x, mean, a, b_, d, N, dx):
    """dx = a * dy - b - d * (x - mean); empty lanes become 0 again."""
    B, C, S, L = x.shape
    for task in prange(B * C):
        b, c = task // C, task % C
        to, sent, plane = dx[b, c].reshape(S * L), dy[b, c].reshape(S * L), x[b, c].reshape(S * L)
        for p in range(S * L):
            to[p] = a[c] * sent[p] - b_[c] - d[c] * (plane[p] - mean[c])
        for s in range(S):
            for lane in range(min(L, N - b * L), L):
                to[s * L + lane] = 0


def _planes(x: Lanes):
    return x.data.reshape(*x.data.shape[:2], -1, x.lanes)


def batch_norm(x: Lanes, gamma, beta, epsilon):
    B, C = x.data.shape[:2]
    planes = _planes(x)
    means, deviations = np.empty((2, B, C))
    mean, variance = np.empty((2, C), x.dtype)
    _moments(planes, x.shape[0], means, deviations)
    _combine(means, deviations, x.shape[0], x.lanes, planes.shape[2], mean, variance)
    return batch_norm_inference(x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_inference(x: Lanes, gamma, beta, mean, variance, epsilon) -> Lanes:
    y = x.like()
    scale = gamma / np.sqrt(variance + x.dtype.type(epsilon))
    _normalize(x.runs, mean, scale, beta, y.runs)
    return y


def batch_norm_grad(dy: Lanes, x: Lanes, gamma, mean, variance, epsilon):
    B, C = x.data.shape[:2]
    planes = _planes(x)
    sums = np.empty((2, B, C))
    _gradient_sums(dy.runs, x.runs, mean, sums)
    dbeta, dgamma = sums.sum(axis=1)
    inverse = 1 / np.sqrt(variance + np.float64(epsilon))
    dgamma *= inverse
    count = x.shape[0] * planes.shape[2]
    a = gamma * inverse
    b, d = a * dbeta / count, a * dgamma * inverse / count
    dx = x.like()
    a, b, d = (v.astype(x.dtype) for v in (a, b, d))
    _input_gradient(_planes(dy), planes, mean, a, b, d, x.shape[0], _planes(dx))
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)
