"""Correlation and its gradients with stride tricks, im2col and matrix products."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numpy_backend.activations import apply_activation
from kernels.numpy_backend.dense import blocked_matmul


def pad(x, window: Window, value=0.0):
    """Return images with the window's padding around them."""
    return np.pad(x, ((0, 0), (0, 0), *window.padding), constant_values=value)


def sliding_windows(padded, window: Window):
    """Return a view (N, C, OH, OW, KH, KW): the pixels under each place of the window."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    every_place = sliding_window_view(padded, window.extent, axis=(2, 3))
    return every_place[:, :, ::sh, ::sw, ::dh, ::dw]


def scatter_add_windows(values, x_shape, window: Window):
    """Add values (N, C, OH, OW, KH, KW) onto the pixels under each window: undo `sliding_windows`."""
    N, C, H, W = x_shape
    (OH, OW), (KH, KW) = window.output, window.size
    (sh, sw), (dh, dw) = window.stride, window.dilation
    (top, _), (left, _) = window.padding
    padded = np.zeros((N, C, *window.padded), values.dtype)
    for k in range(KH):
        for m in range(KW):
            rows = slice(k * dh, k * dh + OH * sh, sh)
            columns = slice(m * dw, m * dw + OW * sw, sw)
            padded[:, :, rows, columns] += values[..., k, m]
    return padded[:, :, top : top + H, left : left + W]


def correlate(
    x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, negative_slope=1.0
):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    scale, b = validation.check_scale_and_bias(scale, b, len(w), x.dtype)
    windows = sliding_windows(pad(x, window), window)
    y = [
        # Sum over channel, kernel row and kernel column: (N, OH, OW, filters of the group).
        np.tensordot(group_windows, group_w, axes=((1, 4, 5), (1, 2, 3)))
        for group_windows, group_w in zip(
            np.split(windows, groups, axis=1), np.split(w, groups), strict=True
        )
    ]
    y = apply_activation(np.concatenate(y, axis=3), scale, b, negative_slope)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    dy = validation.check_output_grad(dy, len(x), len(w), window, x.dtype)
    validation.check_out(out, (w.shape, w.shape[:1]), (w,))
    dx, dw = [], []
    places = len(x) * math.prod(window.output)
    for group_dy, group_x, group_w in zip(
        np.split(dy, groups, axis=1), np.split(x, groups, axis=1), np.split(w, groups), strict=True
    ):
        windows = sliding_windows(pad(group_x, window), window)
        sent = np.moveaxis(group_dy, 1, 0).reshape(len(group_w), places)
        seen = windows.transpose(0, 2, 3, 1, 4, 5).reshape(places, group_w[0].size)
        dw.append(blocked_matmul(sent, seen).reshape(group_w.shape))
        if need_dx:
            # Each output sends its gradient to the pixels that it saw: (N, OH, OW, C, KH, KW).
            sent = np.tensordot(group_dy, group_w, axes=((1,), (0,)))
            dx.append(scatter_add_windows(sent.transpose(0, 3, 1, 2, 4, 5), group_x.shape, window))
    db = dy.sum(axis=(0, 2, 3), dtype=np.float64).astype(dy.dtype)
    return np.concatenate(dx, axis=1) if need_dx else None, np.concatenate(dw), db


def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    x = validation.check_images(x, "x")
    window = make_window(x.shape[2:], kernel_size, stride, padding, dilation, "kernel_size")
    columns = sliding_windows(pad(x, window), window).transpose(0, 1, 4, 5, 2, 3)
    N, C, KH, KW, OH, OW = columns.shape
    return columns.reshape(N, C * KH * KW, OH * OW)


def col2im(cols, x_shape, kernel_size, stride=1, padding=0, dilation=1):
    cols, x_shape, window = validation.check_columns(
        cols, x_shape, kernel_size, stride, padding, dilation
    )
    N, C = x_shape[:2]
    values = cols.reshape(N, C, *window.size, *window.output).transpose(0, 1, 4, 5, 2, 3)
    return np.ascontiguousarray(scatter_add_windows(values, x_shape, window))


def correlate_im2col(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    b = validation.check_bias(b, len(w), x.dtype)
    N, F = len(x), len(w)
    cols = im2col(x, window.size, stride, padding, dilation)
    # One product for each image and group: (F/g, C/g*KH*KW) @ (N, g, C/g*KH*KW, OH*OW).
    cols = cols.reshape(N, groups, cols.shape[1] // groups, cols.shape[2])
    y = w.reshape(groups, F // groups, -1) @ cols
    return y.reshape(N, F, *window.output) + b[:, None, None]
