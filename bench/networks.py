"""The two networks that speed is measured on, and the layers that they are made of."""

from kernels.geometry import Window, make_window
from layers import BatchNorm, Conv, Dense, Flatten, MaxPool, Relu
from run import build_model as small  # 5 filters, 1.6 MFLOP an image to train
from training import Model

__all__ = ["NETWORKS", "small", "wide", "window"]


def wide(input_shape, classes, **options):
    """Return the wide network: 32 and 64 filters, 112 MFLOP an image to train."""
    model = Model(input_shape, **options)
    for filters in (32, 64):
        for _ in range(2):
            model.add(Conv(filters, kernel_size=3, padding="same")).add(BatchNorm()).add(Relu())
        model.add(MaxPool(2))
    model.add(Flatten()).add(Dense(128)).add(Relu()).add(Dense(classes))
    return model


NETWORKS = {"small": small, "wide": wide}


def window(layer: Conv | MaxPool) -> Window:
    """Return where the window of a built layer lands, with its padding in numbers."""
    H, W = layer.input_shape[1:]
    if isinstance(layer, Conv):
        return make_window((H, W), layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return make_window((H, W), layer.pool_size, layer.stride, layer.padding)
