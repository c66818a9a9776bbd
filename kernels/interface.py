"""The functions of every backend: their arguments, formulas, shapes and sources.

`kernels.get_backend` returns a module that fits the protocol `Backend`. All backends have the
same functions, and each function has the same parameters, in the same order and with the same
names and defaults, on every backend.

Shapes: N images or rows in a batch, C channels, H rows and W columns of pixels, F filters, KH
rows and KW columns of a kernel or pool, OH rows and OW columns of an output.

Plain arrays are float32 or float64, and all arrays of one call have the same dtype. Arrays of
another memory layout or byte order are copied. Every function that takes arrays raises TypeError
for a wrong type or dtype and ValueError for a wrong shape or value; the message names the
argument. An array that a function writes to (``out``, an optimizer's vectors, running statistics)
must be contiguous and must share no memory with the other arguments.

Inside a model, arrays of activations are opaque to the layers, but for their ``shape`` and
``dtype``: a backend may keep activations in a memory layout of its own between `from_array` or
`normalize_images` and `to_array`.

A gradient dy of such activations must be the result of `from_array`, of `softmax_cross_entropy`, of
a function whose name ends in ``_grad``, or of `add` of two of these. The output of another function
may hold other values in its padding, which a gradient function would add to its sums.

Mixed precision
---------------
``get_backend(name, "bfloat16")`` returns a backend with the same functions, and those of
`MixedBackend`, whose activations and their gradients are rounded to bfloat16: each x, y, dy and dx
below. Weights are float32 and are rounded where `correlate` and `dense` multiply them. All sums,
the gradients dw and db, biases, the parameters and statistics of `batch_norm`, and the optimizers
stay in float32. So do the logits and gradient of `softmax_cross_entropy`. Plain arrays that are
passed in and returned are float32; float64 is a TypeError. `kernels.mixed_precision` lists what
each function rounds.

Examples
--------
>>> import numpy as np
>>> from kernels import get_backend
>>> backend = get_backend("numpy")
>>> y, index = backend.max_pool(np.arange(16.0).reshape(1, 1, 4, 4), pool_size=2)
>>> y
array([[[[ 5.,  7.],
         [13., 15.]]]])
"""

from typing import Any, Protocol

import numpy as np

from kernels.activations import Activation

Array = np.ndarray
Shape = tuple[int, ...]


class Backend(Protocol):
    """The arithmetic of a convolutional network.

    The examples below use ``backend = get_backend("numpy")``; the other backends give the same
    numbers up to rounding.
    """

    @property
    def __name__(self) -> str: ...

    def set_threads(self, threads: int) -> None:
        """Set the number of threads that the backend computes with.

        Parameters
        ----------
        threads : int
            From 1 to the number of processors of the machine.

        Raises
        ------
        TypeError, ValueError
            If ``threads`` is no integer, or out of range.
        """

    def kernel_choices(self) -> dict[str, str]:
        """Return which kernels this process has chosen where several compute the same.

        Such kernels differ in their rounding, and the numba backend measures which one is the
        fastest. Together with the seed, the choices decide the bits of a training.

        Returns
        -------
        choices : dict of str to str
            The name of the kernel for each computation on arrays of certain shapes, which the key
            describes. Empty on a backend with a single kernel for everything.

        Examples
        --------
        >>> backend.kernel_choices()
        {}
        """

    def pin_kernel_choices(self, choices: dict[str, str]) -> None:
        """Choose the same kernels as another process, in this process from now on.

        What the choices do not contain, and what does not exist on this processor, is chosen as
        before. A step that was captured before keeps its kernels. A backend with a single kernel
        for everything only checks the choices.

        Parameters
        ----------
        choices : dict of str to str
            A result of `kernel_choices`. It replaces the choices that were pinned before; {} pins
            nothing.

        Raises
        ------
        TypeError
            If ``choices`` is no dict of str to str.

        Examples
        --------
        >>> backend.pin_kernel_choices(backend.kernel_choices())
        """

    # -- convolution ---------------------------------------------------------------------------
    def correlate(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        scale: Array | None = None,
        activation: Activation | None = None,
    ) -> Array:
        """Return the cross-correlation of images with filters: the "convolution" of networks.

        y[n, f, i, j] = b[f] + sum over c, k, m of
        w[f, c, k, m] * x[n, c, i * stride + k * dilation, j * stride + m * dilation]

        Parameters
        ----------
        x : (N, C, H, W)
        w : (F, C / groups, KH, KW)
        b : (F,), optional
            Bias of each filter. None: 0.
        stride, dilation : int or pair of int
            Pixels between two windows, and between two taps of a window.
        padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
            Rows and columns of zeros around each image.
        groups : int
            Number of groups. Filter f only sees the channels of group f // (F / groups).
        scale : (F,), optional
            Factor of each filter's sum, applied before the bias is added. None: 1.
        activation : one of `kernels.activations`, optional
            Function that is applied to the results, as by `activate`.

        Returns
        -------
        y : (N, F, OH, OW)

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 9.1.
        Dumoulin, Visin: A guide to convolution arithmetic for deep learning (2016).

        Examples
        --------
        >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
        >>> backend.correlate(x, np.ones((1, 1, 2, 2)))
        array([[[[ 8., 12.],
                 [20., 24.]]]])
        """

    def separable_correlate(
        self,
        x: Array,
        w: Array,
        pointwise_w: Array,
        b: Array | None = None,
        pointwise_b: Array | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        scale: Array | None = None,
        pointwise_scale: Array | None = None,
        activation: Activation | None = None,
        pointwise_activation: Activation | None = None,
    ) -> Array:
        """Return the depthwise separable correlation of images with filters, for prediction.

        This is `correlate` with a filter for each channel, followed by `correlate` with filters of
        1x1. A backend may compute both at once, without the numbers in between in memory.

        Parameters
        ----------
        x : (N, C, H, W)
        w : (C, 1, KH, KW)
        pointwise_w : (F, C, 1, 1)
        b, scale : (C,), optional
            Of the depthwise correlation, as in `correlate`; likewise stride, padding, dilation and
            activation.
        pointwise_b, pointwise_scale : (F,), optional
            Of the 1x1 correlation, and so is pointwise_activation.

        Returns
        -------
        y : (N, F, OH, OW)

        References
        ----------
        Howard et al.: MobileNets (2017).

        Examples
        --------
        >>> x = np.arange(8.0).reshape(1, 2, 2, 2)
        >>> backend.separable_correlate(x, np.ones((2, 1, 2, 2)), np.ones((1, 2, 1, 1)))
        array([[[[28.]]]])
        """

    def correlate_grad(
        self,
        dy: Array,
        x: Array,
        w: Array,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        need_dx: bool = True,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array | None, Array, Array]:
        """Return the gradients of `correlate`.

        Parameters
        ----------
        dy : (N, F, OH, OW)
            Gradient of the loss with respect to the output.
        x, w, stride, padding, dilation, groups
            As in `correlate`.
        need_dx : bool
            Whether to compute dx. The first layer of a network does not need it.
        out : (dw, db), optional
            Arrays for the gradients of the parameters, or None in place of one. A backend may
            write a gradient to its array and return this array, or return a new array.

        Returns
        -------
        dx : (N, C, H, W) or None
            None if not needed.
        dw : (F, C / groups, KH, KW)
        db : (F,)

        Examples
        --------
        >>> x, w = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2))
        >>> dx, dw, db = backend.correlate_grad(np.ones((1, 1, 2, 2)), x, w)
        >>> dw
        array([[[[ 8., 12.],
                 [20., 24.]]]])
        """

    def im2col(
        self, x: Array, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
    ) -> Array:
        """Return the pixels under each window position as a column.

        Parameters
        ----------
        x : (N, C, H, W)
        kernel_size : int or pair of int
        stride, padding, dilation
            As in `correlate`.

        Returns
        -------
        cols : (N, C * KH * KW, OH * OW)

        References
        ----------
        Chellapilla, Puri, Simard: High performance convolutional neural networks for
        document processing (2006).

        Examples
        --------
        >>> backend.im2col(np.arange(6.0).reshape(1, 1, 2, 3), kernel_size=2)
        array([[[0., 1.],
                [1., 2.],
                [3., 4.],
                [4., 5.]]])
        """

    def col2im(
        self,
        cols: Array,
        x_shape: Shape,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
    ) -> Array:
        """Add each column to the pixels that `im2col` took it from: the transpose of `im2col`.

        Parameters
        ----------
        cols : (N, C * KH * KW, OH * OW)
        x_shape : (N, C, H, W)
        kernel_size, stride, padding, dilation
            As in `im2col`.

        Returns
        -------
        x : (N, C, H, W)

        Examples
        --------
        >>> backend.col2im(np.ones((1, 4, 2)), (1, 1, 2, 3), kernel_size=2)
        array([[[[1., 2., 1.],
                 [1., 2., 1.]]]])
        """

    def correlate_im2col(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Array:
        """Return the result of `correlate`, computed by `im2col` and a matrix product.

        The parameters are those of `correlate`.
        """

    # -- pooling -------------------------------------------------------------------------------
    def max_pool(
        self, x: Array, pool_size: Any, stride: Any = None, padding: Any = 0
    ) -> tuple[Array, Array]:
        """Return the largest pixel of each window and its position.

        Parameters
        ----------
        x : (N, C, H, W)
        pool_size : int or pair of int
        stride : int or pair of int, optional
            None: the pool size.
        padding : as in `correlate`, smaller than the pool
            Padding is never the largest pixel.

        Returns
        -------
        y : (N, C, OH, OW)
            NaN if a window contains NaN.
        index : (N, C, OH, OW), int32
            Position row * W + column in the image. Of equal pixels, the first in the window.
            For activations in a layout of its own, a backend may return another array, which
            only its own `max_pool_grad` understands, or None if the activations have no gradient
            functions (`normalize_images` with ``predict=True``).

        Examples
        --------
        >>> y, index = backend.max_pool(np.array([[[[1.0, 4.0], [3.0, 2.0]]]]), pool_size=2)
        >>> y, index
        (array([[[[4.]]]]), array([[[[1]]]], dtype=int32))
        """

    def max_pool_grad(
        self,
        dy: Array,
        index: Array,
        x_shape: Shape,
        pool_size: Any,
        stride: Any = None,
        padding: Any = 0,
    ) -> Array:
        """Return the gradient of `max_pool` with respect to x.

        Parameters
        ----------
        dy : (N, C, OH, OW)
            Gradient of the loss with respect to the output.
        index : (N, C, OH, OW)
            As returned by `max_pool`.
        x_shape : (N, C, H, W)
        pool_size, stride, padding
            As in `max_pool`.

        Returns
        -------
        dx : (N, C, H, W)
        """

    def avg_pool(self, x: Array, pool_size: Any, stride: Any = None, padding: Any = 0) -> Array:
        """Return the mean of each window. Padding does not count in the mean.

        The parameters are those of `max_pool`.

        Returns
        -------
        y : (N, C, OH, OW)

        Examples
        --------
        >>> backend.avg_pool(np.arange(4.0).reshape(1, 1, 2, 2), pool_size=2)
        array([[[[1.5]]]])
        """

    def avg_pool_grad(
        self, dy: Array, x_shape: Shape, pool_size: Any, stride: Any = None, padding: Any = 0
    ) -> Array:
        """Return the gradient of `avg_pool` with respect to x.

        Parameters
        ----------
        dy : (N, C, OH, OW)
            Gradient of the loss with respect to the output.
        x_shape : (N, C, H, W)
        pool_size, stride, padding
            As in `avg_pool`.

        Returns
        -------
        dx : (N, C, H, W)
        """

    # -- fully connected -----------------------------------------------------------------------
    def flatten(self, x: Array) -> Array:
        """Return images (N, C, H, W) as rows (N, C * H * W)."""

    def flatten_grad(self, dy: Array, image_shape: Shape) -> Array:
        """Return rows (N, C * H * W) as images.

        Parameters
        ----------
        dy : (N, C * H * W)
        image_shape : (C, H, W)

        Returns
        -------
        dx : (N, C, H, W)
        """

    def dense(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        scale: Array | None = None,
        activation: Activation | None = None,
    ) -> Array:
        """Return scale * (x @ w) + b.

        Parameters
        ----------
        x : (N, features)
        w : (features, units)
        b : (units,), optional
            None: 0.
        scale : (units,), optional
            None: 1.
        activation : one of `kernels.activations`, optional
            Function that is applied to the results, as by `activate`.

        Returns
        -------
        y : (N, units)

        Examples
        --------
        >>> backend.dense(np.ones((1, 3)), np.ones((3, 2)), np.array([0.0, 1.0]))
        array([[3., 4.]])
        """

    def dense_grad(
        self,
        dy: Array,
        x: Array,
        w: Array,
        need_dx: bool = True,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array | None, Array, Array]:
        """Return the gradients of `dense`.

        Parameters
        ----------
        dy : (N, units)
            Gradient of the loss with respect to the output.
        x, w
            As in `dense`.
        need_dx, out
            As in `correlate_grad`.

        Returns
        -------
        dx : (N, features) or None
            None if not needed.
        dw : (features, units)
        db : (units,)
        """

    # -- normalization and regularization ------------------------------------------------------
    def batch_norm(
        self, x: Array, gamma: Array, beta: Array, epsilon: float
    ) -> tuple[Array, Array, Array]:
        """Normalize each channel by its mean and variance in the batch.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

        Parameters
        ----------
        x : (N, C, H, W) or (N, C)
        gamma, beta : (C,)
            Learned scale and shift.
        epsilon : float
            Added to the variance.

        Returns
        -------
        y : same shape as x
        mean, variance : (C,)
            Statistics of the batch. The variance is the biased one: the mean of the squared
            deviations.

        References
        ----------
        Ioffe, Szegedy: Batch normalization (2015).

        Examples
        --------
        >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
        >>> y, mean, variance = backend.batch_norm(x, np.ones(2), np.zeros(2), epsilon=0)
        >>> y
        array([[-1., -1.],
               [ 1.,  1.]])
        """

    def batch_norm_grad(
        self,
        dy: Array,
        x: Array,
        gamma: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the gradients of `batch_norm`.

        Parameters
        ----------
        dy : same shape as x
            Gradient of the loss with respect to y.
        x, gamma, epsilon
            As in `batch_norm`.
        mean, variance : (C,)
            As returned by `batch_norm`.
        out : (dgamma, dbeta), optional
            As in `correlate_grad`.

        Returns
        -------
        dx : same shape as x
        dgamma, dbeta : (C,)
        """

    def batch_norm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
    ) -> Array:
        """Normalize each channel by a given mean and variance, such as running statistics.

        Parameters
        ----------
        x, gamma, beta, epsilon
            As in `batch_norm`.
        mean, variance : (C,)

        Returns
        -------
        y : same shape as x
        """

    def update_running_stats(
        self,
        running_mean: Array,
        running_variance: Array,
        mean: Array,
        variance: Array,
        momentum: float,
    ) -> None:
        """Update running statistics in place: momentum * running + (1 - momentum) * batch.

        Parameters
        ----------
        running_mean, running_variance : (C,)
            Changed in place.
        mean, variance : (C,)
            Statistics of the batch.
        momentum : float
            Weight of the old values, 0 <= momentum < 1.
        """

    def fold_batch_norm(
        self,
        b: Array | None,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
    ) -> tuple[Array, Array]:
        """Return the scale and bias that replace a `batch_norm_inference` after a layer.

        batch_norm_inference(correlate(x, w, b), ...) equals correlate(x, w, bias, scale=scale) up
        to rounding, and likewise for `dense`.

        Parameters
        ----------
        b : (C,), optional
            Bias of the convolution or fully connected layer. None: 0.
        gamma, beta, mean, variance : (C,)
            Arguments of `batch_norm_inference`.
        epsilon : float

        Returns
        -------
        scale, bias : (C,)
        """

    def batch_norm_activation(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, activation: Activation | None
    ) -> tuple[Array, Array, Array]:
        """Apply `batch_norm` and then `activate`.

        Parameters
        ----------
        x, gamma, beta, epsilon
            As in `batch_norm`.
        activation : one of `kernels.activations`, or None
            None: no activation.

        Returns
        -------
        y : same shape as x
        mean, variance : (C,)
            Statistics of the batch.
        """

    def batch_norm_activation_grad(
        self,
        dy: Array,
        x: Array,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        activation: Activation | None,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the gradients of `batch_norm_activation`.

        The parameters and results are those of `batch_norm_grad`, with ``beta`` and
        ``activation`` as in `batch_norm_activation`.
        """

    def batch_norm_activation_pool(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        epsilon: float,
        activation: Activation | None,
        pool_size: Any,
    ) -> tuple[Array, Any, Array, Array]:
        """Apply `batch_norm_activation` and then `max_pool` with the pool size as its stride.

        Parameters
        ----------
        x : (N, C, H, W)
        gamma, beta, epsilon, activation
            As in `batch_norm_activation`.
        pool_size : int or pair of int

        Returns
        -------
        y : (N, C, OH, OW)
        index : object
            What `batch_norm_activation_pool_grad` needs to know about the largest pixels.
        mean, variance : (C,)
            Statistics of the batch.
        """

    def batch_norm_activation_pool_grad(
        self,
        dy: Array,
        x: Array,
        index: Any,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        activation: Activation | None,
        pool_size: Any,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the gradients of `batch_norm_activation_pool`.

        The parameters and results are those of `batch_norm_activation_grad`, with ``index`` as
        returned by `batch_norm_activation_pool`.
        """

    def dropout(self, x: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Set random elements of x to zero and scale the others by 1 / (1 - rate).

        Parameters
        ----------
        x : (N, C, H, W) or (N, features)
        rate : float
            Probability that an element becomes zero, 0 <= rate < 1.
        rng : numpy.random.Generator

        Returns
        -------
        y : same shape as x
        mask : same shape as x
            The factor of each element: 0 or 1 / (1 - rate).

        References
        ----------
        Srivastava et al.: Dropout (2014). Scaling during training is called "inverted dropout".
        """

    def dropout_grad(self, dy: Array, mask: Array) -> Array:
        """Return the gradient of `dropout` with respect to x: dy * mask."""

    # -- activations and loss ------------------------------------------------------------------
    def activate(self, x: Array, activation: Activation | None) -> Array:
        """Return an activation function of each number.

        Parameters
        ----------
        x : (N, C, H, W) or (N, features)
        activation : one of `kernels.activations`, or None
            None: the identity.

        Returns
        -------
        y : same shape as x

        References
        ----------
        Hendrycks, Gimpel: Gaussian error linear units (2016), on GELU and SiLU.
        Ramachandran, Zoph, Le: Searching for activation functions (2017), on SiLU.

        Examples
        --------
        >>> from kernels.activations import Silu
        >>> backend.activate(np.array([[0.0, 100.0]]), Silu())
        array([[  0., 100.]])
        """

    def activate_grad(self, dy: Array, x: Array, activation: Activation | None) -> Array:
        """Return the gradient of `activate` with respect to x.

        Parameters
        ----------
        dy : same shape as x
            Gradient of the loss with respect to the output.
        x, activation
            As in `activate`.

        Returns
        -------
        dx : same shape as x
        """

    def add(self, x: Array, other: Array, activation: Activation | None = None) -> Array:
        """Return the activation of x + other.

        Without an activation, the sum of two gradients is a gradient again.

        Parameters
        ----------
        x, other : (N, C, H, W) or (N, features)
            Of the same shape.
        activation : one of `kernels.activations`, optional
            Function that is applied to the results, as by `activate`.

        Returns
        -------
        y : same shape as x

        Examples
        --------
        >>> backend.add(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
        array([[4., 6.]])
        """

    def leaky_relu(self, x: Array, negative_slope: float) -> Array:
        """Return x where it is positive, and negative_slope * x elsewhere.

        This is `activate` with `kernels.activations.LeakyRelu`.

        Parameters
        ----------
        x : (N, C, H, W) or (N, features)
        negative_slope : float
            0 gives the plain ReLU.

        Returns
        -------
        y : same shape as x

        Examples
        --------
        >>> backend.leaky_relu(np.array([[-2.0, 3.0]]), negative_slope=0.5)
        array([[-1.,  3.]])
        """

    def leaky_relu_grad(self, dy: Array, x: Array, negative_slope: float) -> Array:
        """Return the gradient of `leaky_relu` with respect to x; at 0 it is the negative slope."""

    def softmax(self, x: Array) -> Array:
        """Return exp(x) / sum(exp(x)) for each row, without overflow.

        Parameters
        ----------
        x : (N, classes)

        Returns
        -------
        y : (N, classes)
            Each row sums to 1.

        Examples
        --------
        >>> backend.softmax(np.array([[1000.0, 1000.0]]))
        array([[0.5, 0.5]])
        """

    def softmax_grad(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `softmax` with respect to x, given its output y."""

    def softmax_cross_entropy(
        self,
        logits: Array,
        labels: Array,
        smoothing: float = 0.0,
        weights: Array | None = None,
    ) -> tuple[float, int, Array]:
        """Return the mean cross-entropy loss, the number of correct predictions, and the gradient.

        The loss of an image is -sum(target * log(softmax(logits))). Its target is 1 for its label
        and 0 for the other classes; smoothing makes it
        (1 - smoothing) * target + smoothing / classes.

        Parameters
        ----------
        logits : (N, classes)
        labels : (N,) of int
            From 0 to classes - 1. A replay of `capture` does not check them: the loss is then NaN
            if a label is out of range.
        smoothing : float
            Label smoothing, 0 <= smoothing < 1.
        weights : (N,) of float64, optional
            Factor of the loss of each image, at least 0. None: 1 for each.

        Returns
        -------
        loss : float
            Sum of weight * loss over the batch, divided by N and not by the sum of the weights. The
            gradients of the batches of an epoch are then those of one weighted mean over all
            images, whichever images share a batch.
        n_correct : int
            Number of rows whose largest logit is that of the label; the weights do not count.
        dlogits : (N, classes)
            Gradient of the loss with respect to the logits:
            weight * (softmax(logits) - target) / N.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 6.2.2.3.
        Szegedy et al.: Rethinking the Inception architecture (2016), section 7, on smoothing.

        Examples
        --------
        >>> loss, n_correct, dlogits = backend.softmax_cross_entropy(
        ...     np.array([[0.0, 0.0], [100.0, 0.0]]), np.array([1, 0])
        ... )
        >>> round(loss, 4), n_correct  # log(2) / 2: the second image has no loss
        (0.3466, 1)
        """

    # -- in and out of the backend -------------------------------------------------------------
    def from_array(self, x: Array) -> Array:
        """Return a plain array (N, C, H, W) or (N, features) as activations of this backend."""

    def to_array(self, x: Array, output: bool = False) -> Array:
        """Return activations as a plain array.

        Parameters
        ----------
        x : activations
        output : bool
            Whether a function that is given to `capture` returns the array. If False, the caller
            may compute with the array outside of the backend, where `capture` cannot follow.
        """

    def normalize_images(
        self, images: Array, mean: Array, std: Array, dtype: np.dtype, predict: bool = False
    ) -> Array:
        """Return (images - mean) / std as activations of this backend.

        Parameters
        ----------
        images : (N, C, H, W) of any real dtype
        mean, std : (C,)
        dtype : float32 or float64
            Dtype of the activations.
        predict : bool
            Whether the activations are used for prediction alone. A backend may then choose a
            layout for which it has no gradient functions.
        """

    def capture(self, function: Any, *inputs: Any) -> tuple[Any, Any]:
        """Run a function and return its result, and a faster function for the following calls.

        Parameters
        ----------
        function : callable
            It must do all its arithmetic by functions of this backend and pass its inputs on to
            them unchanged. It must return the loss and the number of correct predictions of
            `softmax_cross_entropy`, or what ``to_array(x, output=True)`` returns.
        *inputs : arrays

        Returns
        -------
        result : object
            What the function returned.
        replay : callable or None
            It does the same for other inputs of the same shapes and dtypes. It does not check
            their values. None if this backend has no faster way.
        """

    # -- data augmentation ---------------------------------------------------------------------
    def warp_images(self, images: Array, matrices: Array) -> Array:
        """Return images transformed by affine maps, with bilinear interpolation.

        The output at position p = (row, column), measured from the center of the image, is the
        input at position matrix @ (row, column, 1). Positions outside of the image take the value
        of the nearest pixel.

        Parameters
        ----------
        images : (N, C, H, W) of uint8, float32 or float64
        matrices : (N, 2, 3)
            One matrix for each image, of numbers that are finite in float32.

        Returns
        -------
        warped : same shape and dtype as images
            Values of uint8 are rounded.

        References
        ----------
        Szeliski: Computer Vision (2022), section 3.6.
        """

    def augment_images(
        self,
        images: Array,
        mirrored: Array,
        shifts: Array,
        colors: Array,
        boxes: Array,
        fill: Array,
        low: float,
        high: float,
    ) -> Array:
        """Return images that are mirrored, shifted, recolored and partly covered, in this order.

        Parameters
        ----------
        images : (N, C, H, W) of uint8, float32 or float64
        mirrored : (N,) of bool
            Whether the columns of an image are reversed.
        shifts : (N, 2) of int
            Output pixel (row, column) is pixel (row, column) + shift of the mirrored image.
            Outside of the image, pixels are those of its reflection. The border itself is not
            repeated: pixel -1 is pixel 1.
        colors : (N, C, C + 1)
            Affine maps of the channels: matrix[:, :C] @ pixel + matrix[:, C], clipped to the range
            from low to high. For images of uint8, the numbers are rounded to multiples of 1/256,
            and the result to whole numbers.
        boxes : (N, 4) of int
            top, left, bottom, right: the pixels with top <= row < bottom and left <= column <
            right are covered. Boxes may extend beyond the image.
        fill : (C,)
            The color of covered pixels, clipped to the range from low to high.
        low, high : float
            The range of the pixels; for images of uint8 within 0 to 255.

        Returns
        -------
        augmented : same shape and dtype as images

        References
        ----------
        Krizhevsky: One weird trick for parallelizing convolutional neural networks (2014), on
        mirroring and shifts. DeVries, Taylor: Improved regularization of convolutional neural
        networks with cutout (2017). Howard: Some improvements on deep convolutional neural network
        based image classification (2013), on brightness, contrast and color.

        Examples
        --------
        >>> image = np.array([[[[1, 2, 3, 4]]]], np.uint8)
        >>> colors = np.array([[[1, 10]]])
        >>> backend.augment_images(
        ...     image, np.array([True]), np.array([[0, 1]]), colors, np.array([[0, 0, 1, 1]]),
        ...     fill=np.array([7]), low=0, high=12,
        ... )
        array([[[[ 7, 12, 11, 12]]]], dtype=uint8)
        """

    # -- optimizers ----------------------------------------------------------------------------
    def sgd_step(self, p: Array, g: Array, learning_rate: float, l2: float) -> None:
        """Update parameters in place by gradient descent: p -= learning_rate * (g + l2 * p).

        Parameters
        ----------
        p : (size,)
            Parameters, changed in place.
        g : (size,)
            Gradient.
        learning_rate : float
        l2 : float
            Strength of L2 regularization.
        """

    def momentum_step(
        self,
        p: Array,
        g: Array,
        velocity: Array,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        l2: float,
    ) -> None:
        """Update parameters in place by gradient descent with momentum.

        velocity = momentum * velocity + g + l2 * p
        p -= learning_rate * velocity, or with Nesterov's momentum
        p -= learning_rate * (g + l2 * p + momentum * velocity)

        Parameters
        ----------
        p, g, learning_rate, l2
            As in `sgd_step`.
        velocity : (size,)
            Changed in place.
        momentum : float
            0 <= momentum < 1.
        nesterov : bool

        References
        ----------
        Sutskever et al.: On the importance of initialization and momentum (2013), in the
        form of Bengio et al.: Advances in optimizing recurrent networks (2012).
        """

    def adam_step(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        step: int,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        l2: float,
        decay: float,
    ) -> None:
        """Update parameters in place by Adam or AdamW.

        g = g + l2 * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p -= learning_rate * (m_hat / (sqrt(v_hat) + epsilon) + decay * p),
        where m_hat = m / (1 - beta1**step) and v_hat = v / (1 - beta2**step)

        Parameters
        ----------
        p, g, learning_rate
            As in `sgd_step`.
        m, v : (size,)
            Moments of the gradient, changed in place.
        step : int
            Number of this step, from 1.
        beta1, beta2 : float
            Weights of the old moments, at least 0 and below 1.
        epsilon : float
        l2 : float
            Strength of L2 regularization (Adam).
        decay : float
            Strength of decoupled weight decay (AdamW).

        References
        ----------
        Kingma, Ba: Adam (2015). Loshchilov, Hutter: Decoupled weight decay regularization (2019).
        """


class MixedBackend(Backend, Protocol):
    """A backend in mixed precision: the functions of `Backend` with activations in bfloat16.

    Examples
    --------
    >>> from kernels import get_backend
    >>> mixed = get_backend("numpy", "bfloat16")
    >>> mixed.narrow(np.array([[1.001, 2.0]], np.float32))
    array([[1., 2.]], dtype=float32)
    """

    @property
    def full(self) -> Backend:
        """The backend that computes in float32, for the end of a network."""

    def widen(self, x: Array) -> Array:
        """Return activations in bfloat16 as activations of `full`."""

    def narrow(self, x: Array) -> Array:
        """Return activations of `full`, or a gradient of them, rounded to bfloat16."""


# The names that every backend exports.
FUNCTIONS = tuple(name for name in vars(Backend) if not name.startswith("_"))
