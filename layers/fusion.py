"""Plans: the layers of a model, with neighbors combined that one kernel can compute together.

A model reads and writes large arrays between its layers, and does little arithmetic on each
number. A kernel that computes a BatchNorm, its activation and its max pooling together reads and
writes them once, where three kernels do three times. The results are the same.
"""

import numpy as np

from layers.activations import LeakyRelu, Relu
from layers.base import Layer
from layers.conv import Conv
from layers.dense import Dense
from layers.normalization import BatchNorm, Dropout
from layers.pooling import MaxPool


class BatchNormRelu(Layer):
    """A BatchNorm and the ReLU or leaky ReLU after it, for training.

    The parameters, gradients and running statistics are those of the BatchNorm.

    Parameters
    ----------
    norm : BatchNorm
    relu : LeakyRelu or Relu
    """

    def __init__(self, norm: BatchNorm, relu: LeakyRelu):
        super().__init__(f"{norm.name} with {relu.name}")
        self.norm, self.negative_slope = norm, relu.negative_slope
        self.backend = norm.backend
        self.input_shape = norm.input_shape
        self.built = True

    @property
    def _gamma_and_beta(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.params["gamma"], self.norm.params["beta"]

    def _forward(self, x, training):
        norm = self.norm
        if not training:
            return self.backend.batch_norm_relu_inference(
                x, *self._gamma_and_beta, *norm.running_stats, norm.epsilon, self.negative_slope
            ), None
        y, mean, variance = self.backend.batch_norm_relu(
            x, *self._gamma_and_beta, norm.epsilon, self.negative_slope
        )
        norm.update_running_stats(mean, variance)
        return y, (x, mean, variance)

    def _backward(self, dy, context):
        x, mean, variance = context
        norm, out = self.norm, self.norm.grad_buffers("gamma", "beta")
        dx, dgamma, dbeta = self.backend.batch_norm_relu_grad(
            dy, x, *self._gamma_and_beta, mean, variance, norm.epsilon, self.negative_slope, out
        )
        norm.set_grads(gamma=dgamma, beta=dbeta)
        return dx


class BatchNormReluPool(BatchNormRelu):
    """A BatchNorm, the ReLU after it and the max pooling after that, for training.

    Parameters
    ----------
    norm_relu : BatchNormRelu
    pool : MaxPool
        Its windows must not overlap: see `MaxPool.is_non_overlapping`.
    """

    def __init__(self, norm_relu: BatchNormRelu, pool: MaxPool):
        super().__init__(norm_relu.norm, norm_relu)  # type: ignore[arg-type]
        self.name = f"{norm_relu.name} and {pool.name}"
        self._pool = pool

    def _forward(self, x, training):
        if not training:
            return self._pool.forward(super()._forward(x, training)[0], training), None
        norm = self.norm
        y, index, mean, variance = self.backend.batch_norm_relu_pool(
            x, *self._gamma_and_beta, norm.epsilon, self.negative_slope, self._pool.pool_size
        )
        norm.update_running_stats(mean, variance)
        return y, (x, index, mean, variance)

    def _backward(self, dy, context):
        x, index, mean, variance = context
        norm, out = self.norm, self.norm.grad_buffers("gamma", "beta")
        dx, dgamma, dbeta = self.backend.batch_norm_relu_pool_grad(
            dy,
            x,
            index,
            *self._gamma_and_beta,
            mean,
            variance,
            norm.epsilon,
            self.negative_slope,
            self._pool.pool_size,
            out,
        )
        norm.set_grads(gamma=dgamma, beta=dbeta)
        return dx


class Folded(Layer):
    """A Conv or Dense with the BatchNorm and the ReLU after it, for prediction.

    In prediction, a BatchNorm is a scale and a shift of each channel. The kernel of the Conv or
    Dense applies them and the ReLU to its sums. The weights are not copied, so that a change of
    any parameter has its effect at once.

    Parameters
    ----------
    layer : Conv or Dense
    norm : BatchNorm, optional
    negative_slope : float
        Negative slope of the ReLU; 1 stands for no activation.
    """

    def __init__(
        self, layer: Conv | Dense, norm: BatchNorm | None = None, negative_slope: float = 1.0
    ):
        super().__init__(layer.name)
        self.layer, self.norm, self.negative_slope = layer, norm, negative_slope
        self.backend = layer.backend
        self.input_shape = layer.input_shape
        self.built = True

    def _forward(self, x, training):
        scale, bias = None, self.layer.params.get("bias")
        if self.norm is not None:
            gamma, beta = self.norm.params["gamma"], self.norm.params["beta"]
            scale, bias = self.backend.fold_batch_norm(
                bias, gamma, beta, *self.norm.running_stats, self.norm.epsilon
            )
        return self.layer.apply(x, bias, scale, self.negative_slope), None

    def _backward(self, dy, context):
        raise RuntimeError("a folded layer can only predict, it has no gradients")


def fold(layers: list[Layer]) -> list[Layer]:
    """Return a plan for prediction, which gives the same results as the layers.

    A Conv or Dense is combined with the BatchNorm and the ReLU after it, and Dropout is left out.

    Parameters
    ----------
    layers : list of Layer
        Built layers, in the order of the model.

    Returns
    -------
    list of Layer
        Layers to be run with ``training=False``.

    Examples
    --------
    >>> conv = Conv(4, kernel_size=3).build((1, 8, 8), backend="numpy")
    >>> norm = BatchNorm().build((4, 6, 6), backend="numpy")
    >>> [type(layer).__name__ for layer in fold([conv, norm, Relu(), Dropout(0.5)])]
    ['Folded']
    """
    plan: list[Layer] = []
    for layer in layers:
        previous = plan[-1] if plan else None
        if type(layer) is Dropout:
            continue
        if type(layer) in (Conv, Dense):
            plan.append(Folded(layer))  # type: ignore[arg-type]
        elif type(previous) is not Folded or previous.negative_slope != 1:
            plan.append(layer)
        elif type(layer) is BatchNorm and previous.norm is None:
            previous.norm = layer
        elif type(layer) in (Relu, LeakyRelu):
            previous.negative_slope = layer.negative_slope  # type: ignore[attr-defined]
        else:
            plan.append(layer)
    return plan


def fuse(layers: list[Layer]) -> list[Layer]:
    """Return a plan for training, which gives the same results and gradients as the layers.

    A BatchNorm is combined with the ReLU after it, and with a max pooling after that if the
    windows do not overlap.

    Parameters
    ----------
    layers : list of Layer
        Built layers, in the order of the model.

    Returns
    -------
    list of Layer

    Examples
    --------
    >>> norm, relu, pool = BatchNorm(), Relu(), MaxPool(2)
    >>> layers = [layer.build((4, 6, 6), backend="numpy") for layer in (norm, relu, pool)]
    >>> [type(layer).__name__ for layer in fuse(layers)]
    ['BatchNormReluPool']
    """
    plan: list[Layer] = []
    for layer in layers:
        previous = plan[-1] if plan else None
        if type(layer) in (Relu, LeakyRelu) and type(previous) is BatchNorm:
            plan[-1] = BatchNormRelu(previous, layer)  # type: ignore[arg-type]
        elif (
            type(layer) is MaxPool and type(previous) is BatchNormRelu and layer.is_non_overlapping
        ):
            plan[-1] = BatchNormReluPool(previous, layer)
        else:
            plan.append(layer)
    return plan
