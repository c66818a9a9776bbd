"""A reference backend with SciPy's `correlate2d` and `convolve2d`, one image and filter at a time.

All functions but the correlations and `warp_images` are those of the numpy backend.
`kernels.interface` documents the functions.
"""

import numpy as np
from scipy.ndimage import affine_transform
from scipy.signal import convolve2d, correlate2d

from kernels.interface import FUNCTIONS
from kernels.numpy_backend import *  # noqa: F403 - what this module does not define itself
from kernels.numpy_backend.activations import scale_and_activate
from kernels.numpy_backend.convolution import pad
from kernels.separable import compose_separable
from kernels.validation import (
    check_activation,
    check_correlation,
    check_correlation_grad,
    check_scale_and_bias,
    check_warp,
)

__all__ = FUNCTIONS


def _as_float64(x):
    """Return x in float64, because SciPy adds products in the precision of its inputs."""
    return x.astype(np.float64)


def _dilate(x, step):
    """Return planes (..., H, W) with step - 1 zeros between neighboring pixels."""
    (sh, sw), (H, W) = step, x.shape[2:]
    y = np.zeros((*x.shape[:2], (H - 1) * sh + 1, (W - 1) * sw + 1), x.dtype)
    y[:, :, ::sh, ::sw] = x
    return y


def _connections(F, C, groups):
    """Yield (f, k, c) for each filter f, each of its channels k, and their channel c of x."""
    for f in range(F):
        group_begin = f // (F // groups) * (C // groups)
        for k in range(C // groups):
            yield f, k, group_begin + k


def correlate(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, activation=None):
    x, w, window, groups = check_correlation(x, w, stride, padding, dilation, groups)
    scale, b = check_scale_and_bias(scale, b, len(w), x.dtype)
    activation = check_activation(activation, x.dtype)
    sh, sw = window.stride
    padded, dilated_w = pad(_as_float64(x), window), _dilate(_as_float64(w), window.dilation)
    y = np.zeros((len(x), len(w), *window.output))
    for n in range(len(x)):
        for f, k, c in _connections(len(w), x.shape[1], groups):
            y[n, f] += correlate2d(padded[n, c], dilated_w[f, k], mode="valid")[::sh, ::sw]
    y = scale_and_activate(y.transpose(0, 2, 3, 1).astype(x.dtype), scale, b, activation)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


separable_correlate = compose_separable(correlate)


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    dy, (x, w, window, groups) = check_correlation_grad(
        dy, x, w, stride, padding, dilation, groups, need_dx, out
    )
    (dilation_h, dilation_w), (H, W), (top, left) = window.dilation, window.image, window.pad_begin
    padded, dilated_w = pad(_as_float64(x), window), _dilate(_as_float64(w), window.dilation)
    dilated_dy = _dilate(_as_float64(dy), window.stride)
    d_padded, dw = np.zeros_like(padded), np.zeros(w.shape)
    # The stride may leave out the last rows and columns. The windows cover this part:
    rows, columns = (
        length + extent - 1
        for length, extent in zip(dilated_dy.shape[2:], window.kernel_extent, strict=True)
    )
    covered = np.s_[:rows, :columns]
    for n in range(len(x)):
        for f, k, c in _connections(len(w), x.shape[1], groups):
            # All positions of a dense kernel; those of the taps are every dilation-th.
            all_dw = correlate2d(padded[n, c][covered], dilated_dy[n, f], mode="valid")
            dw[f, k] += all_dw[::dilation_h, ::dilation_w]
            if need_dx:
                d_padded[n, c][covered] += convolve2d(dilated_dy[n, f], dilated_w[f, k], "full")
    dx = d_padded[:, :, top : top + H, left : left + W].astype(x.dtype) if need_dx else None
    db = dy.sum(axis=(0, 2, 3), dtype=np.float64)
    return dx, dw.astype(x.dtype), db.astype(x.dtype)


def warp_images(images, matrices):
    images, matrices = check_warp(images, matrices)
    center = (np.array(images.shape[2:]) - 1) / 2
    warped = np.empty_like(images)
    half = 0.5 if images.dtype == np.uint8 else 0.0  # the conversion to uint8 rounds down
    for n, matrix in enumerate(matrices):
        offset = matrix[:, 2] + center - matrix[:, :2] @ center
        for c, image in enumerate(images[n]):
            pixels = affine_transform(
                image, matrix[:, :2], offset, order=1, mode="nearest", output=np.float64
            )
            warped[n, c] = pixels + half
    return warped
