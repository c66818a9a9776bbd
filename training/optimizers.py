"""Optimizers: how a step changes the parameters by their gradients."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from kernels import Backend
from kernels.scalars import check_bool, check_int, check_number
from training.parameters import Parameters


def _check_positive(value: Any, name: str) -> float:
    """Return a finite number above 0."""
    checked = check_number(value, name, 0)
    if checked == 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return checked


def _norm(matrix: np.ndarray) -> float:
    """Return the Frobenius norm.

    No BLAS: its threads would fight for the cores with those of the kernels.
    """
    return math.sqrt(np.square(matrix, dtype=np.float64).sum())


class Optimizer(ABC):
    """The base of all optimizers.

    A subclass names the vectors that it keeps between two steps in `slots`, and implements
    `_update`.

    Parameters
    ----------
    learning_rate : float
        May be changed between two steps.
    weight_decay : float
        Strength of the L2 penalty on the weights, which is added to their gradient. Biases,
        gamma and beta do not decay.
    clip_norm : float, optional
        A gradient whose norm, taken over all parameters, exceeds this is scaled down to it.

    Attributes
    ----------
    steps : int
        The number of steps since `bind`.
    state : dict of str to (P,)
        The vector of each slot. Write into these arrays; replacing them has no effect.

    References
    ----------
    Pascanu, Mikolov, Bengio: On the difficulty of training recurrent networks (2013), on clipping.
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self, learning_rate: float, weight_decay: float = 0.0, clip_norm: float | None = None
    ):
        self.learning_rate = _check_positive(learning_rate, "learning_rate")
        self.weight_decay = check_number(weight_decay, "weight_decay", 0)
        self.clip_norm = clip_norm
        if clip_norm is not None:
            self.clip_norm = _check_positive(clip_norm, "clip_norm")
        self.steps = 0
        self._parameters: Parameters | None = None

    def check_unbound(self) -> None:
        """Raise ValueError when the optimizer is bound to a model already."""
        if self._parameters is not None:
            raise ValueError("the optimizer works on a model already; make a new one")

    def bind(self, parameters: Parameters, backend: Backend) -> None:
        """Reset the state, for the given parameters. Call `check_unbound` first."""
        self._parameters, self._backend, self.steps = parameters, backend, 0
        self.state = {slot: np.zeros_like(parameters.values) for slot in self.slots}
        self._decayed = self._views(0, parameters.decayed)
        self._not_decayed = self._views(parameters.decayed, len(parameters.values))
        self._all = self._views(0, len(parameters.values))

    def _views(self, start: int, stop: int) -> list[np.ndarray]:
        """Return a part of the parameters, of their gradients, and of each slot.

        Keep the list: the backend checks arrays only when they are not those of the step before.
        """
        assert self._parameters is not None, "bind comes first"
        vectors = (self._parameters.values, self._parameters.grads, *self.state.values())
        return [vector[start:stop] for vector in vectors]

    def step(self) -> None:
        """Apply the gradients to the parameters."""
        self.steps += 1
        parameters = self._parameters
        assert parameters is not None, "bind comes first"
        if self.clip_norm is not None:
            norm = _norm(parameters.grads)
            if norm > self.clip_norm:
                parameters.grads *= self.clip_norm / norm
        self._update_all()

    def _update_all(self) -> None:
        """Apply the gradients, which were clipped."""
        for views, decay in self._parts():
            self._update(*views, decay)

    def _parts(self) -> list[tuple[list[np.ndarray], float]]:
        """Return the parts of the vectors that `_update` is called with, and their weight decay."""
        if self.weight_decay and len(self._decayed[0]):
            return [(self._decayed, self.weight_decay), (self._not_decayed, 0.0)]
        return [(self._all, 0.0)]

    @abstractmethod
    def _update(self, p: np.ndarray, g: np.ndarray, *state_and_decay: Any) -> None:
        """Apply gradients to parameters, in place.

        Parameters
        ----------
        p, g : (P,)
            Parameters and gradients.
        *state_and_decay
            The vector (P,) of each slot, and the weight decay of these parameters.
        """


class SGD(Optimizer):
    """Stochastic gradient descent: each step is the gradient times the learning rate.

    Parameters
    ----------
    learning_rate, weight_decay, clip_norm
        As in `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ):
        super().__init__(learning_rate, weight_decay, clip_norm)

    def _update(self, p, g, decay):
        self._backend.sgd_step(p, g, self.learning_rate, decay)


class Momentum(Optimizer):
    """Gradient descent with momentum: each step adds a share of the step before.

    Parameters
    ----------
    learning_rate, weight_decay, clip_norm
        As in `Optimizer`.
    momentum : float
        Share of the last step that is added, 0 <= momentum < 1.
    nesterov : bool
        Whether to use Nesterov momentum, which evaluates the gradient at the look-ahead point.

    References
    ----------
    Sutskever et al.: On the importance of initialization and momentum (2013).
    """

    slots = ("velocity",)

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ):
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.momentum = check_number(momentum, "momentum", 0, 1)
        self.nesterov = check_bool(nesterov, "nesterov")

    def _update(self, p, g, velocity, decay):
        self._backend.momentum_step(
            p, g, velocity, self.learning_rate, self.momentum, self.nesterov, decay
        )


class Adam(Optimizer):
    """Gradient descent with a separate step size for each parameter.

    Parameters
    ----------
    learning_rate, weight_decay, clip_norm
        As in `Optimizer`.
    beta1, beta2 : float
        Decay rates of the running means of the gradient and of its square, 0 <= beta < 1.
    epsilon : float
        Added to the square root of the second moment to avoid division by zero.

    References
    ----------
    Kingma, Ba: Adam (2015).
    """

    slots = ("m", "v")
    decoupled = False

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ):
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.beta1 = check_number(beta1, "beta1", 0, 1)
        self.beta2 = check_number(beta2, "beta2", 0, 1)
        self.epsilon = _check_positive(epsilon, "epsilon")

    @property
    def _adam_rate(self) -> float:
        return self.learning_rate

    def _update(self, p, g, m, v, decay):
        l2, decoupled = (0.0, decay) if self.decoupled else (decay, 0.0)
        self._backend.adam_step(
            p,
            g,
            m,
            v,
            self.steps,
            self._adam_rate,
            self.beta1,
            self.beta2,
            self.epsilon,
            l2,
            decoupled,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: it shrinks the weights and is not part of the gradient.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon, clip_norm
        As in `Adam`.
    weight_decay : float
        Each step subtracts the share learning_rate * weight_decay of a weight.

    References
    ----------
    Loshchilov, Hutter: Decoupled weight decay regularization (2019).
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 1e-2,
        clip_norm: float | None = None,
    ):
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm)


class Muon(AdamW):
    """Momentum whose steps are orthogonal matrices for filters; AdamW for all other parameters.

    The filters of a convolution (of one group) are the rows of a matrix. Its step is the momentum
    with all singular values brought near 1, so that each direction is learned as fast as the
    strongest one. The length of the step is a share of the norm of the filters. Then they are
    scaled by 1 / sqrt(1 + share**2), so that steps at right angles to them leave their norm as it
    is.

    Parameters
    ----------
    learning_rate : float
        The share: each step changes the filters by so much of their norm.
    momentum : float
        Share of the last momentum that is added to the gradient, 0 <= momentum < 1. It is Nesterov
        momentum.
    iterations : int
        See `orthogonalize`.
    adam_ratio : float
        The learning rate of all other parameters, by that of the filters.
    beta1, beta2, epsilon, weight_decay
        For all other parameters, as in `AdamW`.
    clip_norm
        As in `Optimizer`.

    Notes
    -----
    The slot "m" holds the momentum of filters, and "v" zeros. Filters that are all 0 stay 0.

    References
    ----------
    Jordan et al.: Muon: an optimizer for hidden layers in neural networks (2024). Bernstein,
    Vahdat, Yue, Liu: On the distance between two neural networks and the stability of learning
    (2020), on steps by the norm of the weights.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        momentum: float = 0.6,
        iterations: int = 3,
        adam_ratio: float = 0.08,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
        clip_norm: float | None = None,
    ):
        super().__init__(learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm)
        self.momentum = check_number(momentum, "momentum", 0, 1)
        self.iterations = check_int(iterations, "iterations", 1)
        self.adam_ratio = _check_positive(adam_ratio, "adam_ratio")

    @property
    def _adam_rate(self):
        return self.learning_rate * self.adam_ratio

    def bind(self, parameters, backend):
        super().bind(parameters, backend)
        self._filters: list[list[np.ndarray]] = []  # values, gradient and momentum, as matrices
        self._between: list[list[np.ndarray]] = []
        end = 0
        for start, shape in parameters.filters:
            size = math.prod(shape)
            vectors = self._views(start, start + size)[:3]
            self._filters.append([vector.reshape(shape[0], -1) for vector in vectors])
            self._between.append(self._views(end, start))
            end = start + size
        self._between.append(self._views(end, parameters.decayed))
        self._between = [views for views in self._between if len(views[0])]

    def _parts(self):
        decayed = [(views, self.weight_decay) for views in self._between]
        return [*decayed, (self._not_decayed, 0.0)] if len(self._not_decayed[0]) else decayed

    def _update_all(self):
        super()._update_all()
        for filters, gradient, momentum in self._filters:
            momentum *= self.momentum
            momentum += gradient
            step = orthogonalize(gradient + self.momentum * momentum, self.iterations)
            if norm := _norm(step):
                filters -= (self.learning_rate * _norm(filters) / norm) * step
                filters *= 1 / math.sqrt(1 + self.learning_rate**2)


QUINTIC = 3.4445, -4.775, 2.0315  # by Jordan et al.


def orthogonalize(matrix: np.ndarray, iterations: int) -> np.ndarray:
    """Return a matrix with the same singular vectors, and singular values near 1.

    With the singular values s of the matrix, divided by its Frobenius norm, each iteration makes
    a*s + b*s**3 + c*s**5 of them. The coefficients let small ones grow fast, and keep large ones
    between 0.7 and 1.3.

    Parameters
    ----------
    matrix : (R, C)
    iterations : int
        After 3, singular values from an 80th of the norm on are 0.5 to 1.3, and after 5, those from
        a 900th on.

    Notes
    -----
    The polynomial of a matrix X is P @ X with P = a*I + b*A + c*A@A and A = X @ X.T. All iterations
    are done on A, which has as many rows as the shorter side, so that there are two products with
    the longer side, and not two in each iteration.

    References
    ----------
    Bernstein, Newhouse: Old optimizer, new norm: an anthology (2024), on the iteration.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T, iterations).T
    norm = _norm(matrix)
    if norm == 0:
        return matrix
    x = matrix / norm
    gram = x @ x.T
    polynomial = product = _quintic(gram)
    for _ in range(iterations - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _quintic(gram)
        product = polynomial @ product
    return product @ x


def _quintic(gram: np.ndarray) -> np.ndarray:
    """Return a*I + b*A + c*A@A of a matrix A."""
    a, b, c = QUINTIC
    identity = np.eye(len(gram), dtype=gram.dtype)
    return a * identity + (b * identity + c * gram) @ gram


OPTIMIZERS: dict[str, type[AdamW]] = {"adamw": AdamW, "muon": Muon}  # those with a weight decay
