"""The fully connected layer, and flattening."""

import math

from kernels.scalars import check_bool, check_int
from layers.base import Layer, expect_rows
from layers.initializers import INITIALIZERS, check_initializer


class Dense(Layer):
    """Multiply rows (features,) by a learned matrix: y = x @ weights + bias.

    Parameters
    ----------
    units : int
        Number of outputs of a row.
    use_bias : bool
        Whether each unit adds a learned bias. A BatchNorm after the layer cancels it.
    initializer : "he" or "glorot"
        Distribution of the initial weights.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), chapter 6.

    Examples
    --------
    >>> Dense(10).forward(np.zeros((5, 32), np.float32)).shape
    (5, 10)
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
        initialize = INITIALIZERS[self.initializer]
        self.add_param(
            "weights",
            (features, self.units),
            lambda shape: initialize(self.rng, shape, features, self.units),
        )
        if self.use_bias:
            self.add_param("bias", (self.units,))
        return (self.units,)

    def _forward(self, x, training):
        return self.apply(x, self.params.get("bias")), x

    def apply(self, x, bias, scale=None, activation=None):
        """Return scale * (x @ weights) + bias, activated.

        Parameters
        ----------
        x : (N, features)
        bias, scale : (units,), optional
            Used instead of the bias of the layer. None: 0 and 1.
        activation : one of `kernels.activations`, optional
            Function that is applied to the results.
        """
        return self.backend.dense(x, self.params["weights"], bias, scale, activation)

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
    """Turn images (C, H, W) into rows (C * H * W,). Rows remain as they are.

    Examples
    --------
    >>> Flatten().forward(np.zeros((5, 2, 4, 4), np.float32)).shape
    (5, 32)
    """

    def _build(self, input_shape):
        return (math.prod(input_shape),)

    def _forward(self, x, training):
        return (self.backend.flatten(x) if len(self.input_shape) == 3 else x), ()

    def _backward(self, dy, context):
        return self.backend.flatten_grad(dy, self.input_shape) if len(self.input_shape) == 3 else dy
