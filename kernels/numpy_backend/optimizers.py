"""One step of each optimizer on a vector of parameters, in place."""

import numpy as np

from kernels import validation


def sgd_step(p, g, learning_rate, l2):
    validation.check_vectors(p=p, g=g)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    p -= learning_rate * (g + l2 * p)


def momentum_step(p, g, velocity, learning_rate, momentum, nesterov, l2):
    validation.check_vectors(p=p, g=g, velocity=velocity)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    momentum, nesterov = validation.check_number(momentum, "momentum", 0, 1), bool(nesterov)
    g = g + l2 * p
    velocity *= momentum
    velocity += g
    p -= learning_rate * (g + momentum * velocity if nesterov else velocity)


def adam_step(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    validation.check_vectors(p=p, g=g, m=m, v=v)
    learning_rate, l2 = validation.check_sgd(learning_rate, l2)
    step, beta1, beta2, epsilon = validation.check_adam(step, beta1, beta2, epsilon)
    decay = validation.check_number(decay, "decay", 0)
    g = g + l2 * p
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    # The moments start at 0: divide by the weight that they have gathered so far.
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    p -= learning_rate * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * p)
