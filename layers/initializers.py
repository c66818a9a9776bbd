"""Initial weights, scaled such that a layer keeps the variance of its input."""

import math
from collections.abc import Callable

import numpy as np

Initializer = Callable[[np.random.Generator, tuple[int, ...], int, int], np.ndarray]


def he(rng, shape, fan_in, fan_out):
    """Return normal random numbers of variance 2 / fan_in, for layers before a ReLU.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Shape of the weights.
    fan_in, fan_out : int
        Number of inputs of each output, and of outputs of each input.

    References
    ----------
    He et al.: Delving deep into rectifiers (2015).
    """
    return rng.standard_normal(shape) * math.sqrt(2 / fan_in)


def glorot(rng, shape, fan_in, fan_out):
    """Return uniform random numbers of variance 2 / (fan_in + fan_out), for the last layer.

    The parameters are those of `he`.

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep networks (2010).
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


INITIALIZERS: dict[str, Initializer] = {"he": he, "glorot": glorot}


def check_initializer(name: str) -> str:
    """Return the name of an initializer; raise ValueError for another name."""
    if not isinstance(name, str) or name not in INITIALIZERS:
        raise ValueError(f"initializer must be one of {', '.join(INITIALIZERS)}, got {name!r}")
    return name
