"""Depthwise separable correlation, composed of two correlations."""

from collections.abc import Callable


def compose_separable(correlate: Callable) -> Callable:
    """Return `kernels.interface.Backend.separable_correlate` by the correlation of a backend."""

    def separable_correlate(
        x,
        w,
        pointwise_w,
        b=None,
        pointwise_b=None,
        stride=1,
        padding=0,
        dilation=1,
        scale=None,
        pointwise_scale=None,
        activation=None,
        pointwise_activation=None,
    ):
        groups = x.shape[1] if len(getattr(x, "shape", ())) == 4 else 1
        y = correlate(x, w, b, stride, padding, dilation, groups, scale, activation)
        return correlate(
            y,
            pointwise_w,
            pointwise_b,
            scale=pointwise_scale,
            activation=pointwise_activation,
        )

    return separable_correlate
