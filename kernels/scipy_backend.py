"""The reference with SciPy's classic `correlate2d` and `convolve2d`, an image at a time.

What is no convolution is the numpy backend's.
"""

import numpy as np
from scipy.ndimage import affine_transform
from scipy.signal import convolve2d, correlate2d

from kernels import validation
from kernels.numpy_backend import (
    adam_step,
    avg_pool,
    avg_pool_grad,
    batch_norm,
    batch_norm_grad,
    batch_norm_inference,
    batch_norm_relu,
    batch_norm_relu_grad,
    batch_norm_relu_inference,
    batch_norm_relu_pool,
    batch_norm_relu_pool_grad,
    capture,
    col2im,
    correlate_im2col,
    dense,
    dense_grad,
    dropout,
    dropout_grad,
    flatten,
    flatten_grad,
    fold_batch_norm,
    from_array,
    im2col,
    leaky_relu,
    leaky_relu_grad,
    max_pool,
    max_pool_grad,
    momentum_step,
    normalize_images,
    set_threads,
    sgd_step,
    softmax,
    softmax_cross_entropy,
    softmax_grad,
    to_array,
    update_running_stats,
)
from kernels.numpy_backend.activations import apply_activation
from kernels.numpy_backend.convolution import pad

__all__ = [
    "adam_step",
    "avg_pool",
    "avg_pool_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_inference",
    "batch_norm_relu",
    "batch_norm_relu_grad",
    "batch_norm_relu_inference",
    "batch_norm_relu_pool",
    "batch_norm_relu_pool_grad",
    "capture",
    "col2im",
    "correlate",
    "correlate_grad",
    "correlate_im2col",
    "dense",
    "dense_grad",
    "dropout",
    "dropout_grad",
    "flatten",
    "flatten_grad",
    "fold_batch_norm",
    "from_array",
    "im2col",
    "leaky_relu",
    "leaky_relu_grad",
    "max_pool",
    "max_pool_grad",
    "momentum_step",
    "normalize_images",
    "set_threads",
    "sgd_step",
    "softmax",
    "softmax_cross_entropy",
    "softmax_grad",
    "to_array",
    "update_running_stats",
    "warp_images",
]


def _as_float64(x):
    """Return float64 numbers: SciPy 1.11 sums products in the precision of its inputs."""
    return x.astype(np.float64)


def _dilate(x, step):
    """Return 2-D planes (..., H, W) with step - 1 zeros between neighbouring pixels."""
    (sh, sw), (H, W) = step, x.shape[2:]
    y = np.zeros((*x.shape[:2], (H - 1) * sh + 1, (W - 1) * sw + 1), x.dtype)
    y[:, :, ::sh, ::sw] = x
    return y


def _pairs(F, C, groups):
    """Yield each filter f, each of its own channels k, and which channel of the image that is."""
    for f in range(F):
        first = f // (F // groups) * (C // groups)
        for k in range(C // groups):
            yield f, k, first + k


def correlate(
    x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, negative_slope=1.0
):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    scale, b = validation.check_scale_and_bias(scale, b, len(w), x.dtype)
    sh, sw = window.stride
    padded, spread_w = pad(_as_float64(x), window), _dilate(_as_float64(w), window.dilation)
    y = np.zeros((len(x), len(w), *window.output))
    for n in range(len(x)):
        for f, k, c in _pairs(len(w), x.shape[1], groups):
            y[n, f] += correlate2d(padded[n, c], spread_w[f, k], mode="valid")[::sh, ::sw]
    y = apply_activation(y.transpose(0, 2, 3, 1).astype(x.dtype), scale, b, negative_slope)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    dy = validation.check_output_grad(dy, len(x), len(w), window, x.dtype)
    validation.check_out(out, (w.shape, w.shape[:1]), (w,))
    (dh, dw_step), (H, W) = window.dilation, window.image
    (top, _), (left, _) = window.padding
    padded, spread_w = pad(_as_float64(x), window), _dilate(_as_float64(w), window.dilation)
    spread_dy = _dilate(_as_float64(dy), window.stride)
    d_padded, dw = np.zeros_like(padded), np.zeros(w.shape)
    # A stride may leave out the last rows and columns: what the windows cover is this part.
    rows, columns = (a + b - 1 for a, b in zip(spread_dy.shape[2:], window.extent, strict=True))
    seen = np.s_[:rows, :columns]
    for n in range(len(x)):
        for f, k, c in _pairs(len(w), x.shape[1], groups):
            # A tap saw the pixels that lie its distance from each output.
            taps = correlate2d(padded[n, c][seen], spread_dy[n, f], "valid")
            dw[f, k] += taps[::dh, ::dw_step]
            if need_dx:
                sent = convolve2d(spread_dy[n, f], spread_w[f, k], mode="full")
                d_padded[n, c][seen] += sent
    dx = d_padded[:, :, top : top + H, left : left + W].astype(x.dtype) if need_dx else None
    db = dy.sum(axis=(0, 2, 3), dtype=np.float64)
    return dx, dw.astype(x.dtype), db.astype(x.dtype)


def warp_images(images, matrices):
    images, matrices = validation.check_warp(images, matrices)
    middle = (np.array(images.shape[2:]) - 1) / 2
    out = np.empty_like(images)
    half = 0.5 if images.dtype == np.uint8 else 0.0  # towards zero is down
    for n, matrix in enumerate(matrices):
        offset = matrix[:, 2] + middle - matrix[:, :2] @ middle
        for c, image in enumerate(images[n]):
            warped = affine_transform(
                image, matrix[:, :2], offset, order=1, mode="nearest", output=np.float64
            )
            out[n, c] = warped + half
    return out
