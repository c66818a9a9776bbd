"""The kernels that a training step runs, on the layers of a network, and the work of each."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.networks import NETWORKS, window
from kernels import get_backend
from kernels.numba_backend.packed import PackedBatch, convolution
from layers import BatchNorm, Conv, Dense, Layer, LeakyRelu, MaxPool
from training import Model

BACKEND: Any = get_backend("numba")
SHAPE, CLASSES = (1, 28, 28), 10


@dataclass(frozen=True)
class Kernel:
    """A call, and the work that it does.

    Attributes
    ----------
    operations : int
        Additions, multiplications and comparisons; of a convolution those of the direct sum.
    moved : int
        Bytes that must move: each input read once, each output written once.
    computes : bool
        Whether multiply-adds limit it, and not memory.
    in_place : int
        Bytes of the outputs that replace inputs, and so take no memory of their own.
    """

    name: str
    shape: str
    call: Callable[[], object]
    operations: int
    moved: int
    computes: bool = False
    in_place: int = 0

    @property
    def held(self) -> int:
        return self.moved - self.in_place


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def fresh(x: PackedBatch) -> PackedBatch:
    """Return the same activations without what kernels have kept with them, such as borders."""
    return PackedBatch(x.data, x.shape[0])


def size(*shapes: tuple[int, ...]) -> int:
    """Return the bytes of float32 arrays of these shapes."""
    return 4 * sum(math.prod(shape) for shape in shapes)


def name_of(*numbers: int) -> str:
    return "x".join(map(str, numbers))


def convolutions(layer: Conv, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    w, b = layer.params["weights"], layer.params.get("bias")
    place, need_dx = window(layer), layer.need_dx
    sliding = {
        "stride": layer.stride,
        "padding": place.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    shape = f"{name_of(*layer.input_shape)}, {len(w)} of {name_of(*place.size)}"
    operations = 2 * math.prod(dy.shape) * math.prod(w.shape[1:])
    arrays = size(x.shape, w.shape, dy.shape)

    def forward():
        return BACKEND.correlate(fresh(x), w, b, **sliding)

    def input_gradient():
        return convolution.input_gradient(fresh(dy), w, place, layer.groups)

    def weight_gradient():  # x has its border still from the way forward
        return convolution.weight_gradient(fresh(dy), x, w.shape, place, layer.groups)

    def both_gradients():
        return BACKEND.correlate_grad(fresh(dy), x, w, **sliding, need_dx=need_dx)

    yield Kernel("correlate", shape, forward, operations, arrays, True)
    if need_dx:
        yield Kernel("its input gradient", shape, input_gradient, operations, arrays, True)
    yield Kernel("its weight gradient", shape, weight_gradient, operations, arrays, True)
    dx = size(x.shape) if need_dx else 0
    twice = operations * (1 + need_dx)
    moved = arrays + size(w.shape) + dx
    yield Kernel("correlate_grad", shape, both_gradients, twice, moved, True)


def products(layer: Dense, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    w, b = layer.params["weights"], layer.params.get("bias")
    shape, arrays = f"{w.shape[0]} to {w.shape[1]}", size(x.shape, w.shape, dy.shape)
    operations = 2 * x.shape[0] * w.size
    yield Kernel("dense", shape, lambda: BACKEND.dense(x, w, b), operations, arrays, True)
    moved = arrays + size(x.shape, w.shape)
    yield Kernel(
        "dense_grad", shape, lambda: BACKEND.dense_grad(dy, x, w), 2 * operations, moved, True
    )


def normalizations(layer: BatchNorm, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    """With the activation behind it, as a model runs it."""
    gamma, beta = layer.params["gamma"], layer.params["beta"]
    mean, variance = layer.running_stats
    shape, count, negative_slope = (
        name_of(*layer.input_shape),
        math.prod(x.shape),
        LeakyRelu.negative_slope,
    )

    def forward():
        return BACKEND.batch_norm_relu(x, gamma, beta, layer.epsilon, negative_slope)

    def backward():
        return BACKEND.batch_norm_relu_grad(
            dy, x, gamma, beta, mean, variance, layer.epsilon, negative_slope
        )

    yield Kernel("batch_norm_relu", shape, forward, 9 * count, 2 * size(x.shape))
    yield Kernel("batch_norm_relu_grad", shape, backward, 14 * count, 3 * size(x.shape))


def activations(layer: LeakyRelu, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    shape, count = name_of(*layer.input_shape), math.prod(x.shape)
    moved = size(x.shape)
    yield Kernel(
        "leaky_relu",
        shape,
        lambda: BACKEND.leaky_relu(x, layer.negative_slope),
        2 * count,
        2 * moved,
    )
    yield Kernel(
        "leaky_relu_grad",
        shape,
        lambda: BACKEND.leaky_relu_grad(dy, x, layer.negative_slope),
        2 * count,
        3 * moved,
    )


def pools(layer: MaxPool, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    shape = name_of(*layer.input_shape)
    sliding = layer.pool_size, layer.stride, window(layer).padding
    _, index = BACKEND.max_pool(x, *sliding)
    moved = size(x.shape, dy.shape) + index.nbytes
    count = math.prod(x.shape)
    yield Kernel("max_pool", shape, lambda: BACKEND.max_pool(x, *sliding), count, moved)
    yield Kernel(
        "max_pool_grad",
        shape,
        lambda: BACKEND.max_pool_grad(dy, index, x.shape, *sliding),
        count,
        moved,
    )


def doors(model: Model, batch: int) -> Iterator[Kernel]:
    """The way in and out of a model, and its optimizer."""
    images, logits = draw(batch, *SHAPE), BACKEND.from_array(draw(batch, CLASSES))
    mean, std, shape = model.mean, model.std, name_of(*SHAPE)
    yield Kernel(
        "normalize_images",
        shape,
        lambda: BACKEND.normalize_images(images, mean, std, images.dtype),
        2 * images.size,
        2 * images.nbytes,
    )
    yield Kernel("to_array", str(CLASSES), lambda: BACKEND.to_array(logits), 0, 8 * batch * CLASSES)
    count = sum(layer.size for layer in model.layers)
    p, g, m, v = (np.abs(draw(count)) for _ in range(4))
    yield Kernel(
        "adam_step",
        f"{count:,} parameters",
        lambda: BACKEND.adam_step(p, g, m, v, 10, 1e-9, 0.9, 0.999, 1e-8, 0.0, 0.0),
        15 * count,
        28 * count,
        in_place=12 * count,
    )


OF_LAYER: dict[type[Layer], Callable] = {
    Conv: convolutions,
    Dense: products,
    BatchNorm: normalizations,
    LeakyRelu: activations,
    MaxPool: pools,
}


def kernels_of(network: str, batch: int) -> list[Kernel]:
    """Return each kernel once for each shape that it has in the network."""
    model = NETWORKS[network](SHAPE, CLASSES)
    found: dict[tuple[str, str], Kernel] = {}
    for layer in model.layers:
        for kind, make in OF_LAYER.items():
            if isinstance(layer, kind):
                x = BACKEND.from_array(draw(batch, *layer.input_shape))
                dy = BACKEND.from_array(draw(batch, *layer.output_shape))
                for kernel in make(layer, x, dy):
                    found.setdefault((kernel.name, kernel.shape), kernel)
    for kernel in doors(model, batch):
        found[kernel.name, kernel.shape] = kernel
    return list(found.values())
