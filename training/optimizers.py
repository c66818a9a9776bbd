"""How parameters follow their gradients."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from kernels import Backend
from kernels.scalars import check_number
from training.parameters import Parameters


def _check(name: str, value: Any, low: float, high: float = math.inf, low_allowed=True) -> float:
    """Return a finite number between ``low`` and ``high`` (not included)."""
    checked = check_number(value, name, low, high)
    if checked == low and not low_allowed:
        raise ValueError(f"{name} must be above {low:g}, got {value!r}")
    return checked


class Optimizer(ABC):
    """The base of all optimizers.

    Parameters
    ----------
    learning_rate : float
        May be changed between two steps.
    weight_decay : float
        Strength of the pull of weights towards 0, added to their gradient (L2); biases,
        gamma and beta are left alone.
    clip_norm : float, optional
        A gradient that is longer than this, taken over all parameters, is shortened to it
        (Pascanu, Mikolov, Bengio: On the difficulty of training recurrent networks, 2013).
    """

    slots: tuple[str, ...] = ()  # vectors as long as the parameters that the method remembers

    def __init__(
        self, learning_rate: float, weight_decay: float = 0.0, clip_norm: float | None = None
    ):
        self.learning_rate = _check("learning_rate", learning_rate, 0, low_allowed=False)
        self.weight_decay = _check("weight_decay", weight_decay, 0)
        self.clip_norm = clip_norm
        if clip_norm is not None:
            self.clip_norm = _check("clip_norm", clip_norm, 0, low_allowed=False)
        self.steps = 0
        self._parameters: Parameters | None = None

    def check_free(self) -> None:
        """Raise ValueError when the optimizer works on a model already."""
        if self._parameters is not None:
            raise ValueError("the optimizer works on a model already; make a new one")

    def bind(self, parameters: Parameters, backend: Backend) -> None:
        """Start on these parameters; `check_free` comes first."""
        self._parameters, self._backend, self.steps = parameters, backend, 0
        self.state = {slot: np.zeros_like(parameters.values) for slot in self.slots}

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
        decayed = parameters.decayed if self.weight_decay else 0
        for part, decay in ((slice(decayed), self.weight_decay), (slice(decayed, None), 0.0)):
            if part.stop == 0:
                continue
            state = (self.state[slot][part] for slot in self.slots)
            self._update(parameters.values[part], parameters.grads[part], *state, decay)

    @abstractmethod
    def _update(self, p: np.ndarray, g: np.ndarray, *state_and_decay: Any) -> None:
        """Apply the gradients g to the parameters p, which decay by the last argument."""


class SGD(Optimizer):
    """Stochastic gradient descent: each step goes down the gradient.

    Parameters
    ----------
    learning_rate, weight_decay : float
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
    """Gradient descent that keeps rolling: each step adds to the last ones.

    Parameters
    ----------
    learning_rate, weight_decay : float
    momentum : float
        Share of the last step that is kept.
    nesterov : bool
        Whether the gradient counts as if taken where the momentum leads.

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
        self.momentum = _check("momentum", momentum, 0, 1)
        self.nesterov = bool(nesterov)

    def _update(self, p, g, velocity, decay):
        self._backend.momentum_step(
            p, g, velocity, self.learning_rate, self.momentum, self.nesterov, decay
        )


class Adam(Optimizer):
    """Gradient descent with a step size of its own for each parameter.

    Parameters
    ----------
    learning_rate, weight_decay : float
    beta1, beta2 : float
        Shares of the running means of the gradient and of its square that a step keeps.
    epsilon : float
        Keeps the division by the root of the second from exploding.

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
        self.beta1 = _check("beta1", beta1, 0, 1)
        self.beta2 = _check("beta2", beta2, 0, 1)
        self.epsilon = _check("epsilon", epsilon, 0, low_allowed=False)

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
    """Adam whose weight decay shrinks the weights directly, past the gradient's statistics.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon
        As in `Adam`.
    weight_decay : float
        Each step takes learning_rate * weight_decay of a weight away.

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
