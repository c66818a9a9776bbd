"""One step of each optimizer on a vector of parameters, in place and in one sweep."""

import math

from numba import prange

from kernels import validation
from kernels.numba_backend.runtime.compiler import parallel


# A Python float would turn float32 arithmetic into float64: numbers take the vectors' type first.
@parallel
def _sgd(p, g, learning_rate, l2):
    real = p.dtype.type
    rate, pull = real(learning_rate), real(l2)
    for i in prange(p.size):
        p[i] -= rate * (g[i] + pull * p[i])


@parallel
def _momentum(p, g, velocity, learning_rate, momentum, nesterov, l2):
    real = p.dtype.type
    rate, keep, pull = real(learning_rate), real(momentum), real(l2)
    for i in prange(p.size):
        gradient = g[i] + pull * p[i]
        velocity[i] = keep * velocity[i] + gradient
        ahead = gradient + keep * velocity[i] if nesterov else velocity[i]
        p[i] -= rate * ahead


@parallel
def _adam(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    real = p.dtype.type
    # The moments start at 0: divide by the weight that they have gathered so far.
    scale, root = real(1 / (1 - beta1**step)), real(1 / math.sqrt(1 - beta2**step))
    rate, pull, shrink, tiny = real(learning_rate), real(l2), real(decay), real(epsilon)
    new, new_square = real(1 - beta1), real(1 - beta2)
    for i in prange(p.size):
        gradient = g[i] + pull * p[i]
        m[i] += new * (gradient - m[i])
        v[i] += new_square * (gradient * gradient - v[i])
        update = m[i] * scale / (math.sqrt(v[i]) * root + tiny)
        p[i] -= rate * (update + shrink * p[i])


def sgd_step(p, g, learning_rate, l2):
    validation.check_vectors(p=p, g=g)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    _sgd(p, g, learning_rate, l2)


def momentum_step(p, g, velocity, learning_rate, momentum, nesterov, l2):
    validation.check_vectors(p=p, g=g, velocity=velocity)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    momentum, nesterov = validation.check_number(momentum, "momentum", 0, 1), bool(nesterov)
    _momentum(p, g, velocity, learning_rate, momentum, nesterov, l2)


def adam_step(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    validation.check_vectors(p=p, g=g, m=m, v=v)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    step, beta1, beta2, epsilon = validation.check_adam(step, beta1, beta2, epsilon)
    decay = validation.check_number(decay, "decay", 0)
    _adam(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay)
