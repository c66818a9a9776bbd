"""The networks whose speed is measured, single layers, and the window geometry of layers."""

from collections.abc import Callable

from kernels.geometry import Window, make_window
from layers import AvgPool, Conv, GlobalAvgPool, Layer, MaxPool
from run import mobile, small, wide
from training import Model

__all__ = ["CLASSES", "INPUT_SHAPES", "LAYERS", "NETWORKS", "built_layers", "mobile", "small",
           "wide", "window"]  # fmt: skip


NETWORKS: dict[str, Callable[..., Model]] = {"small": small, "wide": wide, "mobile": mobile}
INPUT_SHAPES = {"small": (1, 28, 28), "wide": (1, 28, 28), "mobile": (3, 32, 32)}
CLASSES = 10

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
    return NETWORKS[name](INPUT_SHAPES[name], CLASSES).layers


def window(layer: Conv | MaxPool | AvgPool) -> Window:
    """Return the window geometry of a built layer, with its padding as numbers."""
    H, W = layer.input_shape[1:]
    if isinstance(layer, Conv):
        return make_window((H, W), layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return make_window((H, W), layer.pool_size, layer.stride, layer.padding)
