"""The shapes of layers on which single kernels are timed."""

from typing import NamedTuple


class ConvShape(NamedTuple):
    """Channels, size of the image, filters and kernel size of a convolution."""

    channels: int
    size: int
    filters: int
    kernel: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        C, H, F, K, stride, groups = self
        options = f", stride {stride}" if stride > 1 else ""
        options += f", {groups} groups" if groups > 1 else ""
        return f"{C}x{H}x{H}, {F} of {K}x{K}{options}"


# The convolutions of the networks `small` and `wide`.
CONVOLUTIONS = {
    "small 1": ConvShape(1, 28, 5, 5),
    "small 2": ConvShape(5, 14, 5, 3),
    "wide 1": ConvShape(1, 28, 32, 3),
    "wide 2": ConvShape(32, 28, 32, 3),
    "wide 3": ConvShape(32, 14, 64, 3),
    "wide 4": ConvShape(64, 14, 64, 3),
}
OTHER_CONVOLUTIONS = {
    "depthwise": ConvShape(64, 16, 64, 3, groups=64),
    "depthwise 5x5": ConvShape(64, 16, 64, 5, groups=64),
    "depthwise, strided": ConvShape(64, 16, 64, 3, stride=2, groups=64),
    "1x1": ConvShape(64, 16, 128, 1),
    "strided": ConvShape(64, 16, 128, 3, stride=2),
}
# Channels and size of the image.
POOLS = {"small 1": (5, 28), "small 2": (5, 14), "wide 2": (32, 28), "wide 4": (64, 14)}
