"""Plans: the layers of a model, with neighbors combined that one kernel can compute together.

A model reads and writes large arrays between its layers, and does little arithmetic on each
number. A kernel that computes a BatchNorm, its activation and its max pooling together reads and
writes them once, where three kernels do three times. The results are the same.
"""

from typing import Any

import numpy as np

from kernels import BFLOAT16, activations
from layers.activations import Activation, Gelu, LeakyRelu, Relu, Sigmoid, Silu, Tanh
from layers.base import Layer
from layers.conv import Conv
from layers.dense import Dense
from layers.normalization import BatchNorm, Dropout
from layers.pooling import MaxPool
from layers.residual import Residual

# Only these types: a class of a user that derives from one of them may compute something else.
ACTIVATIONS = (Relu, LeakyRelu, Sigmoid, Tanh, Silu, Gelu)


class BatchNormActivation(Layer):
    """A BatchNorm and the activation after it, for training.

    The parameters, gradients and running statistics are those of the BatchNorm.

    Parameters
    ----------
    norm : BatchNorm
    layer : Activation
    """

    def __init__(self, norm: BatchNorm, layer: Activation):
        super().__init__(f"{norm.name} with {layer.name}")
        self.norm, self.activation = norm, layer.activation
        self.backend = norm.backend
        self.input_shape = norm.input_shape
        self.built = True

    @property
    def _gamma_and_beta(self) -> tuple[np.ndarray, np.ndarray]:
        return self.norm.params["gamma"], self.norm.params["beta"]

    def _forward(self, x, training):
        norm = self.norm
        y, mean, variance = self.backend.batch_norm_activation(
            x, *self._gamma_and_beta, norm.epsilon, self.activation
        )
        norm.update_running_stats(mean, variance)
        return y, (x, mean, variance)

    def _backward(self, dy, context):
        x, mean, variance = context
        norm, out = self.norm, self.norm.grad_buffers("gamma", "beta")
        dx, dgamma, dbeta = self.backend.batch_norm_activation_grad(
            dy, x, *self._gamma_and_beta, mean, variance, norm.epsilon, self.activation, out
        )
        norm.set_grads(gamma=dgamma, beta=dbeta)
        return dx


class BatchNormActivationPool(BatchNormActivation):
    """A BatchNorm, the activation after it and the max pooling after that, for training.

    Parameters
    ----------
    norm_activation : BatchNormActivation
    pool : MaxPool
        Its windows must not overlap: see `MaxPool.is_non_overlapping`.
    """

    def __init__(self, norm_activation: BatchNormActivation, pool: MaxPool):
        super().__init__(norm_activation.norm, norm_activation)  # type: ignore[arg-type]
        self.name = f"{norm_activation.name} and {pool.name}"
        self._pool = pool

    def _forward(self, x, training):
        norm = self.norm
        y, index, mean, variance = self.backend.batch_norm_activation_pool(
            x, *self._gamma_and_beta, norm.epsilon, self.activation, self._pool.pool_size
        )
        norm.update_running_stats(mean, variance)
        return y, (x, index, mean, variance)

    def _backward(self, dy, context):
        x, index, mean, variance = context
        norm, out = self.norm, self.norm.grad_buffers("gamma", "beta")
        dx, dgamma, dbeta = self.backend.batch_norm_activation_pool_grad(
            dy,
            x,
            index,
            *self._gamma_and_beta,
            mean,
            variance,
            norm.epsilon,
            self.activation,
            self._pool.pool_size,
            out,
        )
        norm.set_grads(gamma=dgamma, beta=dbeta)
        return dx


class Folded(Layer):
    """A Conv or Dense with the BatchNorm and the activation after it, for prediction.

    In prediction, a BatchNorm is a scale and a shift of each channel. The kernel of the Conv or
    Dense applies them and the activation to its sums. The weights are not copied, so that a change
    of any parameter has its effect at once.

    Parameters
    ----------
    layer : Conv or Dense
    norm : BatchNorm, optional
    activation : one of `kernels.activations`, optional
    """

    def __init__(
        self,
        layer: Conv | Dense,
        norm: BatchNorm | None = None,
        activation: activations.Activation | None = None,
    ):
        super().__init__(layer.name)
        self.layer, self.norm, self.activation = layer, norm, activation
        self.backend = layer.backend
        self.input_shape = layer.input_shape
        self.built = True

    def scale_and_bias(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return what the sums of the layer are multiplied by, and what is added then."""
        bias = self.layer.params.get("bias")
        if self.norm is None:
            return None, bias
        gamma, beta = self.norm.params["gamma"], self.norm.params["beta"]
        return self.backend.fold_batch_norm(
            bias, gamma, beta, *self.norm.running_stats, self.norm.epsilon
        )

    def _forward(self, x, training):
        scale, bias = self.scale_and_bias()
        return self.layer.apply(x, bias, scale, self.activation), None

    def _backward(self, dy, context):
        raise RuntimeError("a folded layer can only predict, it has no gradients")


class FoldedSeparable(Layer):
    """A depthwise convolution and the 1x1 convolution after it, for prediction.

    Parameters
    ----------
    depthwise, pointwise : Folded
    """

    def __init__(self, depthwise: Folded, pointwise: Folded):
        super().__init__(f"{depthwise.name} and {pointwise.name}")
        self.depthwise, self.pointwise = depthwise, pointwise
        self.backend = depthwise.backend
        self.input_shape = depthwise.input_shape
        self.built = True

    def _forward(self, x, training):
        conv: Any = self.depthwise.layer
        scale, bias = self.depthwise.scale_and_bias()
        pointwise_scale, pointwise_bias = self.pointwise.scale_and_bias()
        y = self.backend.separable_correlate(
            x,
            conv.params["weights"],
            self.pointwise.layer.params["weights"],
            bias,
            pointwise_bias,
            conv.stride,
            conv.padding,
            conv.dilation,
            scale,
            pointwise_scale,
            self.depthwise.activation,
            self.pointwise.activation,
        )
        return y, None

    def _backward(self, dy, context):
        raise RuntimeError("a folded layer can only predict, it has no gradients")


def _combine_separable(plan: list[Layer]) -> list[Layer]:
    """Return a plan for prediction in which pairs of depthwise and 1x1 convolutions are one.

    In mixed precision they stay two: the combined kernel computes in float32, where products of
    bfloat16 numbers save more than the memory accesses. Prediction by the benchmarks' `mobile` took
    1.37 times as long on one thread of a Zen 4.
    """
    combined: list[Layer] = []
    for layer in plan:
        previous: Any = combined[-1] if combined else None
        if (
            type(layer) is type(previous) is Folded
            and type(layer.layer) is type(previous.layer) is Conv
            and layer.layer.compute_dtype != BFLOAT16
            and previous.layer.is_depthwise
            and layer.layer.is_pointwise
        ):
            combined[-1] = FoldedSeparable(previous, layer)
        else:
            combined.append(layer)
    return combined


def fold(layers: list[Layer]) -> list[Layer]:
    """Return a plan for prediction, which gives the same results as the layers.

    A Conv or Dense is combined with the BatchNorm and the activation after it, a Residual with the
    activation after it, and a depthwise Conv with the 1x1 Conv after it. Dropout is left out.

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
        previous: Any = plan[-1] if plan else None
        if type(layer) is Dropout:
            continue
        if type(layer) in (Conv, Dense):
            plan.append(Folded(layer))  # type: ignore[arg-type]
        elif type(layer) is Residual:
            plan.append(layer.with_paths(fold))
        elif type(previous) not in (Folded, Residual) or previous.activation is not None:
            plan.append(layer)
        elif type(layer) in ACTIVATIONS:
            previous.activation = layer.activation  # type: ignore[attr-defined]
        elif type(layer) is BatchNorm and type(previous) is Folded and previous.norm is None:
            previous.norm = layer
        else:
            plan.append(layer)
    return _combine_separable(plan)


def fuse(layers: list[Layer]) -> list[Layer]:
    """Return a plan for training, which gives the same results and gradients as the layers.

    A BatchNorm is combined with the activation after it, and with a max pooling after that if the
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
    ['BatchNormActivationPool']
    """
    plan: list[Layer] = []
    for layer in layers:
        previous = plan[-1] if plan else None
        if type(layer) is Residual:
            plan.append(layer.with_paths(fuse))
        elif type(layer) in ACTIVATIONS and type(previous) is BatchNorm:
            plan[-1] = BatchNormActivation(previous, layer)  # type: ignore[arg-type]
        elif (
            type(layer) is MaxPool
            and type(previous) is BatchNormActivation
            and layer.is_non_overlapping
        ):
            plan[-1] = BatchNormActivationPool(previous, layer)
        else:
            plan.append(layer)
    return plan
