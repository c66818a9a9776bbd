"""The fully connected layer with the images in the lanes."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.numba_backend.jit import parallel
from kernels.numba_backend.lanes.convolution import channel_sums
from kernels.numba_backend.lanes.layout import Lanes
from kernels.numba_backend.lanes.memory import empty
from kernels.numba_backend.lanes.sums import sum_kernel, sum_tile_shape


@lru_cache(maxsize=256)
def _terms(count: int, step: int) -> np.ndarray:
    return np.arange(count) * step


def _product(x: Lanes, w, w_step: int, w_terms: np.ndarray, b, units: int) -> Lanes:
    """Return y[u] = b[u] + sum over t of w[u * w_step + w_terms[t]] * x[t]; columns are blocks."""
    B, K, L = x.data.shape
    y = x.like(units)
    sum_kernel(*sum_tile_shape(units, B), L)(
        x.data.reshape(-1),
        (0, 0, 0, K * L),
        _terms(K, L),
        w.reshape(-1),
        (0, w_step),
        w_terms,
        b,
        y.data.reshape(-1),
        (0, 0, 0, L, units * L),
        1,
        1,
        1,
        units,
        B,
    )
    return y


def dense(x: Lanes, w, b) -> Lanes:
    features, units = w.shape
    return _product(x, w, 1, _terms(features, units), b, units)


def input_gradient(dy: Lanes, w) -> Lanes:
    features, units = w.shape
    return _product(dy, w, units, _terms(units, 1), np.zeros(features, dy.dtype), features)


@parallel
def _rows(x, out):
    """x (B, K, L), out (N, K rounded up): a row for each image, zeros behind."""
    _, K, L = x.shape
    for n in prange(len(out)):
        for k in range(K):
            out[n, k] = x[n // L, k, n % L]
        out[n, K:] = 0


def weight_gradient(dy: Lanes, x: Lanes) -> np.ndarray:
    """Return dw (features, units): here the units are in the lanes, and the images are terms."""
    (N, units), L, features = dy.shape, dy.lanes, x.shape[1]
    vectors = -(-units // L)
    sent = empty((N, vectors * L), dy.dtype)
    _rows(dy.data, sent)
    out = empty((features, vectors * L), dy.dtype)
    sum_kernel(*sum_tile_shape(features, vectors), L)(
        sent.reshape(-1),
        (0, 0, 0, L),
        _terms(N, vectors * L),
        x.data.reshape(-1),
        (0, L),
        _image_terms(N, features, L),
        np.zeros(features, dy.dtype),
        out.reshape(-1),
        (0, 0, 0, vectors * L, L),
        1,
        1,
        1,
        features,
        vectors,
    )
    return out[:, :units]


@lru_cache(maxsize=256)
def _image_terms(N: int, features: int, lanes: int) -> np.ndarray:
    """Return where the first feature of each image stands."""
    n = np.arange(N)
    return n // lanes * features * lanes + n % lanes


def dense_grad(dy: Lanes, x: Lanes, w, need_dx: bool):
    dx = input_gradient(dy, w) if need_dx else None
    return dx, weight_gradient(dy, x), channel_sums(dy)
