"""Optimizers: how a step changes the parameters by their gradients."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from kernels import Backend
from kernels.scalars import check_bool, check_number
from training.parameters import Parameters


def _check_positive(value: Any, name: str) -> float:
    """Return a finite number above 0."""
    checked = check_number(value, name, 0)
    if checked == 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return checked


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
        vectors = (parameters.values, parameters.grads, *self.state.values())
        # Views that stay the same objects: the backend checks them in the first step only.
        self._decayed, self._not_decayed = (
            [vector[part] for vector in vectors]
            for part in (slice(parameters.decayed), slice(parameters.decayed, None))
        )
        self._all = vectors

    def step(self) -> None:
        """Apply the gradients to the parameters."""
        self.steps += 1
        parameters = self._parameters
        assert parameters is not None, "bind comes first"
        if self.clip_norm is not None:
            # No BLAS: its threads would fight for the cores with those of the kernels.
            norm = math.sqrt(np.square(parameters.grads, dtype=np.float64).sum())
            if norm > self.clip_norm:
                parameters.grads *= self.clip_norm / norm
        if self.weight_decay and parameters.decayed:
            self._update(*self._decayed, self.weight_decay)
            self._update(*self._not_decayed, 0.0)
        else:
            self._update(*self._all, 0.0)

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

    def _update(self, p, g, m, v, decay):
        l2, decoupled = (0.0, decay) if self.decoupled else (decay, 0.0)
        self._backend.adam_step(
            p,
            g,
            m,
            v,
            self.steps,
            self.learning_rate,
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
