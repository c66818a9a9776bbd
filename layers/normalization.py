"""Layers that keep signals in shape: batch normalisation and dropout."""

import numpy as np

from kernels.scalars import check_number
from layers.base import Layer


class BatchNorm(Layer):
    """Normalise each channel over the batch, then scale and shift it by learned numbers.

    While training, by the batch's own mean and variance; afterwards by their running
    averages. Takes images (C, H, W) and rows (features,).

    Parameters
    ----------
    momentum : float
        Share of the running averages that a batch leaves as it was.
    epsilon : float
        Added to the variance.

    References
    ----------
    Ioffe, Szegedy: Batch normalization (2015).
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
            mean, variance = self.running
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
        """Move the running averages towards a batch's mean and variance."""
        self.backend.update_running_stats(*self.running, mean, variance, self.momentum)

    @property
    def running(self) -> tuple[np.ndarray, np.ndarray]:
        """The running averages of mean and variance."""
        return self.buffers["running_mean"], self.buffers["running_variance"]

    def config(self):
        return {"momentum": self.momentum, "epsilon": self.epsilon}


class Dropout(Layer):
    """While training, zero a random share of the input and scale the rest up for it.

    Parameters
    ----------
    rate : float
        Share that is zeroed, 0 <= rate < 1.

    References
    ----------
    Srivastava et al.: Dropout (2014).
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
