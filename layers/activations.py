"""Activation layers: functions of single numbers, and softmax."""

from abc import abstractmethod
from typing import Any

from kernels import activations
from kernels.validation import check_max_value
from layers.base import Layer, expect_rows


class Activation(Layer):
    """Apply a function to each number. The base class of activation layers.

    Accepts images (C, H, W) and rows (features,).

    """

    @property
    @abstractmethod
    def activation(self) -> activations.Activation:
        """The function."""

    def _forward(self, x, training):
        return self.backend.activate(x, self.activation), x

    def _backward(self, dy, x):
        return self.backend.activate_grad(dy, x, self.activation)


class LeakyRelu(Activation):
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

    @property
    def activation(self) -> activations.Activation:
        return activations.LeakyRelu(self.negative_slope)


class Relu(LeakyRelu):
    """Return positive inputs unchanged and set the others to zero.

    Accepts images (C, H, W) and rows (features,).

    Parameters
    ----------
    max_value : float, optional
        Larger inputs become this number: 6 gives ReLU6. None: there is no limit.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If ``max_value`` is not a number from 1e-30 to 1e30.

    References
    ----------
    Nair, Hinton: Rectified linear units improve restricted Boltzmann machines (2010).
    Howard et al.: MobileNets (2017), on ReLU6.

    Examples
    --------
    >>> Relu().forward(np.array([[-2.0, 3.0]])) == [[0, 3]]
    array([[ True,  True]])
    >>> Relu(max_value=6).forward(np.array([[5.0, 7.0]]))
    array([[5., 6.]])
    """

    negative_slope = 0.0

    def __init__(self, max_value: float | None = None, name: str | None = None):
        super().__init__(name)
        if max_value is not None:
            max_value = check_max_value(max_value)
        self.max_value = max_value

    @property
    def activation(self) -> activations.Activation:
        if self.max_value is None:
            return activations.LeakyRelu(self.negative_slope)
        return activations.ClippedRelu(self.max_value)

    def config(self) -> dict[str, Any]:
        return {} if self.max_value is None else {"max_value": self.max_value}


class Sigmoid(Activation):
    """Return 1 / (1 + exp(-x)), which lies between 0 and 1.

    Accepts images (C, H, W) and rows (features,).

    References
    ----------
    Goodfellow, Bengio, Courville: Deep Learning (2016), section 6.3.2.

    Examples
    --------
    >>> Sigmoid().forward(np.array([[-1000.0, 0.0, 1000.0]]))
    array([[0. , 0.5, 1. ]])
    """

    activation = activations.Sigmoid()


class Tanh(Activation):
    """Return the hyperbolic tangent, which lies between -1 and 1.

    Accepts images (C, H, W) and rows (features,).

    References
    ----------
    LeCun et al.: Efficient BackProp (1998), section 4.4.

    Examples
    --------
    >>> Tanh().forward(np.array([[-1000.0, 0.0, 1000.0]]))
    array([[-1.,  0.,  1.]])
    """

    activation = activations.Tanh()


class Silu(Activation):
    """Return x * sigmoid(x): the sigmoid linear unit, which is also called swish.

    Accepts images (C, H, W) and rows (features,).

    References
    ----------
    Ramachandran, Zoph, Le: Searching for activation functions (2017).

    Examples
    --------
    >>> Silu().forward(np.array([[0.0, 1.0, 1000.0]])).round(4)
    array([[0.000e+00, 7.311e-01, 1.000e+03]])
    """

    activation = activations.Silu()


class Gelu(Activation):
    """Return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))).

    The Gaussian error linear unit in its form with a tanh, which PyTorch computes with
    ``approximate="tanh"``; the form with erf differs by less than 5e-4. Accepts images (C, H, W)
    and rows (features,).

    References
    ----------
    Hendrycks, Gimpel: Gaussian error linear units (2016).

    Examples
    --------
    >>> Gelu().forward(np.array([[0.0, 1.0, 3.0]])).round(4)
    array([[0.    , 0.8412, 2.9964]])
    """

    activation = activations.Gelu()


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
