"""Layers that bend: ReLU, its leaky form, and softmax."""

from layers.base import Layer, expect_rows


class LeakyRelu(Layer):
    """Pass what is positive, and 0.01 of what is not.

    References
    ----------
    Maas, Hannun, Ng: Rectifier nonlinearities improve neural network acoustic models (2013).
    """

    negative_slope = 0.01

    def _forward(self, x, training):
        return self.backend.leaky_relu(x, self.negative_slope), x

    def _backward(self, dy, x):
        return self.backend.leaky_relu_grad(dy, x, self.negative_slope)


class Relu(LeakyRelu):
    """Pass what is positive, and nothing of what is not."""

    negative_slope = 0.0


class Softmax(Layer):
    """Turn rows of logits into probabilities that add up to 1.

    As the last layer of a model it is trained through `loss`, softmax and cross-entropy in
    one, which neither overflows nor takes the logarithm of 0.
    """

    def _build(self, input_shape):
        expect_rows(input_shape)
        return input_shape

    def _forward(self, x, training):
        y = self.backend.softmax(x)
        return y, y

    def _backward(self, dy, y):
        return self.backend.softmax_grad(dy, y)

    def loss(self, logits, labels, smoothing=0.0):
        """Return the mean cross-entropy, the hits, and the gradient for the logits."""
        return self.backend.softmax_cross_entropy(logits, labels, smoothing)
