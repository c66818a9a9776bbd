"""Batch normalization and dropout."""

import numpy as np

from kernels.scalars import check_number
from layers.base import Layer


class BatchNorm(Layer):
    """Normalize each channel, then multiply it by a learned scale and add a learned shift.

    In training, the layer uses the mean and the variance of the batch and updates running
    statistics with them. In prediction, it uses the running statistics. It accepts images
    (C, H, W) and rows (features,), where each feature is a channel.

    Parameters
    ----------
    momentum : float
        Weight of the old value in an update of the running statistics, 0 <= momentum < 1.
    epsilon : float
        Added to the variance.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    References
    ----------
    Ioffe, Szegedy: Batch normalization (2015).

    Examples
    --------
    >>> layer = BatchNorm(epsilon=1e-20)
    >>> layer.forward(np.array([[1.0, 10.0], [3.0, 30.0]]))
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> layer.running_stats  # 0.9 times 0 and 1, plus 0.1 times the batch's
    (array([0.2, 2. ]), array([ 1. , 10.9]))
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, name: str | None = None):
        super().__init__(name)
        self.momentum = check_number(momentum, "momentum", 0, 1)
        self.epsilon = check_number(epsilon, "epsilon", 1e-30, 1e30)

    def _build(self, input_shape):
        C = input_shape[0]
        self.add_param("gamma", (C,), np.ones)
        self.add_param("beta", (C,))
        self.add_buffer("running_mean", (C,))
        self.add_buffer("running_variance", (C,), np.ones)
        return input_shape

    def _forward(self, x, training):
        gamma, beta = self.params["gamma"], self.params["beta"]
        if not training:
            mean, variance = self.running_stats
            return self.backend.batch_norm_inference(
                x, gamma, beta, mean, variance, self.epsilon
            ), None
        y, mean, variance = self.backend.batch_norm(x, gamma, beta, self.epsilon)
        self.update_running_stats(mean, variance)
        return y, (x, mean, variance)

    def _backward(self, dy, context):
        x, mean, variance = context
        dx, dgamma, dbeta = self.backend.batch_norm_grad(
            dy,
            x,
            self.params["gamma"],
            mean,
            variance,
            self.epsilon,
            self.grad_buffers("gamma", "beta"),
        )
        self.set_grads(gamma=dgamma, beta=dbeta)
        return dx

    def update_running_stats(self, mean, variance):
        """Update the running statistics with the mean and the variance (C,) of a batch."""
        self.backend.update_running_stats(*self.running_stats, mean, variance, self.momentum)

    @property
    def running_stats(self) -> tuple[np.ndarray, np.ndarray]:
        """Running mean and running variance, each (C,)."""
        return self.buffers["running_mean"], self.buffers["running_variance"]

    def config(self):
        return {"momentum": self.momentum, "epsilon": self.epsilon}


class Dropout(Layer):
    """In training, set random inputs to zero and scale the others by 1 / (1 - rate).

    In prediction, the layer returns its input. It accepts images (C, H, W) and rows (features,).

    Parameters
    ----------
    rate : float
        Probability that an input becomes zero, 0 <= rate < 1.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If the rate is invalid.

    References
    ----------
    Srivastava et al.: Dropout (2014).

    Examples
    --------
    >>> y = Dropout(0.75).forward(np.ones((1, 1000)))
    >>> sorted(set(y.ravel().tolist()))
    [0.0, 4.0]
    """

    def __init__(self, rate: float, name: str | None = None):
        super().__init__(name)
        self.rate = check_number(rate, "rate", 0, 1)

    def _forward(self, x, training):
        if not training:
            return x, None
        return self.backend.dropout(x, self.rate, self.rng)

    def _backward(self, dy, mask):
        return self.backend.dropout_grad(dy, mask)

    def config(self):
        return {"rate": self.rate}
