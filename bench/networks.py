"""The networks whose speed is measured, single layers, and the window geometry of layers.

The networks are frozen, so that figures of all versions compare. Those that users train are in
run.py and may change.
"""

from collections.abc import Callable

from kernels.geometry import Window, make_window
from layers import (
    AvgPool,
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
    walk,
)
from training import Model

CLASSES = 10


def sequential(layers: list[Layer], input_shape: tuple[int, int, int], options: dict) -> Model:
    """Return a model of some layers, followed by a classifier of `CLASSES` classes."""
    model = Model(input_shape, **options)
    for layer in (*layers, Dense(CLASSES, initializer="glorot"), Softmax()):
        model.add(layer)
    return model


def block(filters: int, kernel_size: int = 3, **options) -> list[Layer]:
    """Return the layers of a convolution without a bias, batch normalization and a ReLU."""
    # As "same" at a stride of 1. At a stride of 2, "same" is not symmetric, as PyTorch's is.
    padding = kernel_size // 2
    conv = Conv(filters, kernel_size, padding=padding, use_bias=False, **options)
    return [conv, BatchNorm(), Relu()]


def small(**options) -> Model:
    """Return a network of few filters, in which the sweeps and the calls of kernels count."""
    layers: list[Layer] = []
    for kernel_size in (5, 3):
        conv = Conv(5, kernel_size=kernel_size, padding="same")
        layers += [conv, BatchNorm(), LeakyRelu(), MaxPool(2)]
    layers += [Flatten()]
    for _ in range(2):
        layers += [Dense(256), BatchNorm(), LeakyRelu()]
    return sequential(layers, (1, 28, 28), options)


def wide(**options) -> Model:
    """Return a network of many filters, in which the arithmetic counts."""
    layers: list[Layer] = []
    for filters in (32, 64):
        for _ in range(2):
            layers += [Conv(filters, kernel_size=3, padding="same"), BatchNorm(), Relu()]
        layers += [MaxPool(2)]
    layers += [Flatten(), Dense(128), Relu()]
    return sequential(layers, (1, 28, 28), options)


def resnet9(**options) -> Model:
    """Return a residual network for color images, after the ResNet-9 of David Page (2018)."""
    layers = [*block(32), *block(64), MaxPool(2), Residual(*block(64), *block(64))]
    layers += [*block(128), MaxPool(2), *block(256), MaxPool(2)]
    layers += [Residual(*block(256), *block(256)), MaxPool(4), Flatten()]
    return sequential(layers, (3, 32, 32), options)


def mobile(**options) -> Model:
    """Return a network of depthwise separable convolutions, after MobileNet (Howard 2017)."""
    layers, channels = block(32), 32
    for filters, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += block(channels, stride=stride, groups=channels)
        layers += block(filters, kernel_size=1)
        channels = filters
    return sequential([*layers, GlobalAvgPool()], (3, 32, 32), options)


NETWORKS: dict[str, Callable[..., Model]] = {
    "small": small,
    "wide": wide,
    "resnet9": resnet9,
    "mobile": mobile,
}

# Layers that the networks `small` and `wide` do not have, and the images that they are timed on.
SHAPES = ((32, 32, 32), (64, 16, 16), (128, 8, 8))
LAYERS: list[tuple[Callable[[int], Layer], tuple[int, int, int]]] = [
    (make, shape)
    for make in (
        lambda C: Conv(C, kernel_size=3, padding="same", groups=C),
        lambda C: Conv(C, kernel_size=3, stride=2, padding=1, groups=C),
        lambda C: Conv(C, kernel_size=5, padding="same", groups=C),
        lambda C: Conv(C, kernel_size=5, stride=2, padding=2, groups=C),
        lambda C: Conv(2 * C, kernel_size=1),
        lambda C: Conv(2 * C, kernel_size=3, stride=2, padding=1),
        lambda C: AvgPool(2),
        lambda C: AvgPool(3, stride=2, padding=1),
        lambda C: GlobalAvgPool(),
    )
    for shape in SHAPES
]


def built_layers(name: str) -> list[Layer]:
    """Return the layers of a network, or those of LAYERS for the name "layers"."""
    if name == "layers":
        return [make(shape[0]).build(shape) for make, shape in LAYERS]
    return list(walk(NETWORKS[name]().layers))


def window(layer: Conv | MaxPool | AvgPool) -> Window:
    """Return the window geometry of a built layer, with its padding as numbers."""
    H, W = layer.input_shape[1:]
    if isinstance(layer, Conv):
        return make_window((H, W), layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return make_window((H, W), layer.pool_size, layer.stride, layer.padding)
