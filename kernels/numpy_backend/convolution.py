"""Cross-correlation and its gradients, im2col and col2im.

A correlation is a matrix product: each row of one matrix holds the pixels under one position of
the window, and each column of the other holds one filter.
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kernels.geometry import Window, make_window
from kernels.numpy_backend.activations import scale_and_activate
from kernels.numpy_backend.dense import blocked_matmul
from kernels.separable import compose_separable
from kernels.validation import (
    check_activation,
    check_bias,
    check_columns,
    check_correlation,
    check_correlation_grad,
    check_images,
    check_scale_and_bias,
)


def pad(x, window: Window, value=0.0):
    """Return images with the padding of the window around them."""
    return np.pad(x, ((0, 0), (0, 0), *window.padding), constant_values=value)


def sliding_windows(padded, window: Window):
    """Return the pixels under each window position, a view (N, C, OH, OW, KH, KW)."""
    (sh, sw), (dh, dw) = window.stride, window.dilation
    all_positions = sliding_window_view(padded, window.kernel_extent, axis=(2, 3))
    return all_positions[:, :, ::sh, ::sw, ::dh, ::dw]


def scatter_add_windows(values, x_shape, window: Window):
    """Add values (N, C, OH, OW, KH, KW) to the pixels that `sliding_windows` takes them from.

    Returns
    -------
    x : (N, C, H, W)
        Values of the padding are dropped.
    """
    N, C, H, W = x_shape
    (OH, OW), (KH, KW) = window.output, window.size
    (sh, sw), (dh, dw) = window.stride, window.dilation
    top, left = window.pad_begin
    padded = np.zeros((N, C, *window.padded), values.dtype)
    for k in range(KH):
        for m in range(KW):
            rows = slice(k * dh, k * dh + OH * sh, sh)
            columns = slice(m * dw, m * dw + OW * sw, sw)
            padded[:, :, rows, columns] += values[..., k, m]
    return padded[:, :, top : top + H, left : left + W]


def windows_as_rows(x, window: Window):
    """Return the pixels under each window position as a row, (N * OH * OW, C * KH * KW)."""
    windows = sliding_windows(pad(x, window), window)
    N, C, OH, OW, KH, KW = windows.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(N * OH * OW, C * KH * KW)


def filters_as_rows(w):
    """Return filters (F, C, KH, KW) as rows (F, C * KH * KW)."""
    return w.reshape(len(w), math.prod(w.shape[1:]))


def correlate(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, activation=None):
    x, w, window, groups = check_correlation(x, w, stride, padding, dilation, groups)
    scale, b = check_scale_and_bias(scale, b, len(w), x.dtype)
    activation = check_activation(activation, x.dtype)
    y_groups = [
        # (N * OH * OW, C * KH * KW) @ (C * KH * KW, F), with the C and F of one group
        blocked_matmul(windows_as_rows(x_group, window), filters_as_rows(w_group).T)
        for x_group, w_group in zip(np.split(x, groups, axis=1), np.split(w, groups), strict=True)
    ]
    y = scale_and_activate(np.concatenate(y_groups, axis=1), scale, b, activation)
    y = y.reshape(len(x), *window.output, len(w))
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


separable_correlate = compose_separable(correlate)


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    dy, (x, w, window, groups) = check_correlation_grad(
        dy, x, w, stride, padding, dilation, groups, need_dx, out
    )
    N, n_positions = len(x), len(x) * math.prod(window.output)
    dx_groups, dw_groups = [], []
    for dy_group, x_group, w_group in zip(
        np.split(dy, groups, axis=1), np.split(x, groups, axis=1), np.split(w, groups), strict=True
    ):
        # The gradients of the matrix product in `correlate`, with the C and F of one group.
        dy_rows = dy_group.transpose(0, 2, 3, 1).reshape(n_positions, len(w_group))
        dw_rows = blocked_matmul(dy_rows.T, windows_as_rows(x_group, window))  # (F, C * KH * KW)
        dw_groups.append(dw_rows.reshape(w_group.shape))
        if need_dx:
            # Each output pixel sends its gradient to all pixels under its window.
            d_windows = blocked_matmul(dy_rows, filters_as_rows(w_group))
            d_windows = d_windows.reshape(N, *window.output, *w_group.shape[1:])
            d_windows = d_windows.transpose(0, 3, 1, 2, 4, 5)  # (N, C, OH, OW, KH, KW)
            dx_groups.append(scatter_add_windows(d_windows, x_group.shape, window))
    dx = np.concatenate(dx_groups, axis=1) if need_dx else None
    db = dy.sum(axis=(0, 2, 3), dtype=np.float64).astype(dy.dtype)
    return dx, np.concatenate(dw_groups), db


def _im2col(x, window: Window):
    columns = sliding_windows(pad(x, window), window).transpose(0, 1, 4, 5, 2, 3)
    N, C, KH, KW, OH, OW = columns.shape
    return columns.reshape(N, C * KH * KW, OH * OW)


def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    x = check_images(x, "x")
    window = make_window(x.shape[2:], kernel_size, stride, padding, dilation, "kernel_size")
    return _im2col(x, window)


def col2im(cols, x_shape, kernel_size, stride=1, padding=0, dilation=1):
    cols, x_shape, window = check_columns(cols, x_shape, kernel_size, stride, padding, dilation)
    N, C = x_shape[:2]
    values = cols.reshape(N, C, *window.size, *window.output).transpose(0, 1, 4, 5, 2, 3)
    return np.ascontiguousarray(scatter_add_windows(values, x_shape, window))


def correlate_im2col(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    x, w, window, groups = check_correlation(x, w, stride, padding, dilation, groups)
    b = check_bias(b, len(w), x.dtype)
    N, F = len(x), len(w)
    cols = _im2col(x, window)
    # For each image and group: (F / groups, C * KH * KW) @ (C * KH * KW, OH * OW).
    cols = cols.reshape(N, groups, cols.shape[1] // groups, cols.shape[2])
    y = blocked_matmul(w.reshape(groups, F // groups, cols.shape[2]), cols)
    return y.reshape(N, F, *window.output) + b[:, None, None]
