"""Max and average pooling over sliding windows."""

import numpy as np

from kernels import validation
from kernels.geometry import Window
from kernels.numpy_backend.convolution import pad, scatter_add_windows, sliding_windows


def pixel_positions(window: Window):
    """Return row * W + column of the pixel under each tap, (OH, OW, KH, KW); -1 is padding."""
    H, W = window.image
    positions = np.arange(H * W).reshape(1, 1, H, W)
    return sliding_windows(pad(positions, window, -1), window)[0, 0]


def max_pool(x, pool_size, stride=None, padding=0):
    x = validation.check_images(x, "x")
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    windows, positions = sliding_windows(pad(x, window), window), pixel_positions(window)
    y = np.full(windows.shape[:4], -np.inf, x.dtype)
    index = np.full(windows.shape[:4], -1, np.int32)
    for tap in np.ndindex(*window.size):
        at = (..., *tap)
        pixel, position = windows[at], positions[at]
        larger = (pixel > y) | (np.isnan(pixel) & ~np.isnan(y)) | (index < 0)
        larger &= position >= 0
        y = np.where(larger, pixel, y)
        index = np.where(larger, position.astype(np.int32), index)
    return y, index


def max_pool_grad(dy, index, x_shape, pool_size, stride=None, padding=0):
    dy, index, x_shape = validation.check_max_pool_grad(
        dy, index, x_shape, pool_size, stride, padding
    )
    N, C, H, W = x_shape
    dx = np.zeros(N * C * H * W, dy.dtype)
    plane = np.arange(N * C).reshape(N, C, 1, 1) * (H * W)
    np.add.at(dx, (plane + index).ravel(), dy.ravel())  # windows may overlap: add, not assign
    return dx.reshape(x_shape)


def valid_count(window: Window, dtype):
    """Return how many pixels that are no padding each place of the window holds, (OH, OW)."""
    return (pixel_positions(window) >= 0).sum(axis=(2, 3)).astype(dtype)


def avg_pool(x, pool_size, stride=None, padding=0):
    x = validation.check_images(x, "x")
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    # float64 sums: in float32 a window of 10^7 pixels loses its last three digits.
    total = sliding_windows(pad(x, window), window).sum(axis=(4, 5), dtype=np.float64)
    return (total / valid_count(window, total.dtype)).astype(x.dtype)


def avg_pool_grad(dy, x_shape, pool_size, stride=None, padding=0):
    N, C, H, W = validation.check_image_shape(x_shape, "x_shape")
    window = validation.make_pool_window((H, W), pool_size, stride, padding)
    dy = validation.check_output_grad(dy, N, C, window)
    share = (dy / valid_count(window, dy.dtype))[..., None, None]
    sent = np.broadcast_to(share, (*dy.shape, *window.size))
    return np.ascontiguousarray(scatter_add_windows(sent, (N, C, H, W), window))
