"""The plan of a model: neighbouring layers that one kernel can run together.

Activations are large and arithmetic is cheap: a BatchNorm and the activation behind it read and
write them once together where they would twice apart. The numbers stay the same.
"""

from layers.activations import LeakyRelu, Relu
from layers.base import Layer
from layers.normalization import BatchNorm


class BatchNormRelu(Layer):
    """A BatchNorm and the ReLU behind it; parameters and gradients stay the BatchNorm's."""

    def __init__(self, norm: BatchNorm, relu: LeakyRelu):
        super().__init__(f"{norm.name} with {relu.name}")
        self.norm, self.slope = norm, relu.slope
        self.backend = norm.backend
        self.input_shape = norm.input_shape
        self.built = True

    def _forward(self, x, training):
        norm = self.norm
        gamma, beta = norm.params["gamma"], norm.params["beta"]
        if not training:
            mean, variance = norm.running
            return self.backend.batch_norm_relu_inference(
                x, gamma, beta, mean, variance, norm.epsilon, self.slope
            ), None
        y, mean, variance = self.backend.batch_norm_relu(x, gamma, beta, norm.epsilon, self.slope)
        norm.learn_statistics(mean, variance)
        return y, (x, mean, variance)

    def _backward(self, dy, saved):
        x, mean, variance = saved
        norm = self.norm
        dx, dgamma, dbeta = self.backend.batch_norm_relu_grad(
            dy,
            x,
            norm.params["gamma"],
            norm.params["beta"],
            mean,
            variance,
            norm.epsilon,
            self.slope,
        )
        norm.set_grads(gamma=dgamma, beta=dbeta)
        return dx


def fuse(layers: list[Layer]) -> list[Layer]:
    """Return the steps that do what the layers do one after the other."""
    steps: list[Layer] = []
    for layer in layers:
        before = steps[-1] if steps else None
        if type(layer) in (Relu, LeakyRelu) and type(before) is BatchNorm:
            steps[-1] = BatchNormRelu(before, layer)  # type: ignore[arg-type]
        else:
            steps.append(layer)
    return steps
