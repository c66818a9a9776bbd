"""Kernels and training steps compared with PyTorch's autograd, if PyTorch is installed."""

import numpy as np
import pytest
from hypothesis import given

from kernels import BACKENDS, get_backend
from layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Gelu,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    walk,
)
from tests.cases import assert_close, correlations, pools
from training import SGD, Adam, AdamW, Model, Momentum

torch = pytest.importorskip("torch", reason="PyTorch is not installed (torch==2.13.0)")
functional = torch.nn.functional
every_backend = pytest.mark.parametrize("backend", list(BACKENDS))


def torch_padded(x, window, value=0.0):
    (top, bottom), (left, right) = window.padding
    return functional.pad(x, (left, right, top, bottom), value=value)


@every_backend
@given(case=correlations(max_batch=5))
def test_correlate(backend, case):
    backend = get_backend(backend)
    x, w, b = (torch.tensor(a, requires_grad=True) for a in (case.x, case.w, case.b))
    window = case.window
    want = functional.conv2d(
        torch_padded(x, window), w, b, window.stride, 0, window.dilation, case.groups
    )
    arguments = {**case.sliding, "groups": case.groups}
    assert_close(backend.correlate(case.x, case.w, case.b, **arguments), want.detach().numpy())
    dy = case.gradient(len(case.w))
    want.backward(torch.tensor(dy))
    gradients = backend.correlate_grad(dy, case.x, case.w, **arguments)
    for got, tensor in zip(gradients, (x, w, b), strict=True):
        assert_close(got, tensor.grad.numpy())


@every_backend
@given(case=pools(max_batch=3))
def test_max_pool(backend, case):
    backend, window = get_backend(backend), case.window
    x = torch.tensor(case.x, requires_grad=True)
    padded = torch_padded(x, window, -np.inf)
    want = functional.max_pool2d(padded, window.size, window.stride)
    y, index = backend.max_pool(case.x, *case.arguments)
    np.testing.assert_array_equal(y, want.detach().numpy())
    dy = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
    want.backward(torch.tensor(dy))
    got = backend.max_pool_grad(dy, index, case.x.shape, *case.arguments)
    assert_close(got, x.grad.numpy())


def network(backend):
    """Return a model with many layer types, and the same network in PyTorch.

    There is no bias before a BatchNorm: its gradient is 0 up to rounding, and Adam would turn the
    rounding errors into steps of full size.
    """
    nn = torch.nn
    model = Model((2, 13, 11), backend=backend, dtype="float64", seed=4)
    model.add(Conv(4, (3, 2), stride=(2, 1), padding=((1, 2), (0, 1)), groups=2, use_bias=False))
    model.add(BatchNorm()).add(LeakyRelu()).add(MaxPool(3, stride=2, padding=1))
    model.add(Conv(6, 3, padding="same", dilation=2, use_bias=False))
    model.add(BatchNorm()).add(Relu()).add(AvgPool(2, stride=1))
    model.add(Conv(8, 1, use_bias=False)).add(Flatten()).add(Dense(12, use_bias=False))
    model.add(BatchNorm()).add(Relu()).add(Dense(9)).add(LeakyRelu()).add(Dense(5)).add(Softmax())
    reference = nn.Sequential(
        nn.ZeroPad2d((0, 1, 1, 2)),
        nn.Conv2d(2, 4, (3, 2), (2, 1), groups=2, bias=False),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.01),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2, 1),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.Flatten(),
        nn.Linear(model.layers[10].input_shape[0], 12, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 9),
        nn.LeakyReLU(0.01),
        nn.Linear(9, 5),
    ).double()
    ours = [value for layer in model.layers for value in layer.params.values()]
    with torch.no_grad():
        for tensor, value in zip(reference.parameters(), ours, strict=True):
            # The weights of PyTorch's Linear are (units, features).
            tensor.copy_(torch.tensor((value.T if value.ndim == 2 else value).copy()))
    return model, reference


OPTIMIZERS = {
    "SGD": (lambda: SGD(0.1, 0.01), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01)),
    "Momentum": (
        lambda: Momentum(0.05, 0.8, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.05, 0.8, nesterov=True, weight_decay=0.01),
    ),
    "Adam": (
        lambda: Adam(0.01, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    ),
    "AdamW": (
        lambda: AdamW(0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
}


@every_backend
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_training_steps(backend, name):
    """Losses and parameters are those of PyTorch after five batches of different sizes."""
    model, reference = network(backend)
    ours, theirs = OPTIMIZERS[name]
    model.compile(optimizer=ours())
    weights = [p for p in reference.parameters() if p.ndim > 1]
    others = [p for p in reference.parameters() if p.ndim == 1]
    optimizer = theirs([{"params": weights}, {"params": others, "weight_decay": 0}])
    rng = np.random.default_rng(0)
    for N in (7, 16, 2, 33, 5):
        x, y = rng.standard_normal((N, 2, 13, 11)), rng.integers(0, 5, N)
        loss = functional.cross_entropy(reference(torch.tensor(x)), torch.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert model.train_step(x, y) == pytest.approx(loss.item(), rel=1e-9)
    ours = [value for layer in model.layers for value in layer.params.values()]
    for tensor, value in zip(reference.parameters(), ours, strict=True):
        want = tensor.detach().numpy()
        np.testing.assert_allclose(value, want.T if want.ndim == 2 else want, rtol=1e-6, atol=1e-9)


@every_backend
def test_global_average_pool(backend):
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 7))
    layer = GlobalAvgPool().build((4, 5, 7), backend, "float64")
    assert_close(layer.forward(x), torch.tensor(x).mean(dim=(2, 3)).numpy())


@every_backend
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_loss(backend, smoothing):
    backend, rng = get_backend(backend), np.random.default_rng(0)
    logits, labels = rng.standard_normal((37, 5)), rng.integers(0, 5, 37)
    class_weight = np.array([0.0, 0.5, 1.0, 2.0, 7.0])
    loss, _, dlogits = backend.softmax_cross_entropy(
        logits, labels, smoothing, class_weight[labels]
    )
    x, y = torch.tensor(logits, requires_grad=True), torch.tensor(labels)
    weight = torch.tensor(class_weight)
    if smoothing:  # PyTorch would weight the smoothed part of the target by its own classes
        losses = functional.cross_entropy(x, y, reduction="none", label_smoothing=smoothing)
        want = (weight[y] * losses).mean()
    else:  # PyTorch divides by the sum of the weights
        want = functional.cross_entropy(x, y, weight) * weight[y].mean()
    want.backward()
    assert loss == pytest.approx(want.item(), rel=1e-12)
    assert_close(dlogits, x.grad.numpy())


@every_backend
@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (Silu, functional.silu),
        (Sigmoid, torch.sigmoid),
        (Tanh, torch.tanh),
        (Gelu, lambda x: functional.gelu(x, approximate="tanh")),
        (lambda: Relu(max_value=6), functional.relu6),
        (lambda: Relu(max_value=0.5), lambda x: functional.hardtanh(x, 0, 0.5)),
        (GlobalMaxPool, lambda x: x.amax(dim=(2, 3))),
    ],
)
def test_layer(backend, layer, function):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((5, 3, 4, 4)), rng.uniform(-50, 50, (4, 3, 4, 4))])
    x[0, 0, 0, :4] = 0, 0.5, 6, -0.0
    built = layer().build((3, 4, 4), backend, "float64")
    tensor = torch.tensor(x, requires_grad=True)
    want = function(tensor)
    got = built.forward(x)
    assert_close(got, want.detach().numpy())
    dy = rng.standard_normal(got.shape)
    want.backward(torch.tensor(dy))
    assert_close(built.backward(dy), tensor.grad.numpy())


class TorchResidual(torch.nn.Module):
    def __init__(self, body, shortcut=()):
        super().__init__()
        self.body, self.shortcut = torch.nn.Sequential(*body), torch.nn.Sequential(*shortcut)

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def residual_network(backend):
    """Return a model of residual blocks, and the same network in PyTorch."""
    nn = torch.nn
    model = Model((2, 8, 6), backend=backend, dtype="float64", seed=4)
    model.add(
        Residual(
            *(Conv(4, 3, stride=2, padding=1, use_bias=False), BatchNorm(), Silu()),
            Residual(Conv(4, 3, padding=1, use_bias=False), BatchNorm(), Gelu()),
            shortcut=[Conv(4, 1, stride=2, use_bias=False), BatchNorm()],
        )
    )
    model.add(Relu(max_value=6)).add(Residual(Tanh(), Conv(4, 1), Sigmoid()))
    model.add(GlobalMaxPool()).add(Residual(Dense(4), Silu())).add(Dense(5))
    outer = [
        *(nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.SiLU()),
        TorchResidual(
            [nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.GELU(approximate="tanh")]
        ),
    ]
    reference = nn.Sequential(
        TorchResidual(outer, [nn.Conv2d(2, 4, 1, 2, bias=False), nn.BatchNorm2d(4)]),
        nn.ReLU6(),
        TorchResidual([nn.Tanh(), nn.Conv2d(4, 4, 1), nn.Sigmoid()]),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        TorchResidual([nn.Linear(4, 4), nn.SiLU()]),
        nn.Linear(4, 5),
    ).double()
    ours = [value for layer in walk(model.layers) for value in layer.params.values()]
    with torch.no_grad():
        for tensor, value in zip(reference.parameters(), ours, strict=True):
            tensor.copy_(torch.tensor((value.T if value.ndim == 2 else value).copy()))
    return model, reference


@every_backend
def test_training_steps_of_residual_blocks(backend):
    """The losses are those of PyTorch, and so are the predictions after training."""
    model, reference = residual_network(backend)
    model.compile(Adam(0.01))
    optimizer = torch.optim.Adam(reference.parameters(), 0.01)
    rng = np.random.default_rng(0)
    for N in (7, 16, 2, 33, 16):
        x, y = rng.standard_normal((N, 2, 8, 6)), rng.integers(0, 5, N)
        loss = functional.cross_entropy(reference(torch.tensor(x)), torch.tensor(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert model.train_step(x, y) == pytest.approx(loss.item(), rel=1e-8)
    reference.eval()
    # PyTorch's running variance is the unbiased one, which differs in the batches above.
    for module, layer in zip(
        [m for m in reference.modules() if isinstance(m, torch.nn.BatchNorm2d)],
        [each for each in walk(model.layers) if isinstance(each, BatchNorm)],
        strict=True,
    ):
        module.running_mean.copy_(torch.tensor(layer.running_stats[0]))
        module.running_var.copy_(torch.tensor(layer.running_stats[1]))
    for N in (1, 40):
        x = rng.standard_normal((N, 2, 8, 6))
        want = reference(torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(model.logits(x), want, rtol=1e-7, atol=1e-9)
