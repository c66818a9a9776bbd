"""The two networks whose speed is measured, and the window geometry of their layers."""

from kernels.geometry import Window, make_window
from layers import Conv, MaxPool
from run import small, wide  # training takes 1.6 and 112 MFLOP an image

__all__ = ["NETWORKS", "small", "wide", "window"]


NETWORKS = {"small": small, "wide": wide}


def window(layer: Conv | MaxPool) -> Window:
    """Return the window geometry of a built layer, with its padding as numbers."""
    H, W = layer.input_shape[1:]
    if isinstance(layer, Conv):
        return make_window((H, W), layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return make_window((H, W), layer.pool_size, layer.stride, layer.padding)
