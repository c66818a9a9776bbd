"""What every backend offers. `get_backend` returns a module or package that fits this protocol.

Shapes: N images (or rows) in a batch, C channels, H rows and W columns of pixels. Plain
arrays are C-contiguous float32 or float64; other strides and byte orders are copied.
Every function that takes arrays raises TypeError for a wrong type or dtype and ValueError
for a wrong shape or size, and says which argument it was and what would be right. What is
written into (`out`, and the vectors of optimizers and averages) shares no memory with the rest.

Activations that one of these functions returned are opaque to the layers, but for their
`shape`: only functions of the same backend look into them, so that a backend may keep a
memory layout of its own inside a model.
"""

from typing import Any, Protocol

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]


class Backend(Protocol):
    """The maths of a convolutional network."""

    @property
    def __name__(self) -> str: ...

    def set_threads(self, threads: int) -> None:
        """Use this many threads from now on; ValueError above what the machine has."""

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
        negative_slope: float = 1.0,
    ) -> Array:
        """Cross-correlate images with filters, the "convolution" of neural networks.

        y[n, f, i, j] = b[f] + sum over c, k, l of
        w[f, c, k, l] * x[n, c, i * stride + k * dilation, j * stride + l * dilation]

        Parameters
        ----------
        x : (N, C, H, W)
        w : (F, C / groups, KH, KW)
        b : (F,), optional
        stride, dilation : int or pair of int
        padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
            Zeros around each image.
        groups : int
            Filter f sees the channels of group f // (F / groups) only.
        scale : (F,), optional
            What each filter's sums are multiplied by before the bias is added.
        slope : float
            What negative results are multiplied by, as `leaky_relu` does; 1 leaves them.

        Returns
        -------
        y : (N, F, OH, OW)

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 9.1.
        Dumoulin, Visin: A guide to convolution arithmetic for deep learning (2016).
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
        """Return the gradients dx (None unless needed), dw and db of `correlate`.

        Parameters
        ----------
        dy : (N, F, OH, OW)
            Gradient of the loss with respect to the output.
        out : (dw, db), each an array or None, optional
            Room for these gradients: a backend may write them there and return these arrays. The
            same goes for the parameters of all other layers below.

        Returns
        -------
        dx, dw, db
            Of the shapes of x, w and (F,).
        """

    def im2col(
        self, x: Array, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
    ) -> Array:
        """Lay the pixels under each place of the window out as a column.

        Returns
        -------
        cols : (N, C * KH * KW, OH * OW)

        References
        ----------
        Chellapilla, Puri, Simard: High performance convolutional neural networks for
        document processing (2006).
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
        """Add columns back onto the pixels they came from: the transpose of `im2col`."""

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
        """`correlate` by `im2col` and a matrix product."""

    # -- pooling -------------------------------------------------------------------------------
    def max_pool(
        self, x: Array, pool_size: Any, stride: Any = None, padding: Any = 0
    ) -> tuple[Array, Array]:
        """Return the largest pixel of each window, and where it stood.

        Parameters
        ----------
        x : (N, C, H, W)
        pool_size : int or pair of int
        stride : int or pair of int, optional
            None: the pool size.
        padding : as in `correlate`, smaller than the pool
            Padding is never the largest.

        Returns
        -------
        y : (N, C, OH, OW)
            NaN where a window holds one.
        index : (N, C, OH, OW), int32
            Position row * W + column in the image; of equal pixels, the first in the window.
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
        """Return the gradient of `max_pool` with respect to x."""

    def avg_pool(self, x: Array, pool_size: Any, stride: Any = None, padding: Any = 0) -> Array:
        """Return the mean of each window's real pixels: padding does not count."""

    def avg_pool_grad(
        self, dy: Array, x_shape: Shape, pool_size: Any, stride: Any = None, padding: Any = 0
    ) -> Array:
        """Return the gradient of `avg_pool` with respect to x."""

    # -- fully connected -----------------------------------------------------------------------
    def flatten(self, x: Array) -> Array:
        """Return images (N, C, H, W) as rows (N, C * H * W)."""

    def flatten_grad(self, dy: Array, image: Shape) -> Array:
        """Return rows (N, C * H * W) as images of shape ``image`` = (C, H, W)."""

    def dense(
        self,
        x: Array,
        w: Array,
        b: Array | None = None,
        scale: Array | None = None,
        negative_slope: float = 1.0,
    ) -> Array:
        """Return scale * (x @ w) + b for rows x (N, features) and weights w (features, units).

        A scale and a bias b have one number a unit. Negative results are multiplied by the slope,
        as `leaky_relu` does.
        """

    def dense_grad(
        self,
        dy: Array,
        x: Array,
        w: Array,
        need_dx: bool = True,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array | None, Array, Array]:
        """Return the gradients dx (None unless needed), dw and db of `dense`."""

    # -- normalisation and regularisation ------------------------------------------------------
    def batch_norm(
        self, x: Array, gamma: Array, beta: Array, epsilon: float
    ) -> tuple[Array, Array, Array]:
        """Normalise each channel by its mean and variance in the batch.

        Parameters
        ----------
        x : (N, C, H, W) or (N, C)
        gamma, beta : (C,)
            Learned scale and shift.
        epsilon : float
            Added to the variance.

        Returns
        -------
        y : like x
        mean, variance : (C,)
            Of the batch; the variance is the biased one, the mean squared deviation.

        References
        ----------
        Ioffe, Szegedy: Batch normalization (2015).
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
        """Return the gradients dx, dgamma and dbeta of `batch_norm`."""

    def batch_norm_inference(
        self, x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float
    ) -> Array:
        """Normalise each channel by a mean and a variance (C,) that were learned before."""

    def update_running_stats(
        self,
        running_mean: Array,
        running_variance: Array,
        mean: Array,
        variance: Array,
        momentum: float,
    ) -> None:
        """Move running averages (C,) in place: momentum * running + (1 - momentum) * batch."""

    def fold_batch_norm(
        self,
        b: Array | None,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
    ) -> tuple[Array, Array]:
        """Return the scale and the bias with which a layer does what it and a BatchNorm did.

        Parameters
        ----------
        b : (F,) or (units,), optional
            The bias of a convolution or a fully connected layer.
        gamma, beta, mean, variance : like b
            Of the `batch_norm_inference` that follows the layer.
        """

    def batch_norm_relu(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, negative_slope: float
    ) -> tuple[Array, Array, Array]:
        """`leaky_relu` of `batch_norm`, in one; return y, mean and variance."""

    def batch_norm_relu_grad(
        self,
        dy: Array,
        x: Array,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        negative_slope: float,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the gradients dx, dgamma and dbeta of `batch_norm_relu`."""

    def batch_norm_relu_inference(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        negative_slope: float,
    ) -> Array:
        """`leaky_relu` of `batch_norm_inference`, in one."""

    def batch_norm_relu_pool(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        epsilon: float,
        negative_slope: float,
        pool_size: Any,
    ) -> tuple[Array, Any, Array, Array]:
        """`max_pool` of `batch_norm_relu`, in one, over windows that lie side by side.

        Returns
        -------
        y : (N, C, OH, OW)
        taken
            What `batch_norm_relu_pool_grad` needs to know of the pixels that were the largest.
        mean, variance : (C,)
        """

    def batch_norm_relu_pool_grad(
        self,
        dy: Array,
        x: Array,
        taken: Any,
        gamma: Array,
        beta: Array,
        mean: Array,
        variance: Array,
        epsilon: float,
        negative_slope: float,
        pool_size: Any,
        out: tuple[Array | None, ...] | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the gradients dx, dgamma and dbeta of `batch_norm_relu_pool`."""

    def dropout(self, x: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
        """Zero a share ``rate`` of x and scale the rest by 1 / (1 - rate).

        Returns
        -------
        y : like x
        mask : like x
            What x was multiplied by.

        References
        ----------
        Srivastava et al.: Dropout (2014); scaled while training ("inverted").
        """

    def dropout_grad(self, dy: Array, mask: Array) -> Array:
        """Return the gradient of `dropout` with respect to x."""

    # -- activations and loss ------------------------------------------------------------------
    def leaky_relu(self, x: Array, negative_slope: float) -> Array:
        """Return x where it is positive, else slope * x. A slope of 0 is the plain ReLU."""

    def leaky_relu_grad(self, dy: Array, x: Array, negative_slope: float) -> Array:
        """Return the gradient of `leaky_relu`; at 0 it is the slope."""

    def softmax(self, x: Array) -> Array:
        """Return exp(x) / sum(exp(x)) of each row (N, classes), safe from overflow."""

    def softmax_grad(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `softmax` with respect to x, given its output y."""

    def softmax_cross_entropy(
        self, logits: Array, labels: Array, smoothing: float = 0.0
    ) -> tuple[float, int, Array]:
        """Return the mean of -log(softmax(logits)[label]), the hits, and the gradient.

        Parameters
        ----------
        logits : (N, classes)
        labels : (N,) of int
        smoothing : float
            Share of each target that is spread evenly over all classes, 0 to below 1.

        Returns
        -------
        loss : float
        correct : int
            How many labels have the largest logit of their row.
        dlogits : (N, classes)
            (softmax(logits) - targets) / N.

        References
        ----------
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 6.2.2.3.
        Szegedy et al.: Rethinking the Inception architecture (2016), section 7: smoothing.
        """

    # -- the model's door, and optimizers ------------------------------------------------------
    def from_array(self, x: Array) -> Array:
        """Return a plain array (N, C, H, W) or (N, features) as activations."""

    def to_array(self, x: Array, output: bool = False) -> Array:
        """Return activations as a plain array.

        Parameters
        ----------
        output : bool
            Whether it is what a function given to `record` returns. Whoever else looks into
            activations will work on them where no record sees it.
        """

    def capture(self, function: Any, *inputs: Any) -> tuple[Any, Any]:
        """Run a function on arrays; return its result, and a faster way to run it again.

        Parameters
        ----------
        function : callable
            It does all its work on numbers by this backend's functions, hands the inputs to
            them as they are, and returns what `softmax_cross_entropy` gives first, loss and hits,
            or what `to_array` gives.
        inputs : arrays

        Returns
        -------
        result
        again : callable or None
            Does the same with other inputs of the same shapes and dtypes; None where this
            backend has no faster way.
        """

    def warp_images(self, images: Array, matrices: Array) -> Array:
        """Return images seen through affine maps, by bilinear interpolation.

        Pixel p = (row, column), counted from the middle of the image, takes the value that the
        image has at matrix @ (row, column, 1); outside of it, that of the nearest pixel.

        Parameters
        ----------
        images : (N, C, H, W) of uint8, float32 or float64
        matrices : (N, 2, 3)

        Returns
        -------
        warped : like images
            Whole numbers are rounded.

        References
        ----------
        Szeliski: Computer Vision (2022), section 3.6.
        """

    def normalize_images(
        self, images: Array, mean: Array, std: Array, dtype: np.dtype, predict: bool = False
    ) -> Array:
        """Return images (N, C, H, W) of any real dtype as activations (images - mean) / std.

        Parameters
        ----------
        mean, std : (C,)
        dtype : float32 or float64
        predict : bool
            Whether no gradients will be asked for: a backend may then choose another form.
        """

    def sgd_step(self, p: Array, g: Array, learning_rate: float, l2: float) -> None:
        """Gradient descent on the vector p in place: p -= learning_rate * (g + l2 * p)."""

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
        """Gradient descent with momentum, in place on p and velocity.

        velocity = momentum * velocity + g + l2 * p; p -= learning_rate * velocity, or with
        Nesterov's look-ahead p -= learning_rate * (g + l2 * p + momentum * velocity).

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
        """Adam in place on p and its moments m and v; ``step`` counts from 1.

        ``l2`` is added to the gradient (Adam), ``decay`` shrinks p directly (AdamW).

        References
        ----------
        Kingma, Ba: Adam (2015). Loshchilov, Hutter: Decoupled weight decay (2019).
        """
