"""The PyTorch side of `bench.time_to_accuracy`: networks, optimizers and steps of its recipes."""

from collections.abc import Callable

import numpy as np

from bench.competitors_torch import network
from bench.torch_steps import nn, torch
from training import AdamW, Model, Muon
from training.cli.architectures import Recipe
from training.optimizers import QUINTIC


def make_step(
    model: Model, recipe: Recipe, threads: int, channels_last: bool
) -> tuple[Callable[[np.ndarray, np.ndarray, float], float], Callable[[np.ndarray], np.ndarray]]:
    """Return functions that train on a batch and that predict labels, of a model in PyTorch.

    Parameters
    ----------
    model : Model
        It has its initial weights, and is not changed.
    recipe : Recipe
    threads : int
    channels_last : bool
        The layout of images and weights.

    Returns
    -------
    step : callable
        Called with images (N, C, H, W), labels (N,) and the learning rate. Returns the loss.
    predict : callable
        Called with images.
    """
    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = network(model).to(memory_format=layout)
    mean, std = (torch.from_numpy(v.copy())[:, None, None] for v in (model.mean, model.std))
    update = _make_update(net, recipe)

    def normalized(images):
        return ((torch.from_numpy(images).float() - mean) / std).contiguous(memory_format=layout)

    def step(images, labels, learning_rate):
        net.train()
        net.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(
            net(normalized(images)),
            torch.from_numpy(labels),
            label_smoothing=recipe.label_smoothing,
        )
        loss.backward()
        update(learning_rate)
        return loss.item()

    @torch.inference_mode()
    def predict(images):
        net.eval()
        parts = [net(normalized(images[i : i + 250])).argmax(1) for i in range(0, len(images), 250)]
        return torch.cat(parts).numpy()

    return step, predict


def _make_update(net: nn.Module, recipe: Recipe) -> Callable[[float], None]:
    """Return a function of the learning rate that applies the gradients."""
    filters = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    if recipe.optimizer == "adamw":
        filters = []
    ours = {"adamw": AdamW, "muon": Muon}[recipe.optimizer](recipe.learning_rate)
    known = {id(weights) for weights in filters}
    rest = [p for p in net.parameters() if id(p) not in known]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = ours.beta1, ours.beta2
    adamw = torch.optim.AdamW(groups, recipe.learning_rate, betas, ours.epsilon, fused=True)
    momenta = [torch.zeros_like(weights.flatten(1)) for weights in filters]

    @torch.no_grad()
    def update(learning_rate):
        for group in adamw.param_groups:
            group["lr"] = learning_rate * getattr(ours, "adam_ratio", 1.0)
        adamw.step()
        for weights, momentum in zip(filters, momenta, strict=True):
            gradient = weights.grad.flatten(1)
            momentum.mul_(ours.momentum).add_(gradient)
            step = _orthogonalize(gradient + ours.momentum * momentum, ours.iterations)
            share = learning_rate * weights.norm() / step.norm()
            weights.sub_(share * step.view(weights.shape)).mul_((1 + learning_rate**2) ** -0.5)

    return update


def _orthogonalize(matrix, iterations: int):
    """Return what `training.optimizers.orthogonalize` does."""
    a, b, c = QUINTIC
    if matrix.shape[0] > matrix.shape[1]:
        return _orthogonalize(matrix.T, iterations).T
    x = matrix / matrix.norm()
    identity = torch.eye(len(x), dtype=x.dtype)
    gram, product = x @ x.T, identity
    for _ in range(iterations):
        polynomial = a * identity + (b * identity + c * gram) @ gram
        product, gram = polynomial @ product, polynomial @ gram @ polynomial
    return product @ x
