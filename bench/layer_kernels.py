"""The kernels of a training step of a network, with the work that each of them does."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.networks import CLASSES, NETWORKS, built_layers, window
from kernels import get_backend
from kernels.geometry import make_window
from kernels.numba_backend.packed import PackedBatch, convolution
from layers import AvgPool, BatchNorm, Conv, Dense, GlobalAvgPool, Layer, LeakyRelu, MaxPool
from training import Model

BACKEND: Any = get_backend("numba")


@dataclass(frozen=True)
class Kernel:
    """A call of a kernel, and the work that it does.

    Attributes
    ----------
    operations : int
        Additions, multiplications and comparisons. For a convolution, those of the direct sum.
    moved : int
        Bytes that must be moved: each input read once, each output written once.
    computes : bool
        Whether multiply-adds limit the kernel, and not memory.
    in_place : int
        Bytes of outputs that replace inputs, and therefore need no memory of their own.
    """

    name: str
    shape: str
    call: Callable[[], object]
    operations: int
    moved: int
    computes: bool = False
    in_place: int = 0

    @property
    def footprint(self) -> int:
        """Bytes of memory that the inputs and outputs occupy."""
        return self.moved - self.in_place


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def fresh(x: PackedBatch) -> PackedBatch:
    """Return the same activations without what kernels cache with them, such as padding."""
    return PackedBatch(x.data, x.shape[0])


def n_bytes(*shapes: tuple[int, ...]) -> int:
    """Return the bytes of float32 arrays of these shapes."""
    return 4 * sum(math.prod(shape) for shape in shapes)


def join_sizes(*numbers: int) -> str:
    return "x".join(map(str, numbers))


def convolutions(layer: Conv, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    w, b = layer.params["weights"], layer.params.get("bias")
    geometry, need_dx = window(layer), layer.need_dx
    arguments = {
        "stride": layer.stride,
        "padding": geometry.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    shape = f"{join_sizes(*layer.input_shape)}, {len(w)} of {join_sizes(*geometry.size)}"
    shape += f", stride {join_sizes(*layer.stride)}" if layer.stride != (1, 1) else ""
    shape += f", {layer.groups} groups" if layer.groups > 1 else ""
    operations = 2 * math.prod(dy.shape) * math.prod(w.shape[1:])
    arrays = n_bytes(x.shape, w.shape, dy.shape)

    def forward():
        return BACKEND.correlate(fresh(x), w, b, **arguments)

    def input_gradient():
        return convolution.input_gradient(fresh(dy), w, geometry, layer.groups)

    def weight_gradient():  # x still has its padding from the forward pass
        return convolution.weight_gradient(fresh(dy), x, w.shape, geometry, layer.groups)

    def both_gradients():
        return BACKEND.correlate_grad(fresh(dy), x, w, **arguments, need_dx=need_dx)

    yield Kernel("correlate", shape, forward, operations, arrays, True)
    if need_dx:
        yield Kernel("input gradient alone", shape, input_gradient, operations, arrays, True)
    yield Kernel("weight gradient alone", shape, weight_gradient, operations, arrays, True)
    dx = n_bytes(x.shape) if need_dx else 0
    both = operations * (1 + need_dx)
    moved = arrays + n_bytes(w.shape) + dx
    yield Kernel("correlate_grad", shape, both_gradients, both, moved, True)


def products(layer: Dense, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    w, b = layer.params["weights"], layer.params.get("bias")
    shape, arrays = f"{w.shape[0]} to {w.shape[1]}", n_bytes(x.shape, w.shape, dy.shape)
    operations = 2 * x.shape[0] * w.size
    yield Kernel("dense", shape, lambda: BACKEND.dense(x, w, b), operations, arrays, True)
    moved = arrays + n_bytes(x.shape, w.shape)
    yield Kernel(
        "dense_grad", shape, lambda: BACKEND.dense_grad(dy, x, w), 2 * operations, moved, True
    )


def normalizations(layer: BatchNorm, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    """Yield BatchNorm with the activation that follows it, as a model runs it."""
    gamma, beta = layer.params["gamma"], layer.params["beta"]
    mean, variance = layer.running_stats
    shape, count, activation = (
        join_sizes(*layer.input_shape),
        math.prod(x.shape),
        LeakyRelu().activation,
    )

    def forward():
        return BACKEND.batch_norm_activation(x, gamma, beta, layer.epsilon, activation)

    def backward():
        return BACKEND.batch_norm_activation_grad(
            dy, x, gamma, beta, mean, variance, layer.epsilon, activation
        )

    yield Kernel("batch_norm_relu", shape, forward, 9 * count, 2 * n_bytes(x.shape))
    yield Kernel("batch_norm_relu_grad", shape, backward, 14 * count, 3 * n_bytes(x.shape))


def activations(layer: LeakyRelu, x: PackedBatch, dy: PackedBatch) -> Iterator[Kernel]:
    shape, count = join_sizes(*layer.input_shape), math.prod(x.shape)
    moved = n_bytes(x.shape)
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
    shape = join_sizes(*layer.input_shape)
    arguments = layer.pool_size, layer.stride, window(layer).padding
    _, index = BACKEND.max_pool(x, *arguments)
    moved = n_bytes(x.shape, dy.shape) + index.nbytes
    count = math.prod(x.shape)
    yield Kernel("max_pool", shape, lambda: BACKEND.max_pool(x, *arguments), count, moved)
    yield Kernel(
        "max_pool_grad",
        shape,
        lambda: BACKEND.max_pool_grad(dy, index, x.shape, *arguments),
        count,
        moved,
    )


def average_pools(
    layer: AvgPool | GlobalAvgPool, x: PackedBatch, dy: PackedBatch
) -> Iterator[Kernel]:
    is_global = isinstance(layer, GlobalAvgPool)
    image = x.shape[2:]
    geometry = make_window(image, image, image) if is_global else window(layer)
    arguments = geometry.size, geometry.stride, geometry.padding
    shape = f"{join_sizes(*layer.input_shape)} by {join_sizes(*geometry.size)}"
    shape += f", stride {join_sizes(*geometry.stride)}" if geometry.stride != geometry.size else ""
    dy = dy.reshape(x.shape[1], *geometry.output)
    count, moved = math.prod(x.shape), n_bytes(x.shape, dy.shape)
    yield Kernel("avg_pool", shape, lambda: BACKEND.avg_pool(x, *arguments), count, moved)
    yield Kernel(
        "avg_pool_grad",
        shape,
        lambda: BACKEND.avg_pool_grad(dy, x.shape, *arguments),
        count,
        moved,
    )


def boundary(model: Model, batch: int) -> Iterator[Kernel]:
    """Yield the conversions of a model's input and output, and its optimizer."""
    images, logits = draw(batch, *model.input_shape), BACKEND.from_array(draw(batch, CLASSES))
    mean, std, shape = model.mean, model.std, join_sizes(*model.input_shape)
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


KERNELS_OF_LAYER: dict[type[Layer], Callable] = {
    Conv: convolutions,
    Dense: products,
    BatchNorm: normalizations,
    LeakyRelu: activations,
    MaxPool: pools,
    AvgPool: average_pools,
    GlobalAvgPool: average_pools,
}


def kernels_of(name: str, batch: int) -> list[Kernel]:
    """Return each kernel once for each shape on which a network, or one of "layers", runs it."""
    found: dict[tuple[str, str], Kernel] = {}
    for layer in built_layers(name):
        for kind, make in KERNELS_OF_LAYER.items():
            if isinstance(layer, kind):
                x = BACKEND.from_array(draw(batch, *layer.input_shape))
                dy = BACKEND.from_array(draw(batch, *layer.output_shape))
                for kernel in make(layer, x, dy):
                    found.setdefault((kernel.name, kernel.shape), kernel)
    if name in NETWORKS:
        for kernel in boundary(NETWORKS[name](), batch):
            found[kernel.name, kernel.shape] = kernel
    return list(found.values())
