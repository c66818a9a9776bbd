"""The fast path: kernels compiled by Numba, parallel on all cores.

No matrix product goes to BLAS: its threads and those of these kernels would fight for the
cores (`jit.py` has the figures).
"""

from functools import wraps

import numpy as np

from kernels import checks
from kernels.numba_backend import (
    activations,
    channels_last,
    convolution,
    lanes,
    normalization,
    pooling,
)
from kernels.numba_backend import (
    dense as products,
)
from kernels.numba_backend.channels_last import ChannelsLast
from kernels.numba_backend.convolution import col2im, correlate_im2col, im2col
from kernels.numba_backend.jit import set_threads
from kernels.numba_backend.lanes import record
from kernels.numba_backend.optimizers import adam_step, momentum_step, sgd_step
from kernels.numba_backend.processes import guard
from kernels.numba_backend.warping import warp_images


def _either(on_arrays, on_lanes, on_channels_last=None, recorded=False):
    """Return a function that takes plain arrays as well as activations inside a model.

    On plain arrays only those whose every kernel is noted can be recorded: prediction's.
    """

    @wraps(on_arrays)
    def function(x, *args, **kwargs):
        if isinstance(x, lanes.Lanes):
            return on_lanes(x, *args, **kwargs)
        if isinstance(x, ChannelsLast):
            if on_channels_last is not None:
                y = on_channels_last(x, *args, **kwargs)
                if y is not NotImplemented:
                    return y
            x = channels_last.to_array(x)
        if not recorded:
            lanes.spoil()
        return on_arrays(x, *args, **kwargs)

    return function


avg_pool = _either(pooling.avg_pool, lanes.avg_pool)
avg_pool_grad = _either(pooling.avg_pool_grad, lanes.avg_pool_grad)
batch_norm = _either(normalization.batch_norm, lanes.batch_norm)
batch_norm_grad = _either(normalization.batch_norm_grad, lanes.batch_norm_grad)
batch_norm_inference = _either(normalization.batch_norm_inference, lanes.batch_norm_inference)
batch_norm_relu = _either(normalization.batch_norm_relu, lanes.batch_norm_relu)
batch_norm_relu_grad = _either(normalization.batch_norm_relu_grad, lanes.batch_norm_relu_grad)
batch_norm_relu_inference = _either(
    normalization.batch_norm_relu_inference, lanes.batch_norm_relu_inference
)
batch_norm_relu_pool = _either(normalization.batch_norm_relu_pool, lanes.batch_norm_relu_pool)
batch_norm_relu_pool_grad = _either(
    normalization.batch_norm_relu_pool_grad, lanes.batch_norm_relu_pool_grad
)
correlate = _either(convolution.correlate, lanes.correlate, channels_last.correlate, recorded=True)
correlate_grad = _either(convolution.correlate_grad, lanes.correlate_grad)
dense = _either(products.dense, lanes.dense, recorded=True)
dense_grad = _either(products.dense_grad, lanes.dense_grad)
dropout = _either(normalization.dropout, lanes.dropout)
dropout_grad = _either(normalization.dropout_grad, lanes.dropout_grad)
flatten = _either(products.flatten, lanes.flatten, channels_last.flatten, recorded=True)
flatten_grad = _either(products.flatten_grad, lanes.flatten_grad)
leaky_relu = _either(activations.leaky_relu, lanes.leaky_relu, recorded=True)
leaky_relu_grad = _either(activations.leaky_relu_grad, lanes.leaky_relu_grad)
max_pool = _either(pooling.max_pool, lanes.max_pool, channels_last.max_pool, recorded=True)
max_pool_grad = _either(pooling.max_pool_grad, lanes.max_pool_grad)
softmax = _either(activations.softmax, lanes.softmax)
softmax_cross_entropy = _either(activations.softmax_cross_entropy, lanes.softmax_cross_entropy)
softmax_grad = _either(activations.softmax_grad, lanes.softmax_grad)


def average(running_mean, running_variance, mean, variance, momentum):
    checks.vectors(
        running_mean=running_mean, running_variance=running_variance, mean=mean, variance=variance
    )
    lanes.call(
        normalization.average_kernel, running_mean, running_variance, mean, variance,
        checks.number(momentum, "momentum", 0, 1),
    )  # fmt: skip


def fold_batch_norm(b, gamma, beta, mean, variance, epsilon):
    b, gamma, beta, mean, variance = checks.folding(
        b, gamma, beta=beta, mean=mean, variance=variance
    )
    scale, shift = np.empty_like(b), np.empty_like(b)
    lanes.call(
        normalization.fold_kernel, b, gamma, beta, mean, variance, checks.epsilon(epsilon),
        scale, shift,
    )  # fmt: skip
    return scale, shift


def fills_lanes(N, dtype):
    """Return whether a batch is large enough for images in lanes: at least a quarter of one."""
    return lanes.lanes_of(dtype) <= 4 * N


def from_array(x):
    lanes.spoil()  # no kernel made these numbers: they would be the same for every batch
    x = checks.activations(x, "x")
    return lanes.pack(x) if fills_lanes(len(x), x.dtype) else x


def to_array(x, final=False):
    if not final:
        lanes.spoil()
    if isinstance(x, ChannelsLast):
        return channels_last.to_array(x)
    return lanes.unpack(x) if isinstance(x, lanes.Lanes) else checks.activations(x, "x")


def load_images(images, mean, std, dtype, predict=False):
    images, mean, std = checks.raw_images(images, mean, std, dtype)
    if images.dtype != np.uint8:
        images = images.astype(mean.dtype, copy=False)
    images = np.require(images, None, ["C", "A", "W"])  # others would be compiled for anew
    if fills_lanes(len(images), mean.dtype):
        return lanes.pack_normalized(images, mean, std)
    load = channels_last.load_images if predict else normalization.load_images
    return load(images, mean, std)


__all__ = [
    "adam_step",
    "average",
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
    "load_images",
    "max_pool",
    "max_pool_grad",
    "momentum_step",
    "record",
    "set_threads",
    "sgd_step",
    "softmax",
    "softmax_cross_entropy",
    "softmax_grad",
    "to_array",
    "warp_images",
]

guard(globals())
