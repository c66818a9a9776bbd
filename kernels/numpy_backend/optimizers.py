"""Optimizer steps, which update a vector of parameters in place."""

import numpy as np

from kernels.validation import check_adam, check_momentum, check_number, check_sgd, check_vectors


def sgd_step(p, g, learning_rate, l2):
    check_vectors(p=p, g=g)
    learning_rate, l2 = check_sgd(learning_rate, l2)
    p -= learning_rate * (g + l2 * p)


def momentum_step(p, g, velocity, learning_rate, momentum, nesterov, l2):
    check_vectors(p=p, g=g, velocity=velocity)
    learning_rate, l2 = check_sgd(learning_rate, l2)
    momentum, nesterov = check_momentum(momentum, nesterov)
    g = g + l2 * p
    velocity *= momentum
    velocity += g
    p -= learning_rate * (g + momentum * velocity if nesterov else velocity)


def adam_step(p, g, m, v, step, learning_rate, beta1, beta2, epsilon, l2, decay):
    check_vectors(p=p, g=g, m=m, v=v)
    learning_rate, l2 = check_sgd(learning_rate, l2)
    step, beta1, beta2, epsilon = check_adam(step, beta1, beta2, epsilon)
    decay = check_number(decay, "decay", 0)
    g = g + l2 * p
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    # The moments start at 0, so that the weights of the gradients in them do not sum to 1 yet.
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    p -= learning_rate * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * p)
