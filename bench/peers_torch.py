"""Our networks in PyTorch, with our weights in them.

Imported only where PyTorch is installed: its builders take a model and the number of threads.
"""

import os

import numpy as np

# Otherwise torch.compile forks, which JAX's threads in the same process do not allow.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from torch import nn

from bench.networks import window
from layers import BatchNorm, Conv, Dense, Flatten, Layer, LeakyRelu, MaxPool, Relu, Softmax
from training import Model

NAMES = {
    "weights": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_variance": "running_var",
}


def module(layer: Layer) -> nn.Module:
    """Return PyTorch's module for a built layer."""
    match layer:
        case Conv():
            (top, _), (left, _) = window(layer).padding
            return nn.Conv2d(
                layer.input_shape[0],
                layer.filters,
                layer.kernel_size,
                layer.stride,
                (top, left),
                layer.dilation,
                layer.groups,
                layer.use_bias,
            )
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
            return nn.MaxPool2d(layer.pool_size, layer.stride, window(layer).pad_begin)
        case Flatten():
            return nn.Flatten()
    raise TypeError(f"there is no module for the layer {layer}")


def network(model: Model) -> nn.Sequential:
    """Return the same network with the same numbers, up to the logits."""
    modules = []
    for layer in model.layers:
        if isinstance(layer, Softmax):
            continue
        made = module(layer)
        for name, value in layer.arrays.items():
            rows = value.T if isinstance(layer, Dense) else value
            getattr(made, NAMES[name]).data.copy_(torch.from_numpy(np.array(rows, order="C")))
        modules.append(made)
    return nn.Sequential(*modules)


def train(model: Model, threads: int, memory_format=torch.contiguous_format, translate=lambda f: f):
    torch.set_num_threads(threads)
    peer = network(model).to(memory_format=memory_format)
    # A quarter faster at batch 64 than without fused, which is the default.
    optimizer = torch.optim.Adam(peer.parameters(), 2e-3, fused=True)
    loss_of = translate(lambda x, y: nn.functional.cross_entropy(peer(x), y))

    def step(x: np.ndarray, y: np.ndarray) -> float:
        images = torch.from_numpy(x).contiguous(memory_format=memory_format)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def train_channels_last(model: Model, threads: int):
    return train(model, threads, torch.channels_last)


def train_compiled(model: Model, threads: int):
    torch.compiler.reset()  # after some recompilations of one function it stays with eager
    return train(model, threads, translate=lambda f: torch.compile(f, dynamic=False))


def infer(model: Model, threads: int, memory_format=torch.contiguous_format):
    torch.set_num_threads(threads)
    peer = network(model).to(memory_format=memory_format).eval()

    @torch.inference_mode()
    def logits(x: np.ndarray) -> np.ndarray:
        return peer(torch.from_numpy(x).contiguous(memory_format=memory_format)).numpy()

    return logits


def infer_channels_last(model: Model, threads: int):
    return infer(model, threads, torch.channels_last)
