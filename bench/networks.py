"""The two networks that speed is measured on, and the layers that they are made of."""

from kernels.geometry import Window, make_window
from layers import Conv, MaxPool
from run import small, wide  # 1.6 and 112 MFLOP an image to train

__all__ = ["NETWORKS", "small", "wide", "window"]


NETWORKS = {"small": small, "wide": wide}


def window(layer: Conv | MaxPool) -> Window:
    """Return where the window of a built layer lands, with its padding in numbers."""
    H, W = layer.input_shape[1:]
    if isinstance(layer, Conv):
        return make_window((H, W), layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return make_window((H, W), layer.pool_size, layer.stride, layer.padding)
