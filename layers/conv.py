"""The convolutional layer."""

import math
from typing import Any

from kernels.geometry import flag, integer, make_window, pair, plain_padding
from layers.base import Layer, ShapeError, expect_image
from layers.initializers import INITIALIZERS, check_initializer


class Conv(Layer):
    """Correlate images with learned filters.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, stride, dilation : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
    groups : int
        Filter f sees only the channels of its group; it divides channels and filters.
    use_bias : bool
        Whether each filter adds a learned number. A BatchNorm behind makes it useless.
    initializer : "he" or "glorot"

    References
    ----------
    LeCun et al.: Gradient-based learning applied to document recognition (1998).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        use_bias: bool = True,
        initializer: str = "he",
        name: str | None = None,
    ):
        super().__init__(name)
        self.filters = integer(filters, "filters", 1)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = plain_padding(padding)
        self.dilation = pair(dilation, "dilation")
        self.groups = integer(groups, "groups", 1)
        self.use_bias = flag(use_bias, "use_bias")
        self.initializer = check_initializer(initializer)

    def _build(self, input_shape):
        C, H, W = expect_image(input_shape)
        if C % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"its {self.groups} groups must divide {C} channels and {self.filters} filters"
            )
        window = make_window((H, W), self.kernel_size, self.stride, self.padding, self.dilation)
        shape = (self.filters, C // self.groups, *self.kernel_size)
        taps = math.prod(self.kernel_size)
        fan_in, fan_out = shape[1] * taps, self.filters // self.groups * taps
        draw = INITIALIZERS[self.initializer]
        self.add_param("weights", shape, lambda shape: draw(self.rng, shape, fan_in, fan_out))
        if self.use_bias:
            self.add_param("bias", (self.filters,))
        self._sliding: dict[str, Any] = {
            "stride": self.stride,
            "padding": window.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return self.filters, *window.output

    def _forward(self, x, training):
        return self.apply(x, self.params.get("bias")), x

    def apply(self, x, bias, scale=None, slope=1.0):
        """Return the correlation, scaled, plus a bias, its negative numbers times the slope."""
        weights = self.params["weights"]
        return self.backend.correlate(x, weights, bias, **self._sliding, scale=scale, slope=slope)

    def _backward(self, dy, x):
        dx, dw, db = self.backend.correlate_grad(
            dy,
            x,
            self.params["weights"],
            **self._sliding,
            need_dx=self.need_dx,
            out=self.room("weights", "bias"),
        )
        self.set_grads(weights=dw, **({"bias": db} if self.use_bias else {}))
        return dx

    def config(self):
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "use_bias": self.use_bias,
            "initializer": self.initializer,
        }
