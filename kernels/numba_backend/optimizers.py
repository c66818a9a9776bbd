"""Optimizer steps on a vector of parameters, in place and in one pass over memory."""

import math

from numba import prange

from kernels import validation
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.small_work import run_by_size


# A Python float would turn float32 arithmetic into float64: numbers are cast to the dtype first.
@parallel
def _sgd(p, g, learning_rate, l2):
    as_dtype = p.dtype.type
    learning_rate, l2 = as_dtype(learning_rate), as_dtype(l2)
    for i in prange(p.size):
        p[i] -= learning_rate * (g[i] + l2 * p[i])


@parallel
def _momentum(p, g, velocity, learning_rate, momentum, nesterov, l2):
    as_dtype = p.dtype.type
    learning_rate, momentum, l2 = as_dtype(learning_rate), as_dtype(momentum), as_dtype(l2)
    for i in prange(p.size):
        gradient = g[i] + l2 * p[i]
        velocity[i] = momentum * velocity[i] + gradient
        update = gradient + momentum * velocity[i] if nesterov else velocity[i]
        p[i] -= learning_rate * update


@parallel
def _adam(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    as_dtype = p.dtype.type
    # The moments start at 0. These factors correct their bias towards 0 in the first steps.
    m_correction = as_dtype(1 / (1 - beta1**step))
    root_v_correction = as_dtype(1 / math.sqrt(1 - beta2**step))
    m_rate, v_rate = as_dtype(1 - beta1), as_dtype(1 - beta2)
    learning_rate, epsilon = as_dtype(learning_rate), as_dtype(epsilon)
    l2, decay = as_dtype(l2), as_dtype(decay)
    for i in prange(p.size):
        gradient = g[i] + l2 * p[i]
        m[i] += m_rate * (gradient - m[i])
        v[i] += v_rate * (gradient * gradient - v[i])
        update = m[i] * m_correction / (math.sqrt(v[i]) * root_v_correction + epsilon)
        p[i] -= learning_rate * (update + decay * p[i])


def sgd_step(p, g, learning_rate, l2):
    validation.check_vectors(p=p, g=g)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    run_by_size(p.size, _sgd, p, g, learning_rate, l2)


def momentum_step(p, g, velocity, learning_rate, momentum, nesterov, l2):
    validation.check_vectors(p=p, g=g, velocity=velocity)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    momentum, nesterov = validation.check_momentum(momentum, nesterov)
    run_by_size(p.size, _momentum, p, g, velocity, learning_rate, momentum, nesterov, l2)


def adam_step(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    validation.check_vectors(p=p, g=g, m=m, v=v)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    step, beta1, beta2, epsilon = validation.check_adam(step, beta1, beta2, epsilon)
    decay = validation.check_number(decay, "decay", 0)
    run_by_size(
        2 * p.size, _adam, p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay
    )
