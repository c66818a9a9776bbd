"""Random numbers that weights start from, scaled so that signals keep their size."""

import math
from collections.abc import Callable

import numpy as np

Initializer = Callable[[np.random.Generator, tuple[int, ...], int, int], np.ndarray]


def he(rng, shape, fan_in, fan_out):
    """Normal numbers of variance 2 / fan_in, for layers before a ReLU.

    References
    ----------
    He et al.: Delving deep into rectifiers (2015).
    """
    return rng.standard_normal(shape) * math.sqrt(2 / fan_in)


def glorot(rng, shape, fan_in, fan_out):
    """Uniform numbers of variance 2 / (fan_in + fan_out), for layers before a softmax.

    References
    ----------
    Glorot, Bengio: Understanding the difficulty of training deep networks (2010).
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


INITIALIZERS: dict[str, Initializer] = {"he": he, "glorot": glorot}


def check_initializer(name: str) -> str:
    if not isinstance(name, str) or name not in INITIALIZERS:
        raise ValueError(f"initializer must be one of {', '.join(INITIALIZERS)}, got {name!r}")
    return name
