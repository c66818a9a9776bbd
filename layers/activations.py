"""Activation layers: ReLU, leaky ReLU and softmax."""

from layers.base import Layer, expect_rows


class LeakyRelu(Layer):
    """Return positive inputs unchanged and multiply the others by 0.01.

    Accepts images (C, H, W) and rows (features,).

    References
    ----------
    Maas, Hannun, Ng: Rectifier nonlinearities improve neural network acoustic models (2013).

    Examples
    --------
    >>> LeakyRelu().forward(np.array([[-2.0, 3.0]]))
    array([[-0.02,  3.  ]])
    """

    negative_slope = 0.01

    def _forward(self, x, training):
        return self.backend.leaky_relu(x, self.negative_slope), x

    def _backward(self, dy, x):
        return self.backend.leaky_relu_grad(dy, x, self.negative_slope)


class Relu(LeakyRelu):
    """Return positive inputs unchanged and set the others to zero.

    Accepts images (C, H, W) and rows (features,).

    References
    ----------
    Nair, Hinton: Rectified linear units improve restricted Boltzmann machines (2010).

    Examples
    --------
    >>> Relu().forward(np.array([[-2.0, 3.0]])) == [[0, 3]]
    array([[ True,  True]])
    """

    negative_slope = 0.0


class Softmax(Layer):
    """Turn rows of logits (classes,) into probabilities that sum to 1.

    A model trains its last layer through `loss`, which computes softmax and cross-entropy
    together. It cannot overflow, and it never takes the logarithm of 0.

    Examples
    --------
    >>> Softmax().forward(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """

    def _build(self, input_shape):
        expect_rows(input_shape)
        return input_shape

    def _forward(self, x, training):
        y = self.backend.softmax(x)
        return y, y

    def _backward(self, dy, y):
        return self.backend.softmax_grad(dy, y)

    def loss(self, logits, labels, smoothing=0.0, weights=None):
        """Return the mean cross-entropy, the number of correct predictions, and the gradient.

        Parameters
        ----------
        logits : (N, classes)
        labels : (N,) of int
        smoothing : float
            Label smoothing, 0 <= smoothing < 1.
        weights : (N,) of float64, optional
            Factor of the loss of each image.

        Returns
        -------
        loss : float
            Sum of the weighted losses, divided by N.
        n_correct : int
        dlogits : (N, classes)
            Gradient of the loss with respect to the logits.
        """
        return self.backend.softmax_cross_entropy(logits, labels, smoothing, weights)
