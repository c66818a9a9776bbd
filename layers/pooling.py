"""Pooling layers."""

from typing import Any

from kernels.geometry import standardize_padding, standardize_pair
from kernels.validation import make_pool_window
from layers.base import Layer, expect_image


class _Pool(Layer):
    """A layer that reduces each window of each channel to one number."""

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
    """Return the largest pixel of each window, for images (C, H, W).

    Of equal pixels, the first gets the gradient.

    Parameters
    ----------
    pool_size : int or pair of int
        Rows and columns of a window.
    stride : int or pair of int, optional
        Distance in pixels between neighboring windows. None: the pool size.
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        Smaller than the pool. Padding is never the largest pixel.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 9.3.

    Examples
    --------
    >>> MaxPool(2).forward(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    @property
    def is_non_overlapping(self) -> bool:
        """Whether the windows touch without overlap, and there is no padding."""
        return self._window_args == (self.pool_size, self.pool_size, ((0, 0), (0, 0)))

    def _forward(self, x, training):
        y, index = self.backend.max_pool(x, *self._window_args)
        return y, (index, x.shape)

    def _backward(self, dy, context):
        index, x_shape = context
        return self.backend.max_pool_grad(dy, index, x_shape, *self._window_args)


class AvgPool(_Pool):
    """Return the mean of each window, for images (C, H, W).

    Parameters
    ----------
    pool_size, stride, name
        As in `MaxPool`.
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        Smaller than the pool. Padding does not count in the mean.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    LeCun et al.: Gradient-based learning applied to document recognition (1998).

    Examples
    --------
    >>> AvgPool(2).forward(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    def _forward(self, x, training):
        return self.backend.avg_pool(x, *self._window_args), x.shape

    def _backward(self, dy, x_shape):
        return self.backend.avg_pool_grad(dy, x_shape, *self._window_args)


class GlobalMaxPool(Layer):
    """Return the largest pixel of each channel: images (C, H, W) become rows (C,).

    Of equal pixels, the first gets the gradient.

    Examples
    --------
    >>> GlobalMaxPool().forward(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 7.]])
    """

    def _build(self, input_shape):
        C, H, W = expect_image(input_shape)
        self._image_size = (H, W)
        return (C,)

    def _forward(self, x, training):
        y, index = self.backend.max_pool(x, self._image_size)
        return self.backend.flatten(y), (index, x.shape)

    def _backward(self, dy, context):
        index, x_shape = context
        dy = self.backend.flatten_grad(dy, (self.input_shape[0], 1, 1))
        return self.backend.max_pool_grad(dy, index, x_shape, self._image_size)


class GlobalAvgPool(Layer):
    """Return the mean of each channel: images (C, H, W) become rows (C,).

    References
    ----------
    Lin, Chen, Yan: Network in network (2014).

    Examples
    --------
    >>> GlobalAvgPool().forward(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[1.5, 5.5]])
    """

    def _build(self, input_shape):
        C, H, W = expect_image(input_shape)
        self._image_size = (H, W)
        return (C,)

    def _forward(self, x, training):
        y = self.backend.flatten(self.backend.avg_pool(x, self._image_size))
        return y, x.shape

    def _backward(self, dy, x_shape):
        dy = self.backend.flatten_grad(dy, (self.input_shape[0], 1, 1))
        return self.backend.avg_pool_grad(dy, x_shape, self._image_size)
