"""Training steps and predictions of a PyTorch module, in float32 or under bfloat16 autocast.

The module imports nothing of this library: `bench.footprint` measures processes that train with
PyTorch alone.
"""

import os
from collections.abc import Callable

import numpy as np

# With more compile threads torch.compile forks, which is unsafe with JAX's threads.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from torch import nn


class ResidualModule(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def make_loss(net: nn.Module, dtype: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the mean loss of a batch as a function of the images and the labels.

    In bfloat16 it is mixed precision as PyTorch's documentation recommends: forward pass and loss
    run under autocast, the backward pass does not; weights stay float32. Autocast computes the
    cross-entropy of the logits in float32.
    """
    if dtype == "float32":
        return lambda x, y: nn.functional.cross_entropy(net(x), y)
    if dtype != "bfloat16":
        raise ValueError(f"dtype must be float32 or bfloat16, got {dtype!r}")

    def loss(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return nn.functional.cross_entropy(net(x), y)

    return loss


def make_step(
    net: nn.Module,
    threads: int,
    dtype: str,
    memory_format=torch.contiguous_format,
    transform=lambda function: function,
) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return a function that trains on a NumPy batch and returns its mean loss.

    ``transform`` is applied to the loss as a function of the batch, such as `torch.compile`.
    """
    torch.set_num_threads(threads)
    net = net.to(memory_format=memory_format).train()
    # fused=True, which is not the default, is a quarter faster at batch 64.
    optimizer = torch.optim.Adam(net.parameters(), 2e-3, fused=True)
    loss_of = transform(make_loss(net, dtype))

    def step(x: np.ndarray, y: np.ndarray) -> float:
        images = torch.from_numpy(x).contiguous(memory_format=memory_format)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def make_prediction(
    net: nn.Module, threads: int, memory_format=torch.contiguous_format
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from a NumPy batch to its logits."""
    torch.set_num_threads(threads)
    net = net.to(memory_format=memory_format).eval()

    @torch.inference_mode()
    def logits(x: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(x).contiguous(memory_format=memory_format)).numpy()

    return logits
