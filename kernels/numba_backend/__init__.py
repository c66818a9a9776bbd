"""The fast backend: kernels compiled by Numba, parallel on all cores.

Every function here accepts plain arrays, and the activations that other functions of this backend
have returned. Inside a model activations are packed (`packed`), or have their channels last
(`channels_last`).
"""

import sys
from functools import wraps
from inspect import signature

import numpy as np

from kernels import numpy_backend, validation
from kernels.activations import LeakyRelu
from kernels.interface import FUNCTIONS
from kernels.numba_backend import (
    activations,
    channels_last,
    convolution,
    normalization,
    packed,
    pooling,
)
from kernels.numba_backend import dense as dense_kernels
from kernels.numba_backend.augmentation import augment_images
from kernels.numba_backend.channels_last import ChannelsLast
from kernels.numba_backend.convolution import col2im, correlate_im2col, im2col
from kernels.numba_backend.layouts import use_packed_layout
from kernels.numba_backend.optimizers import adam_step, momentum_step, sgd_step
from kernels.numba_backend.packed import checks
from kernels.numba_backend.planes import Planes
from kernels.numba_backend.runtime.capture import capture, invalidate_capture, launch
from kernels.numba_backend.runtime.process_guards import install_process_guards
from kernels.numba_backend.runtime.threading_layer import set_threads
from kernels.numba_backend.runtime.tuning import kernel_choices, pin_kernel_choices
from kernels.numba_backend.warping import warp_images
from kernels.separable import compose_separable


def dispatch_by_layout(on_arrays, on_packed, on_channels_last=None, capturable=False):
    """Return a function that calls the kernel for the layout of its first argument.

    Parameters
    ----------
    on_arrays, on_packed, on_channels_last : callable
        Functions with the same parameters. `on_channels_last` may return NotImplemented.
    capturable : bool
        Whether `on_arrays` runs all its kernels by `launch`. If False, a call on plain arrays
        invalidates a capture.
    """
    first = next(iter(signature(on_arrays).parameters))

    @wraps(on_arrays)
    def function(*args, **kwargs):
        x = args[0] if args else kwargs.get(first)
        if isinstance(x, packed.PackedBatch):
            return on_packed(*args, **kwargs)
        if isinstance(x, (ChannelsLast, Planes)):
            if on_channels_last is not None:
                y = on_channels_last(*args, **kwargs)
                if y is not NotImplemented:
                    return y
            x = channels_last.to_array(x)
            if args:
                args = (x, *args[1:])
            else:
                kwargs[first] = x
        if not capturable:
            invalidate_capture()
        return on_arrays(*args, **kwargs)

    return function


activate = dispatch_by_layout(
    activations.activate, packed.activate, channels_last.activate, capturable=True
)
activate_grad = dispatch_by_layout(activations.activate_grad, packed.activate_grad)
avg_pool = dispatch_by_layout(pooling.avg_pool, packed.avg_pool, channels_last.avg_pool)
avg_pool_grad = dispatch_by_layout(pooling.avg_pool_grad, packed.avg_pool_grad)
batch_norm = dispatch_by_layout(normalization.batch_norm, packed.batch_norm)
batch_norm_grad = dispatch_by_layout(normalization.batch_norm_grad, packed.batch_norm_grad)
batch_norm_inference = dispatch_by_layout(
    normalization.batch_norm_inference, packed.batch_norm_inference
)
batch_norm_activation = dispatch_by_layout(
    normalization.batch_norm_activation, packed.batch_norm_activation
)
batch_norm_activation_grad = dispatch_by_layout(
    normalization.batch_norm_activation_grad, packed.batch_norm_activation_grad
)
batch_norm_activation_pool = dispatch_by_layout(
    normalization.batch_norm_activation_pool, packed.batch_norm_activation_pool
)
batch_norm_activation_pool_grad = dispatch_by_layout(
    normalization.batch_norm_activation_pool_grad, packed.batch_norm_activation_pool_grad
)
correlate = dispatch_by_layout(
    convolution.correlate, packed.correlate, channels_last.correlate, capturable=True
)
separable_correlate = dispatch_by_layout(
    compose_separable(correlate), packed.separable_correlate, channels_last.separable_correlate,
    capturable=True,
)  # fmt: skip
correlate_grad = dispatch_by_layout(convolution.correlate_grad, packed.correlate_grad)
dense = dispatch_by_layout(dense_kernels.dense, packed.dense, capturable=True)
dense_grad = dispatch_by_layout(numpy_backend.dense_grad, packed.dense_grad)
dropout = dispatch_by_layout(normalization.dropout, packed.dropout)
dropout_grad = dispatch_by_layout(normalization.dropout_grad, packed.dropout_grad)
flatten = dispatch_by_layout(
    numpy_backend.flatten, packed.flatten, channels_last.flatten, capturable=True
)
flatten_grad = dispatch_by_layout(numpy_backend.flatten_grad, packed.flatten_grad)
max_pool = dispatch_by_layout(
    pooling.max_pool, packed.max_pool, channels_last.max_pool, capturable=True
)
max_pool_grad = dispatch_by_layout(pooling.max_pool_grad, packed.max_pool_grad)
softmax = dispatch_by_layout(activations.softmax, packed.softmax)
softmax_cross_entropy = dispatch_by_layout(
    activations.softmax_cross_entropy, packed.softmax_cross_entropy
)
softmax_grad = dispatch_by_layout(activations.softmax_grad, packed.softmax_grad)


def leaky_relu(x, negative_slope):
    return activate(x, LeakyRelu(negative_slope))


def leaky_relu_grad(dy, x, negative_slope):
    return activate_grad(dy, x, LeakyRelu(negative_slope))


def add(x, other, activation=None):
    if isinstance(x, packed.PackedBatch) and isinstance(other, packed.PackedBatch):
        return packed.add(x, other, activation)
    are_few = all(isinstance(each, (ChannelsLast, Planes)) for each in (x, other))
    if are_few and channels_last.is_alike(x, other):
        return channels_last.add(x, other, activation)
    return activations.add(_as_array(x), _as_array(other), activation)


def _as_array(x):
    """Return activations in any layout as a plain array; anything else as it is."""
    if isinstance(x, (ChannelsLast, Planes)):
        return channels_last.to_array(x)
    return packed.unpack(x) if isinstance(x, packed.PackedBatch) else x


def update_running_stats(running_mean, running_variance, mean, variance, momentum):
    validation.check_vectors(
        running_mean=running_mean, running_variance=running_variance, mean=mean, variance=variance
    )
    launch(
        normalization.update_running_stats_kernel, running_mean, running_variance, mean, variance,
        validation.check_number(momentum, "momentum", 0, 1),
    )  # fmt: skip


def fold_batch_norm(b, gamma, beta, mean, variance, epsilon):
    checked = validation.check_folding(b, gamma, beta=beta, mean=mean, variance=variance)
    b, gamma, beta, mean, variance = map(
        checks.check_capturable, checked, (b, gamma, beta, mean, variance)
    )
    scale, shift = np.empty_like(b), np.empty_like(b)
    launch(
        normalization.fold_kernel, b, gamma, beta, mean, variance,
        validation.check_epsilon(epsilon), scale, shift,
    )  # fmt: skip
    return scale, shift


def from_array(x):
    invalidate_capture()  # no kernel made these numbers: a replay would not update them
    x = validation.check_activations(x, "x")
    return packed.pack(x) if use_packed_layout(len(x), x.dtype, training=True) else x


def to_array(x, output=False):
    if not output:
        invalidate_capture()
    if isinstance(x, (ChannelsLast, Planes, packed.PackedBatch)):
        return _as_array(x)
    return validation.check_activations(x, "x")


def normalize_images(images, mean, std, dtype, predict=False):
    images, *checked = validation.check_raw_images(images, mean, std, dtype)
    mean, std = map(checks.check_capturable, checked, (mean, std))
    if images.dtype != np.uint8:
        images = images.astype(mean.dtype, copy=False)
    images = np.require(images, None, ["C", "A", "W"])  # Numba would compile again for others
    if use_packed_layout(len(images), mean.dtype, training=not predict):
        return packed.pack_normalized(images, mean, std)
    return channels_last.normalize_images(images, mean, std)


__all__ = FUNCTIONS

install_process_guards(sys.modules[__name__])
