"""One step of each optimizer on a vector of parameters, in place and in one sweep."""

import math

from numba import prange

from kernels import checks
from kernels.numba_backend.jit import parallel


@parallel
def _sgd(p, g, learning_rate, l2):
    for i in prange(p.size):
        p[i] -= learning_rate * (g[i] + l2 * p[i])


@parallel
def _momentum(p, g, velocity, learning_rate, momentum, nesterov, l2):
    for i in prange(p.size):
        gradient = g[i] + l2 * p[i]
        velocity[i] = momentum * velocity[i] + gradient
        ahead = gradient + momentum * velocity[i] if nesterov else velocity[i]
        p[i] -= learning_rate * ahead


@parallel
def _adam(p, g, m, v, learning_rate, beta1, beta2, scale, root, epsilon, l2, decay):
    for i in prange(p.size):
        gradient = g[i] + l2 * p[i]
        m[i] += (1 - beta1) * (gradient - m[i])
        v[i] += (1 - beta2) * (gradient * gradient - v[i])
        step = m[i] * scale / (math.sqrt(v[i]) * root + epsilon)
        p[i] -= learning_rate * (step + decay * p[i])


def sgd_step(p, g, learning_rate, l2):
    checks.vectors(p=p, g=g)
    real = p.dtype.type  # a Python float would turn float32 arithmetic into float64
    _sgd(p, g, real(learning_rate), real(l2))


def momentum_step(p, g, velocity, learning_rate, momentum, nesterov, l2):
    checks.vectors(p=p, g=g, velocity=velocity)
    real = p.dtype.type
    _momentum(p, g, velocity, real(learning_rate), real(momentum), nesterov, real(l2))


def adam_step(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    checks.vectors(p=p, g=g, m=m, v=v)
    real = p.dtype.type
    # The moments start at 0: divide by the weight that they have gathered so far.
    scale, root = 1 / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    numbers = (learning_rate, beta1, beta2, scale, root, epsilon, l2, decay)
    _adam(p, g, m, v, *(real(number) for number in numbers))
