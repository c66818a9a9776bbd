"""The benchmark's networks in JAX, with the weights of this library's models.

Imported only where JAX is installed. The builder takes a model, the number of threads
and the dtype, which is float32.
"""

import os
from functools import partial

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from bench.networks import window
from layers import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Softmax,
)
from training import Model


def tree(layers: list[Layer], kind: str) -> list:
    """Return the ``params`` or the ``buffers`` of layers; those of a block are a dict of lists."""
    return [
        {"body": tree(layer.body, kind), "shortcut": tree(layer.shortcut, kind)}
        if isinstance(layer, Residual)
        else jax.tree.map(jnp.array, getattr(layer, kind))
        for layer in layers
    ]


def forward_path(layers: list[Layer], params: list, x):
    """Return the output of layers that run one after the other, and a list of their statistics."""
    statistics = []
    for layer, layer_params in zip(layers, params, strict=True):
        x, moments = forward(layer, layer_params, x)
        statistics.append(moments)
    return x, statistics


def forward(layer: Layer, params: dict, x):
    """Return a layer's output in training, and the batch's mean and variance in BatchNorm.

    The layout is NHWC, which is faster with XLA on a CPU. 32 filters of 3x3 on 64 images of
    32x28x28 took 7 ms forward and 29 ms backward; with NCHW, 9 ms and 37 ms. With both layouts,
    most of a convolution runs on one thread.
    """
    match layer:
        case Conv():
            y = lax.conv_general_dilated(
                x,
                params["weights"],
                layer.stride,
                window(layer).padding,
                rhs_dilation=layer.dilation,
                dimension_numbers=("NHWC", "OIHW", "NHWC"),
                feature_group_count=layer.groups,
            )
            return y + params.get("bias", 0), {}
        case Dense():
            return x @ params["weights"] + params["bias"], {}
        case BatchNorm():
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            scale = params["gamma"] * lax.rsqrt(variance + layer.epsilon)
            return (x - mean) * scale + params["beta"], {
                "running_mean": mean,
                "running_variance": variance,
            }
        case Relu():
            return jnp.maximum(x, 0), {}
        case LeakyRelu():
            return jnp.where(x > 0, x, layer.negative_slope * x), {}
        case MaxPool():
            size, stride = (1, *layer.pool_size, 1), (1, *layer.stride, 1)
            padding = ((0, 0), *window(layer).padding, (0, 0))
            return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, padding), {}
        case GlobalAvgPool():
            return x.mean((1, 2)), {}
        case Flatten():
            return x.transpose(0, 3, 1, 2).reshape(len(x), -1), {}
        case Residual():
            y, body = forward_path(layer.body, params["body"], x)
            shortcut, statistics = forward_path(layer.shortcut, params["shortcut"], x)
            return y + shortcut, {"body": body, "shortcut": statistics}
    raise TypeError(f"layer {layer} has no JAX function")


def train(model: Model, threads: int, dtype: str):
    if dtype != "float32":
        raise ValueError(f"dtype must be float32, got {dtype!r}")
    os.environ["NPROC"] = str(threads)  # JAX reads it at its first computation
    layers = [layer for layer in model.layers if not isinstance(layer, Softmax)]
    first = tree(layers, "params")
    zeros = jax.tree.map(jnp.zeros_like, first)
    averages = tree(layers, "buffers")

    def loss_of(params, averages, x, y):
        """Return the mean loss and the new running averages."""
        x, moments = forward_path(layers, params, x.transpose(0, 2, 3, 1))
        new_averages = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, averages, moments)
        loss = -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean()
        return loss, new_averages

    @partial(jax.jit, donate_argnums=0)
    def update(state, x, y):
        """Return the loss and the state after one step of Adam."""
        params, m, v, averages, count = state
        (loss, averages), g = jax.value_and_grad(loss_of, has_aux=True)(params, averages, x, y)
        count = count + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        rate, root = 2e-3 / (1 - 0.9**count), lax.rsqrt(1 - 0.999**count)
        params = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + 1e-8), params, m, v
        )
        return loss, (params, m, v, averages, count)

    state = (first, zeros, jax.tree.map(jnp.copy, zeros), averages, jnp.zeros(()))

    def step(x: np.ndarray, y: np.ndarray) -> float:
        nonlocal state
        loss, state = update(state, x, y)
        return float(loss)

    return step
