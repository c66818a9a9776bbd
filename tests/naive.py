"""Naive versions of the kernels, which compute one number at a time and are obviously correct."""

import itertools

import numpy as np


def padded(x, padding, value=0.0):
    return np.pad(x, ((0, 0), (0, 0), *padding), constant_values=value)


def taps(window):
    """Yield each output pixel (i, j) and tap (k, m), and their pixel (p, q) of the padded image."""
    (OH, OW), (KH, KW) = window.output, window.size
    (sh, sw), (dh, dw) = window.stride, window.dilation
    for i, j, k, m in itertools.product(range(OH), range(OW), range(KH), range(KW)):
        yield i, j, k, m, i * sh + k * dh, j * sw + m * dw


def correlate(x, w, b, window, groups):
    N, C = x.shape[:2]
    F = len(w)
    xp = padded(x, window.padding)
    y = np.zeros((N, F, *window.output), x.dtype)
    for n, f in itertools.product(range(N), range(F)):
        y[n, f] = b[f]
        for i, j, k, m, p, q in taps(window):
            for c in range(C // groups):
                y[n, f, i, j] += w[f, c, k, m] * xp[n, f // (F // groups) * (C // groups) + c, p, q]
    return y


def correlate_grad(dy, x, w, window, groups):
    (N, C), F = x.shape[:2], len(w)
    xp = padded(x, window.padding)
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for n, f in itertools.product(range(N), range(F)):
        for i, j, k, m, p, q in taps(window):
            for c in range(C // groups):
                channel = f // (F // groups) * (C // groups) + c
                dxp[n, channel, p, q] += w[f, c, k, m] * dy[n, f, i, j]
                dw[f, c, k, m] += xp[n, channel, p, q] * dy[n, f, i, j]
    (top, _), (left, _) = window.padding
    H, W = window.image
    return dxp[:, :, top : top + H, left : left + W], dw, dy.sum(axis=(0, 2, 3))


def im2col(x, window):
    N, C = x.shape[:2]
    xp = padded(x, window.padding)
    cols = np.zeros((N, C, *window.size, *window.output), x.dtype)
    for i, j, k, m, p, q in taps(window):
        cols[:, :, k, m, i, j] = xp[:, :, p, q]
    return cols.reshape(N, C * window.size[0] * window.size[1], -1)


def _pixels(x, window, n, c, i, j):
    """Yield the position of each pixel of the image under the window of output (i, j)."""
    (top, _), (left, _) = window.padding
    for a, b, _, _, p, q in taps(window):
        if (a, b) == (i, j) and 0 <= p - top < x.shape[2] and 0 <= q - left < x.shape[3]:
            yield p - top, q - left


def max_pool(x, window):
    N, C, _, W = x.shape
    y = np.zeros((N, C, *window.output), x.dtype)
    index = np.zeros(y.shape, np.int32)
    for n, c, i, j in np.ndindex(*y.shape):
        best = None
        for p, q in _pixels(x, window, n, c, i, j):
            if best is None or x[n, c, p, q] > x[n, c, best[0], best[1]]:
                best = p, q
        y[n, c, i, j] = x[n, c, best[0], best[1]]
        index[n, c, i, j] = best[0] * W + best[1]
    return y, index


def avg_pool(x, window):
    y = np.zeros((*x.shape[:2], *window.output), x.dtype)
    for n, c, i, j in np.ndindex(*y.shape):
        y[n, c, i, j] = np.mean([x[n, c, p, q] for p, q in _pixels(x, window, n, c, i, j)])
    return y


def avg_pool_grad(dy, x, window):
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*dy.shape):
        pixels = list(_pixels(x, window, n, c, i, j))
        for p, q in pixels:
            dx[n, c, p, q] += dy[n, c, i, j] / len(pixels)
    return dx


def _reflected(position, length):
    while not 0 <= position < length:
        position = -position if position < 0 else 2 * (length - 1) - position
    return position


def augment_images(images, mirrored, shifts, colors, boxes, fill, low, high):
    out = np.empty(images.shape)
    C, H, W = images.shape[1:]
    for n, c, i, j in np.ndindex(*images.shape):
        image = images[n, :, :, ::-1] if mirrored[n] else images[n]
        row, column = _reflected(i + shifts[n, 0], H), _reflected(j + shifts[n, 1], W)
        pixel = sum(colors[n, c, d] * float(image[d, row, column]) for d in range(C))
        out[n, c, i, j] = min(max(pixel + colors[n, c, C], low), high)
        top, left, bottom, right = boxes[n]
        if top <= i < bottom and left <= j < right:
            out[n, c, i, j] = min(max(fill[c], low), high)
    return np.floor(out + 0.5) if images.dtype == np.uint8 else out
