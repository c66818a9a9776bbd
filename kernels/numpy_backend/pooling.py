"""Max and average pooling."""

import numpy as np

from kernels.geometry import Window
from kernels.numpy_backend.convolution import pad, scatter_add_windows, sliding_windows
from kernels.validation import (
    check_images,
    check_max_pool_grad,
    check_nchw_shape,
    check_output_grad,
    make_pool_window,
)


def pixel_positions(window: Window):
    """Return the position row * W + column of the pixel under each tap, (OH, OW, KH, KW).

    The position of padding is -1.
    """
    H, W = window.image
    positions = np.arange(H * W, dtype=np.int32).reshape(1, 1, H, W)
    return sliding_windows(pad(positions, window, -1), window)[0, 0]


def max_pool(x, pool_size, stride=None, padding=0):
    x = check_images(x, "x")
    window = make_pool_window(x.shape[2:], pool_size, stride, padding)
    windows, positions = sliding_windows(pad(x, window), window), pixel_positions(window)
    y = np.full(windows.shape[:4], -np.inf, x.dtype)
    index = np.full(windows.shape[:4], -1, np.int32)
    for k, m in np.ndindex(*window.size):
        pixel, position = windows[..., k, m], positions[..., k, m]
        # The first pixel is a new maximum even if it is -inf, and so is the first NaN.
        is_new_max = (pixel > y) | (np.isnan(pixel) & ~np.isnan(y)) | (index == -1)
        is_new_max &= position >= 0
        y = np.where(is_new_max, pixel, y)
        index = np.where(is_new_max, position, index)
    return y, index


def max_pool_grad(dy, index, x_shape, pool_size, stride=None, padding=0):
    dy, index, x_shape = check_max_pool_grad(dy, index, x_shape, pool_size, stride, padding)
    N, C, H, W = x_shape
    dx = np.zeros(N * C * H * W, dy.dtype)
    image_begin = np.arange(N * C).reshape(N, C, 1, 1) * (H * W)
    np.add.at(dx, (image_begin + index).ravel(), dy.ravel())  # windows overlap: add, not assign
    return dx.reshape(x_shape)


def valid_count(window: Window, dtype):
    """Return the number of pixels without padding under each window position, (OH, OW)."""
    return (pixel_positions(window) >= 0).sum(axis=(2, 3)).astype(dtype)


def avg_pool(x, pool_size, stride=None, padding=0):
    x = check_images(x, "x")
    window = make_pool_window(x.shape[2:], pool_size, stride, padding)
    # float64 sums: in float32, the sum of 10^7 pixels has lost its last three digits.
    sums = sliding_windows(pad(x, window), window).sum(axis=(4, 5), dtype=np.float64)
    return (sums / valid_count(window, sums.dtype)).astype(x.dtype)


def avg_pool_grad(dy, x_shape, pool_size, stride=None, padding=0):
    N, C, H, W = check_nchw_shape(x_shape, "x_shape")
    window = make_pool_window((H, W), pool_size, stride, padding)
    dy = check_output_grad(dy, N, C, window)
    # Each pixel of a window gets an equal part of the gradient.
    dy_per_pixel = (dy / valid_count(window, dy.dtype))[..., None, None]
    d_windows = np.broadcast_to(dy_per_pixel, (*dy.shape, *window.size))
    return np.ascontiguousarray(scatter_add_windows(d_windows, (N, C, H, W), window))
