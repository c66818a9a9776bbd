"""The benchmark's networks in PyTorch, with the weights of this library's models.

Imported only where PyTorch is installed. Each builder takes a model, the number of threads, and for
training the dtype, for prediction the size of the batches.
"""

from functools import partial

import numpy as np

from bench.networks import window
from bench.torch_steps import ResidualModule, make_prediction, make_step, nn, torch
from layers import (
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Softmax,
)
from training import Model

NAMES = {
    "weights": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_variance": "running_var",
}


def symmetric_padding(layer: Conv | MaxPool) -> tuple[int, int]:
    """Return the rows and columns of padding at each side; PyTorch's layers have no other."""
    (top, bottom), (left, right) = window(layer).padding
    if top != bottom or left != right:
        raise TypeError(f"layer {layer} pads one side more than the other")
    return top, left


def convolution(layer: Conv) -> nn.Module:
    """Return the module of a convolution, after one that pads if its sides differ."""
    (top, bottom), (left, right) = window(layer).padding
    is_symmetric = top == bottom and left == right
    conv = nn.Conv2d(
        layer.input_shape[0],
        layer.filters,
        layer.kernel_size,
        layer.stride,
        (top, left) if is_symmetric else 0,
        layer.dilation,
        layer.groups,
        layer.use_bias,
    )
    return conv if is_symmetric else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)


def module(layer: Layer) -> nn.Module:
    """Return the PyTorch module of a built layer."""
    match layer:
        case Conv():
            return convolution(layer)
        case Dense():
            return nn.Linear(layer.input_shape[0], layer.units, layer.use_bias)
        case BatchNorm():
            kind = nn.BatchNorm2d if len(layer.input_shape) == 3 else nn.BatchNorm1d
            return kind(layer.input_shape[0], layer.epsilon, 1 - layer.momentum)
        case Relu():
            return nn.ReLU()
        case LeakyRelu():
            return nn.LeakyReLU(layer.negative_slope)
        case MaxPool():
            return nn.MaxPool2d(layer.pool_size, layer.stride, symmetric_padding(layer))
        case GlobalAvgPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case GlobalMaxPool():
            return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        case Flatten():
            return nn.Flatten()
        case Residual():
            return ResidualModule(sequence(layer.body), sequence(layer.shortcut))
    raise TypeError(f"layer {layer} has no PyTorch module")


def sequence(layers: list[Layer]) -> nn.Sequential:
    """Return the modules of some layers, with their weights. An empty one is the identity."""
    modules = []
    for layer in layers:
        modules.append(module(layer))
        *_, owner = modules[-1].modules()  # itself, or the last one inside
        for name, value in layer.arrays.items():
            value = value.T if isinstance(layer, Dense) else value
            target = getattr(owner, NAMES[name]).data
            target.copy_(torch.from_numpy(np.array(value, order="C")))
    return nn.Sequential(*modules)


def network(model: Model) -> nn.Sequential:
    """Return the same network with the same weights, up to the logits."""
    return sequence([layer for layer in model.layers if not isinstance(layer, Softmax)])


def train(model: Model, threads: int, dtype: str):
    return make_step(network(model), threads, dtype)


def train_channels_last(model: Model, threads: int, dtype: str):
    return make_step(network(model), threads, dtype, torch.channels_last)


def train_compiled(model: Model, threads: int, dtype: str):
    torch.compiler.reset()  # torch.compile gives up on a function after some recompilations
    compiled = partial(torch.compile, dynamic=False)
    return make_step(network(model), threads, dtype, transform=compiled)


def infer(model: Model, threads: int, batch: int):
    return make_prediction(network(model), threads)


def infer_channels_last(model: Model, threads: int, batch: int):
    return make_prediction(network(model), threads, torch.channels_last)
