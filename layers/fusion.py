"""The plan of a model: neighbouring layers that one kernel can run together.

Activations are large and arithmetic is cheap: a BatchNorm, the activation and the pooling behind
it read and write them once together where they would three times apart. The numbers stay the same.
"""

import numpy as np

from layers.activations import LeakyRelu, Relu
from layers.base import Layer
from layers.conv import Conv
from layers.dense import Dense
from layers.normalization import BatchNorm, Dropout
from layers.pooling import MaxPool


class BatchNormRelu(Layer):
    """A BatchNorm and the ReLU behind it; parameters and gradients stay the BatchNorm's."""

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
                x, *self._gamma_and_beta, *norm.running, norm.epsilon, self.negative_slope
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
    """The same with the max pooling behind, whose windows lie side by side."""

    def __init__(self, together: BatchNormRelu, pool: MaxPool):
        super().__init__(together.norm, together)  # type: ignore[arg-type]
        self.name = f"{together.name} and {pool.name}"
        self._pool = pool

    def _forward(self, x, training):
        if not training:
            return self._pool.forward(super()._forward(x, training)[0], training), None
        norm = self.norm
        y, taken, mean, variance = self.backend.batch_norm_relu_pool(
            x, *self._gamma_and_beta, norm.epsilon, self.negative_slope, self._pool.pool_size
        )
        norm.update_running_stats(mean, variance)
        return y, (x, taken, mean, variance)

    def _backward(self, dy, context):
        x, taken, mean, variance = context
        norm, out = self.norm, self.norm.grad_buffers("gamma", "beta")
        dx, dgamma, dbeta = self.backend.batch_norm_relu_pool_grad(
            dy,
            x,
            taken,
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
    """A Conv or Dense, with the BatchNorm and the ReLU behind it, as prediction runs them.

    With the running statistics a BatchNorm is a scale and a shift. They and the ReLU are taken on
    the way out of the layer's sums: the weights are not copied, so nothing can be out of date.
    """

    def __init__(self, layer: Conv | Dense, norm: BatchNorm | None, negative_slope: float):
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
                bias, gamma, beta, *self.norm.running, self.norm.epsilon
            )
        return self.layer.apply(x, bias, scale, self.negative_slope), None

    def _backward(self, dy, context):
        raise RuntimeError("a folded layer only predicts")


def fold(layers: list[Layer]) -> list[Layer]:
    """Return the steps that predict what the layers predict one after the other."""
    steps: list[Layer] = []
    for layer in layers:
        before = steps[-1] if steps else None
        if type(layer) is Dropout:
            continue
        if type(layer) in (Conv, Dense):
            steps.append(Folded(layer, None, 1.0))  # type: ignore[arg-type]
        elif type(before) is not Folded or before.negative_slope != 1:
            steps.append(layer)
        elif type(layer) is BatchNorm and before.norm is None:
            before.norm = layer
        elif type(layer) in (Relu, LeakyRelu):
            before.negative_slope = layer.negative_slope  # type: ignore[attr-defined]
        else:
            steps.append(layer)
    return steps


def fuse(layers: list[Layer]) -> list[Layer]:
    """Return the steps that do what the layers do one after the other."""
    steps: list[Layer] = []
    for layer in layers:
        before = steps[-1] if steps else None
        if type(layer) in (Relu, LeakyRelu) and type(before) is BatchNorm:
            steps[-1] = BatchNormRelu(before, layer)  # type: ignore[arg-type]
        elif type(layer) is MaxPool and type(before) is BatchNormRelu and layer.is_non_overlapping:
            steps[-1] = BatchNormReluPool(before, layer)
        else:
            steps.append(layer)
    return steps
