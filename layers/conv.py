"""The convolutional layer."""

import math
from typing import Any

from kernels.geometry import make_window, standardize_padding, standardize_pair
from kernels.scalars import check_bool, check_int
from layers.base import Layer, ShapeError, expect_image
from layers.initializers import INITIALIZERS, check_initializer


class Conv(Layer):
    """Cross-correlate images (C, H, W) with learned filters.

    Parameters
    ----------
    filters : int
        Number of filters, which is the number of channels of the output.
    kernel_size : int or pair of int
        Rows and columns of a filter.
    stride : int or pair of int
        Distance in pixels between neighboring positions of the filter.
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        Rows and columns of zeros around the image. "same" gives ceil(H / stride) rows of output,
        and "valid" is no padding.
    dilation : int or pair of int
        Distance in pixels between the inputs of neighboring weights of a filter.
    groups : int
        Number of groups that the channels and the filters are split into. A filter only sees the
        channels of its group. Channels and filters must be multiples of it.
    use_bias : bool
        Whether each filter adds a learned bias. A BatchNorm after the layer cancels it.
    initializer : "he" or "glorot"
        Distribution of the initial weights.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    LeCun et al.: Gradient-based learning applied to document recognition (1998).

    Examples
    --------
    >>> x = np.zeros((10, 3, 28, 28), np.float32)
    >>> Conv(8, kernel_size=5, stride=2, padding="same").forward(x).shape
    (10, 8, 14, 14)
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
        self.filters = check_int(filters, "filters", 1)
        self.kernel_size = standardize_pair(kernel_size, "kernel_size")
        self.stride = standardize_pair(stride, "stride")
        self.padding = standardize_padding(padding)
        self.dilation = standardize_pair(dilation, "dilation")
        self.groups = check_int(groups, "groups", 1)
        self.use_bias = check_bool(use_bias, "use_bias")
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
        initialize = INITIALIZERS[self.initializer]
        self.add_param("weights", shape, lambda shape: initialize(self.rng, shape, fan_in, fan_out))
        if self.use_bias:
            self.add_param("bias", (self.filters,))
        self._window_args: dict[str, Any] = {
            "stride": self.stride,
            "padding": window.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return self.filters, *window.output

    @property
    def is_depthwise(self) -> bool:
        """Whether there is one filter for each channel."""
        return self.groups == self.filters == self.input_shape[0]

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of the output depends on the same pixel of the input alone."""
        is_single_pixel = self.kernel_size == self.stride == (1, 1) and self.groups == 1
        return is_single_pixel and self.output_shape[1:] == self.input_shape[1:]

    def _forward(self, x, training):
        return self.apply(x, self.params.get("bias")), x

    def apply(self, x, bias, scale=None, activation=None):
        """Return the correlation with the weights, scaled, biased and activated.

        Parameters
        ----------
        x : (N, C, H, W)
        bias, scale : (filters,), optional
            Used instead of the bias of the layer. None: 0 and 1.
        activation : one of `kernels.activations`, optional
            Function that is applied to the results.
        """
        weights = self.params["weights"]
        return self.backend.correlate(
            x, weights, bias, **self._window_args, scale=scale, activation=activation
        )

    def _backward(self, dy, x):
        dx, dw, db = self.backend.correlate_grad(
            dy,
            x,
            self.params["weights"],
            **self._window_args,
            need_dx=self.need_dx,
            out=self.grad_buffers("weights", "bias"),
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
