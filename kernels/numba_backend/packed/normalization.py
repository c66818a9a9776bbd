"""Batch normalisation with the activation and the pooling behind it, images in the lanes.

Activations are large and a normalisation does little with each: time goes into reading and
writing them. So the activation, and a max pooling if one follows, run in the same sweep, and what
would stand between them is never written. All kernels take the slope of a leaky ReLU: 1 is no
activation at all, 0 the plain ReLU. The pixels of a plane are S vectors of L images.
"""

import math
from functools import lru_cache

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.pooling import is_new_max, taps_of
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.tiled_matmul import CHUNK
from kernels.numba_backend.simd.vectors import (
    load,
    load_like,
    reduce_sum,
    splat,
    splat_like,
    store,
    where,
)

# A channel's planes are summed by one task, or, where channels are few, by several: how many does
# not depend on the threads, and so no bit does.
MIN_TASKS = 32


@lru_cache(maxsize=64)
def masks(B: int, N: int, L: int, dtype: np.dtype) -> np.ndarray:
    """Return 1 for each lane of each block that holds an image, and 0 for the empty ones."""
    return (np.arange(B * L) < N).astype(dtype)


@inlined
def _sum(x, at, count, step, mask):
    """Return the sum of some vectors' images."""
    one = splat(x.dtype.type(0))
    two = one  # one sum alone would wait four cycles for each addition
    for p in range(0, count - 1, 2):
        one += load(x, at + p * step)
        two += load(x, at + (p + 1) * step)
    if count % 2:
        one += load(x, at + (count - 1) * step)
    return np.float64(reduce_sum(where(mask, one + two, splat(x.dtype.type(0)))))


@inlined
def _deviations(x, at, count, step, mask, centre):
    """Return the sums of the deviations of some vectors' images from a centre, and of squares."""
    nothing, middle = splat(x.dtype.type(0)), splat(centre)
    one, two, one_squared, two_squared = nothing, nothing, nothing, nothing
    for p in range(0, count - 1, 2):
        away = load(x, at + p * step) - middle
        one += away
        one_squared += away * away
        away = load(x, at + (p + 1) * step) - middle
        two += away
        two_squared += away * away
    if count % 2:
        away = load(x, at + (count - 1) * step) - middle
        one += away
        one_squared += away * away
    plain, squares = (
        where(mask, one + two, nothing),
        where(mask, one_squared + two_squared, nothing),
    )
    return np.float64(reduce_sum(plain)), np.float64(reduce_sum(squares))


@inlined
def _part_sums(x, c, first, last, N, masks, centre):
    """Return sums over one channel of some blocks of x (B, C, S, L).

    Those of the deviations from a centre and of their squares, or of x alone where it is None.
    """
    _, C, S, L = x.shape
    flat = x.reshape(-1)
    plain, squares = 0.0, 0.0
    # Rows (S = 1) have a vector a block: those of all whole blocks make one run.
    whole = min(last, N // L) if S == 1 else first
    runs = last - whole + (whole > first)
    for run in range(runs):
        b = whole + run - (whole > first)
        length, step = S, L
        if b < whole:
            b, length, step = first, whole - first, C * L
        mask = load(masks, b * L) > splat(x.dtype.type(0))
        for s in range(0, length, CHUNK):
            at, count = (b * C + c) * S * L + s * step, min(CHUNK, length - s)
            if centre is None:
                plain += _sum(flat, at, count, step, mask)
            else:
                more, more_squares = _deviations(flat, at, count, step, mask, centre)
                plain += more
                squares += more_squares
    return plain, squares


@parallel
def _moments(x, N, masks, means, deviations):
    """x (B, C, S, L): mean and summed squared deviation of each part of a channel, (parts, C).

    The centre is a mean that float32 sums have rounded. What is left of it in the deviations is
    taken out: the corrected two-pass algorithm of Chan, Golub, LeVeque (1983). Without it, a
    constant channel of 1000.1 had a variance.
    """
    B, C, S, L = x.shape
    parts = len(means)
    for task in prange(parts * C):
        part, c = task // C, task % C
        first, last = part * B // parts, (part + 1) * B // parts
        count = S * (min(last * L, N) - first * L)
        centre = x.dtype.type(_part_sums(x, c, first, last, N, masks, None)[0] / count)
        plain, squares = _part_sums(x, c, first, last, N, masks, centre)
        means[part, c] = centre + plain / count
        deviations[part, c] = max(squares - plain * plain / count, 0.0)


@serial
def _join(means, deviations, B, N, S, L, mean, variance):
    """Join the moments of each channel's parts: Chan, Golub, LeVeque (1983)."""
    parts, C = means.shape
    for c in range(C):
        centre, squares, count = means[0, c], deviations[0, c], S * min(B // parts * L, N)
        for part in range(1, parts):
            more = S * (min((part + 1) * B // parts * L, N) - part * B // parts * L)
            gap = means[part, c] - centre
            count += more
            centre += gap * more / count
            squares += deviations[part, c] + gap * gap * more * (count - more) / count
        mean[c] = centre
        variance[c] = squares / count


@serial
def _scales(gamma, variance, epsilon):
    """Return what each channel's deviation is multiplied by."""
    scale = np.empty_like(gamma)
    for c in range(gamma.size):
        scale[c] = gamma[c] / math.sqrt(variance[c] + epsilon)
    return scale


@parallel
def _normalize(x, masks, mean, scale, beta, negative_slope, y):
    """Empty lanes become 0: else each normalisation would multiply what they hold."""
    B, C, S, L = x.shape
    flat, to = x.reshape(-1), y.reshape(-1)
    for task in prange(B * C):
        b, c = task // C, task % C
        centre, factor, shift, weak = (
            splat(mean[c]),
            splat(scale[c]),
            splat(beta[c]),
            splat(negative_slope),
        )
        nothing = splat(x.dtype.type(0))
        used = load(masks, b * L) > nothing
        for p in range(task * S * L, (task + 1) * S * L, L):
            value = (load(flat, p) - centre) * factor + shift
            value = where(value > nothing, value, value * weak)
            store(to, p, where(used, value, nothing))


@parallel
def _normalize_and_pool(x, size, masks, mean, scale, beta, negative_slope, y, taps, taken):
    """x (B * C, H, W, L): the largest activation of each window, its tap, and its x."""
    planes, H, W, L = x.shape
    OH, OW = y.shape[1:3]
    C, (KH, KW) = mean.size, size
    flat, to, to_taps, to_taken = x.reshape(-1), y.reshape(-1), taps.reshape(-1), taken.reshape(-1)
    number, real = taps.dtype.type, x.dtype.type
    for task in prange(planes):
        b, c = task // C, task % C
        centre, factor, shift, weak = (
            splat(mean[c]),
            splat(scale[c]),
            splat(beta[c]),
            splat(negative_slope),
        )
        nothing, lowest = splat(real(0)), splat(real(-np.inf))
        used = load(masks, b * L) > nothing
        for i in range(OH):
            for j in range(OW):
                at = (task * H + i * KH) * W + j * KW
                largest, chosen, tap = lowest, lowest, splat_like(number(0), lowest)
                for r in range(KH):
                    for q in range(KW):
                        pixel = load(flat, (at + r * W + q) * L)
                        value = (pixel - centre) * factor + shift
                        value = where(value > nothing, value, value * weak)
                        larger = is_new_max(value, largest)
                        largest = where(larger, value, largest)
                        chosen = where(larger, pixel, chosen)
                        tap = where(larger, splat_like(number(r * KW + q), lowest), tap)
                out = ((task * OH + i) * OW + j) * L
                store(to, out, where(used, largest, nothing))
                store(to_taps, out, tap)
                store(to_taken, out, where(used, chosen, nothing))


@parallel
def _gradient_sums(dy, x, mean, scale, beta, negative_slope, sums):
    """sums (2, parts, C): of g and of g * (x - mean) over each part. Empty lanes hold 0.

    g is dy before the activation: what stands there is computed again from x.
    """
    B, C, S, L = x.shape
    flat, sent = x.reshape(-1), dy.reshape(-1)
    parts = sums.shape[1]
    for task in prange(parts * C):
        part, c = task // C, task % C
        centre, factor, shift, weak = (
            splat(mean[c]),
            splat(scale[c]),
            splat(beta[c]),
            splat(negative_slope),
        )
        nothing = splat(x.dtype.type(0))
        plain, weighted = 0.0, 0.0
        first, last = part * B // parts, (part + 1) * B // parts
        # Rows (S = 1) have a vector a block, and those of all blocks make one run.
        runs, length, step = (1, last - first, C * L) if S == 1 else (last - first, S, L)
        for b in range(first, first + runs):
            for s in range(0, length, CHUNK):
                some, more = nothing, nothing
                start = (b * C + c) * S * L + s * step
                for p in range(start, start + min(CHUNK, length - s) * step, step):
                    away = load(flat, p) - centre
                    g = load(sent, p)
                    g = where(away * factor + shift > nothing, g, g * weak)
                    some += g
                    more += g * away
                plain += np.float64(reduce_sum(some))
                weighted += np.float64(reduce_sum(more))
        sums[0, part, c] = plain
        sums[1, part, c] = weighted


@serial
def _parameter_gradients(sums, count, gamma, variance, epsilon, dgamma, dbeta):
    """Write dgamma and dbeta; return what each channel's dx loses: constant, and per deviation."""
    constant, linear = np.empty_like(gamma), np.empty_like(gamma)
    for c in range(gamma.size):
        plain, weighted = 0.0, 0.0
        for part in range(sums.shape[1]):
            plain += sums[0, part, c]
            weighted += sums[1, part, c]
        inverse = 1 / math.sqrt(np.float64(variance[c]) + epsilon)
        dgamma[c] = weighted * inverse
        dbeta[c] = plain
        constant[c] = gamma[c] * inverse * plain / count
        linear[c] = gamma[c] * inverse**3 * weighted / count
    return constant, linear


@parallel
def _input_gradient(dy, x, masks, mean, scale, beta, negative_slope, constant, linear, dx):
    """dx = scale * g - constant - linear * (x - mean); empty lanes become 0 again."""
    B, C, S, L = x.shape
    flat, sent, to = x.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    for task in prange(B * C):
        b, c = task // C, task % C
        centre, factor, shift, weak = (
            splat(mean[c]),
            splat(scale[c]),
            splat(beta[c]),
            splat(negative_slope),
        )
        offset, tilt = splat(constant[c]), splat(linear[c])
        nothing = splat(x.dtype.type(0))
        used = load(masks, b * L) > nothing
        for p in range(task * S * L, (task + 1) * S * L, L):
            away = load(flat, p) - centre
            g = load(sent, p)
            g = where(away * factor + shift > nothing, g, g * weak)
            store(to, p, where(used, factor * g - offset - tilt * away, nothing))


@parallel
def _input_gradient_through_pool(
    dy, taps, size, x, masks, mean, scale, beta, negative_slope, constant, linear, dx
):
    """The same where dy stands behind a max pooling; x (B * C, H, W, L)."""
    planes, H, W, L = x.shape
    OH, OW = dy.shape[1:3]
    C, (KH, KW) = mean.size, size
    flat, sent, from_taps, to = x.reshape(-1), dy.reshape(-1), taps.reshape(-1), dx.reshape(-1)
    number = taps.dtype.type
    for task in prange(planes):
        b, c = task // C, task % C
        centre, factor, shift, weak = (
            splat(mean[c]),
            splat(scale[c]),
            splat(beta[c]),
            splat(negative_slope),
        )
        offset, tilt = splat(constant[c]), splat(linear[c])
        nothing = splat(x.dtype.type(0))
        used = load(masks, b * L) > nothing
        for i in range(OH):
            for j in range(OW):
                out = ((task * OH + i) * OW + j) * L
                strong = load(sent, out)
                faint = strong * weak
                tap = load_like(from_taps, out, strong)
                for r in range(KH):
                    for q in range(KW):
                        at = ((task * H + i * KH + r) * W + j * KW + q) * L
                        away = load(flat, at) - centre
                        g = where(away * factor + shift > nothing, strong, faint)
                        here = tap == splat_like(number(r * KW + q), strong)
                        g = where(here, g, nothing)
                        store(to, at, where(used, factor * g - offset - tilt * away, nothing))
        # What the windows leave at the bottom and at the right took no part in the pooling.
        for i in range(H):
            for j in range(OW * KW if i < OH * KH else 0, W):
                at = ((task * H + i) * W + j) * L
                away = load(flat, at) - centre
                store(to, at, where(used, nothing - offset - tilt * away, nothing))


@serial
def _forward(x, N, masks, gamma, beta, epsilon, negative_slope, moments, mean, variance, y):
    _moments(x, N, masks, moments[0], moments[1])
    _join(moments[0], moments[1], len(x), N, x.shape[2], x.shape[3], mean, variance)
    _normalize(x, masks, mean, _scales(gamma, variance, epsilon), beta, negative_slope, y)


@serial
def _inference(x, masks, gamma, beta, mean, variance, epsilon, negative_slope, y):
    _normalize(x, masks, mean, _scales(gamma, variance, epsilon), beta, negative_slope, y)


@serial
def _backward(
    dy, x, N, masks, gamma, beta, mean, variance, epsilon, negative_slope, sums, dgamma, dbeta, dx
):
    scale = _scales(gamma, variance, epsilon)
    _gradient_sums(dy, x, mean, scale, beta, negative_slope, sums)
    constant, linear = _parameter_gradients(
        sums, N * x.shape[2], gamma, variance, epsilon, dgamma, dbeta
    )
    _input_gradient(dy, x, masks, mean, scale, beta, negative_slope, constant, linear, dx)


@serial
def _forward_pool(
    x,
    image,
    N,
    masks,
    size,
    gamma,
    beta,
    epsilon,
    negative_slope,
    moments,
    mean,
    variance,
    y,
    taps,
    taken,
):
    _moments(x, N, masks, moments[0], moments[1])
    _join(moments[0], moments[1], len(x), N, x.shape[2], x.shape[3], mean, variance)
    scale = _scales(gamma, variance, epsilon)
    _normalize_and_pool(image, size, masks, mean, scale, beta, negative_slope, y, taps, taken)


@serial
def _backward_pool(
    dy, image_dy, taken, taps, size, x, N, masks, gamma, beta, mean, variance, epsilon, negative_slope,
    sums, dgamma, dbeta, dx,
):  # fmt: skip
    scale = _scales(gamma, variance, epsilon)
    _gradient_sums(dy, taken, mean, scale, beta, negative_slope, sums)
    count = N * x.shape[1] * x.shape[2]
    constant, linear = _parameter_gradients(sums, count, gamma, variance, epsilon, dgamma, dbeta)
    _input_gradient_through_pool(
        image_dy, taps, size, x, masks, mean, scale, beta, negative_slope, constant, linear, dx
    )


def _sums_of(x: PackedBatch) -> np.ndarray:
    """Return room for two sums of each part of each channel."""
    B, C = x.data.shape[:2]
    return np.empty((2, min(B, -(-MIN_TASKS // C)), C))


def _masks_of(x: PackedBatch) -> np.ndarray:
    return masks(len(x.data), x.shape[0], x.lanes, x.dtype)


def batch_norm_relu(x: PackedBatch, gamma, beta, epsilon, negative_slope):
    mean, variance, y = np.empty_like(gamma), np.empty_like(gamma), x.like()
    real = x.dtype.type
    launch(
        _forward, x.planes, x.shape[0], _masks_of(x), gamma, beta, real(epsilon), real(negative_slope),
        _sums_of(x), mean, variance, y.planes,
    )  # fmt: skip
    return y, mean, variance


def batch_norm_relu_inference(
    x: PackedBatch, gamma, beta, mean, variance, epsilon, negative_slope
) -> PackedBatch:
    y, real = x.like(), x.dtype.type
    launch(
        _inference, x.planes, _masks_of(x), gamma, beta, mean, variance, real(epsilon),
        real(negative_slope), y.planes,
    )  # fmt: skip
    return y


def batch_norm_relu_grad(
    dy: PackedBatch, x: PackedBatch, gamma, beta, mean, variance, epsilon, negative_slope, out=None
):
    dgamma, dbeta = allocate_outputs(out, (gamma.shape, gamma.shape), x.dtype)
    dx, real = x.like(), x.dtype.type
    launch(
        _backward, dy.planes, x.planes, x.shape[0], _masks_of(x), gamma, beta, mean, variance,
        real(epsilon), real(negative_slope), _sums_of(x), dgamma, dbeta, dx.planes,
    )  # fmt: skip
    return dx, dgamma, dbeta


def batch_norm_relu_pool(x: PackedBatch, gamma, beta, epsilon, negative_slope, window: Window):
    mean, variance = np.empty_like(gamma), np.empty_like(gamma)
    y = x.like(x.shape[1], *window.output)
    taps, taken, real = taps_of(y, window), y.like(), x.dtype.type
    launch(
        _forward_pool, x.planes, x.images, x.shape[0], _masks_of(x), window.size, gamma, beta,
        real(epsilon), real(negative_slope), _sums_of(x), mean, variance, y.images, taps, taken.data,
    )  # fmt: skip
    return y, (taps, taken), mean, variance


def batch_norm_relu_pool_grad(
    dy: PackedBatch,
    x: PackedBatch,
    taken,
    gamma,
    beta,
    mean,
    variance,
    epsilon,
    negative_slope,
    window: Window,
    out=None,
):
    dgamma, dbeta = allocate_outputs(out, (gamma.shape, gamma.shape), x.dtype)
    taps, largest = taken
    dx, real = x.like(), x.dtype.type
    launch(
        _backward_pool, dy.planes, dy.images, largest.planes, taps, window.size, x.images,
        x.shape[0], _masks_of(x), gamma, beta, mean, variance, real(epsilon), real(negative_slope),
        _sums_of(x), dgamma, dbeta, dx.images,
    )  # fmt: skip
    return dx, dgamma, dbeta
