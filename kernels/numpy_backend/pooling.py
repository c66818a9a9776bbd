"""Max and average pooling over sliding windows."""

import numpy as np

from kernels import checks
from kernels.geometry import Window
from kernels.numpy_backend.convolution import add_windows, pad, windows_of


def pixel_positions(window: Window):
    """Return row * W + column of the pixel under each tap, (OH, OW, KH, KW); -1 is padding."""
    H, W = window.image
    positions = np.arange(H * W).reshape(1, 1, H, W)
    return windows_of(pad(positions, window, -1), window)[0, 0]


def max_pool(x, pool_size, stride=None, padding=0):
    x = checks.images(x, "x")
    window = checks.pool(x.shape[2:], pool_size, stride, padding)
    windows, positions = windows_of(pad(x, window), window), pixel_positions(window)
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
    dy, index, x_shape = checks.max_pool_gradient(dy, index, x_shape, pool_size, stride, padding)
    N, C, H, W = x_shape
    dx = np.zeros(N * C * H * W, dy.dtype)
    plane = np.arange(N * C).reshape(N, C, 1, 1) * (H * W)
    np.add.at(dx, (plane + index).ravel(), dy.ravel())  # windows may overlap: add, not assign
    return dx.reshape(x_shape)


def real_pixels(window: Window, dtype):
    """Return how many pixels that are no padding each place of the window holds, (OH, OW)."""
    return (pixel_positions(window) >= 0).sum(axis=(2, 3)).astype(dtype)


def avg_pool(x, pool_size, stride=None, padding=0):
    x = checks.images(x, "x")
    window = checks.pool(x.shape[2:], pool_size, stride, padding)
    # float64 sums: in float32 a window of 10^7 pixels loses its last three digits.
    total = windows_of(pad(x, window), window).sum(axis=(4, 5), dtype=np.float64)
    return (total / real_pixels(window, total.dtype)).astype(x.dtype)


def avg_pool_grad(dy, x_shape, pool_size, stride=None, padding=0):
    N, C, H, W = checks.image_shape(x_shape, "x_shape")
    window = checks.pool((H, W), pool_size, stride, padding)
    dy = checks.output_gradient(dy, N, C, window)
    share = (dy / real_pixels(window, dy.dtype))[..., None, None]
    sent = np.broadcast_to(share, (*dy.shape, *window.size))
    return np.ascontiguousarray(add_windows(sent, (N, C, H, W), window))
