"""The fully connected layer, and the way from images to rows."""

import math

from kernels.scalars import check_bool, check_int
from layers.base import Layer, expect_rows
from layers.initializers import INITIALIZERS, check_initializer


class Dense(Layer):
    """Multiply rows by a learned matrix: y = x @ weights + bias.

    Parameters
    ----------
    units : int
        Length of the output's rows.
    use_bias : bool
    initializer : "he" or "glorot"
    """

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        initializer: str = "he",
        name: str | None = None,
    ):
        super().__init__(name)
        self.units = check_int(units, "units", 1)
        self.use_bias = check_bool(use_bias, "use_bias")
        self.initializer = check_initializer(initializer)

    def _build(self, input_shape):
        features = expect_rows(input_shape)
        draw = INITIALIZERS[self.initializer]
        self.add_param(
            "weights",
            (features, self.units),
            lambda shape: draw(self.rng, shape, features, self.units),
        )
        if self.use_bias:
            self.add_param("bias", (self.units,))
        return (self.units,)

    def _forward(self, x, training):
        return self.apply(x, self.params.get("bias")), x

    def apply(self, x, bias, scale=None, negative_slope=1.0):
        """Return scale * (x @ weights) + bias, its negative numbers times the slope."""
        return self.backend.dense(x, self.params["weights"], bias, scale, negative_slope)

    def _backward(self, dy, x):
        dx, dw, db = self.backend.dense_grad(
            dy, x, self.params["weights"], self.need_dx, self.grad_buffers("weights", "bias")
        )
        self.set_grads(weights=dw, **({"bias": db} if self.use_bias else {}))
        return dx

    def config(self):
        return {
            "units": self.units,
            "use_bias": self.use_bias,
            "initializer": self.initializer,
        }


class Flatten(Layer):
    """Lay the pixels of each image out in one row: (C, H, W) to (C * H * W,)."""

    def _build(self, input_shape):
        return (math.prod(input_shape),)

    def _forward(self, x, training):
        return (self.backend.flatten(x) if len(self.input_shape) == 3 else x), ()

    def _backward(self, dy, context):
        return self.backend.flatten_grad(dy, self.input_shape) if len(self.input_shape) == 3 else dy
