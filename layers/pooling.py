"""Layers that shrink images."""

from typing import Any

from kernels.geometry import standardize_padding, standardize_pair
from kernels.validation import make_pool_window
from layers.base import Layer, expect_image


class _Pool(Layer):
    """A window that slides over each channel and keeps one number of it."""

    def __init__(
        self, pool_size: Any, stride: Any = None, padding: Any = 0, name: str | None = None
    ):
        super().__init__(name)
        self.pool_size = standardize_pair(pool_size, "pool_size")
        self.stride = self.pool_size if stride is None else standardize_pair(stride, "stride")
        self.padding = standardize_padding(padding)

    def _build(self, input_shape):
        C, H, W = expect_image(input_shape)
        window = make_pool_window((H, W), self.pool_size, self.stride, self.padding)
        self._window_args = (window.size, self.stride, window.padding)
        return C, *window.output

    def config(self):
        return {"pool_size": self.pool_size, "stride": self.stride, "padding": self.padding}


class MaxPool(_Pool):
    """Keep the largest pixel of each window; of equal ones, the first gets the gradient.

    Parameters
    ----------
    pool_size, stride, padding
        As in `AvgPool`. Padding is never the largest.
    """

    @property
    def is_non_overlapping(self) -> bool:
        """Whether the windows neither overlap nor leave gaps nor reach over the border."""
        return self._window_args == (self.pool_size, self.pool_size, ((0, 0), (0, 0)))

    def _forward(self, x, training):
        y, index = self.backend.max_pool(x, *self._window_args)
        return y, (index, x.shape)

    def _backward(self, dy, context):
        index, x_shape = context
        return self.backend.max_pool_grad(dy, index, x_shape, *self._window_args)


class AvgPool(_Pool):
    """Keep the mean of each window.

    Parameters
    ----------
    pool_size : int or pair of int
    stride : int or pair of int, optional
        None: the pool size.
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        Smaller than the pool. Padding does not count in the mean.
    """

    def _forward(self, x, training):
        return self.backend.avg_pool(x, *self._window_args), x.shape

    def _backward(self, dy, x_shape):
        return self.backend.avg_pool_grad(dy, x_shape, *self._window_args)


class GlobalAvgPool(Layer):
    """Keep the mean of each channel: (C, H, W) to (C,).

    References
    ----------
    Lin, Chen, Yan: Network in network (2014).
    """

    def _build(self, input_shape):
        C, H, W = expect_image(input_shape)
        self._image = (H, W)
        return (C,)

    def _forward(self, x, training):
        y = self.backend.flatten(self.backend.avg_pool(x, self._image))
        return y, x.shape

    def _backward(self, dy, x_shape):
        dy = self.backend.flatten_grad(dy, (self.input_shape[0], 1, 1))
        return self.backend.avg_pool_grad(dy, x_shape, self._image)
