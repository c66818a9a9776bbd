"""The activation functions of `kernels.activations` on vectors.

`activate` and `activate_grad` take what `activation_argument` returns. Its type decides which
function they are, so that a kernel is compiled for each type of activation that it is called with,
and the function becomes a part of the kernel's loop.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from kernels import activations
from kernels.activations import GELU_CUBIC, GELU_LINEAR, Activation, LeakyRelu
from kernels.numba_backend.runtime.compiler import inlined
from kernels.numba_backend.simd.exponentials import exp, expm1_of_negative
from kernels.numba_backend.simd.vectors import constant_like, splat_like, where
from kernels.validation import check_activation

GELU_CUBIC_SLOPE = 3 * GELU_CUBIC


@inlined
def _sigmoids(value):
    """Return sigmoid(value) and sigmoid(-value), which is 1 - sigmoid(value) without rounding."""
    zero, one = constant_like(0.0, value), constant_like(1.0, value)
    is_positive = value > zero
    z = exp(where(is_positive, zero - value, value))  # at most 1
    larger = one / (one + z)
    smaller = z * larger
    return where(is_positive, larger, smaller), where(is_positive, smaller, larger)


@inlined
def _gelu_factors(value):
    """Return sigmoid(u), sigmoid(-u) and the derivative of u, where gelu(x) = x * sigmoid(u)."""
    linear, square = constant_like(GELU_LINEAR, value), value * value
    sigmoid, complement = _sigmoids(value * (linear + constant_like(GELU_CUBIC, value) * square))
    return sigmoid, complement, linear + constant_like(GELU_CUBIC_SLOPE, value) * square


def _leaky_relu(value, activation):
    slope = splat_like(activation, value)
    return where(value > constant_like(0.0, value), value, value * slope)


def _leaky_relu_grad(dy, value, activation):
    slope = splat_like(activation, value)
    return where(value > constant_like(0.0, value), dy, dy * slope)


def _clipped_relu(value, activation):
    zero, largest = constant_like(0.0, value), splat_like(activation.max_value, value)
    return where(value > largest, largest, where(value <= zero, zero, value))  # NaN remains


def _clipped_relu_grad(dy, value, activation):
    zero, largest = constant_like(0.0, value), splat_like(activation.max_value, value)
    return where((value > zero) & (largest > value), dy, zero)


def _sigmoid(value, activation):
    return _sigmoids(value)[0]


def _sigmoid_grad(dy, value, activation):
    sigmoid, complement = _sigmoids(value)
    return dy * sigmoid * complement


def _tanh(value, activation):
    zero, two = constant_like(0.0, value), constant_like(2.0, value)
    is_positive = value > zero
    magnitude = where(is_positive, value, zero - value)
    z = expm1_of_negative((zero - two) * magnitude)
    y = z / (z + two)  # -tanh(magnitude)
    return where(is_positive, zero - y, y)


def _tanh_grad(dy, value, activation):
    sigmoid, complement = _sigmoids(value + value)
    return dy * constant_like(4.0, value) * sigmoid * complement


def _silu(value, activation):
    return value * _sigmoids(value)[0]


def _silu_grad(dy, value, activation):
    sigmoid, complement = _sigmoids(value)
    return dy * sigmoid * (constant_like(1.0, value) + value * complement)


def _gelu(value, activation):
    return value * _gelu_factors(value)[0]


def _gelu_grad(dy, value, activation):
    sigmoid, complement, du = _gelu_factors(value)
    return dy * sigmoid * (constant_like(1.0, value) + value * complement * du)


# The function and its gradient.
_FUNCTIONS = {
    LeakyRelu: (_leaky_relu, _leaky_relu_grad),
    activations.ClippedRelu: (_clipped_relu, _clipped_relu_grad),
    activations.Sigmoid: (_sigmoid, _sigmoid_grad),
    activations.Tanh: (_tanh, _tanh_grad),
    activations.Silu: (_silu, _silu_grad),
    activations.Gelu: (_gelu, _gelu_grad),
}


def activation_argument(activation: Activation | None, dtype: np.dtype) -> Any:
    """Return a checked activation as the argument of a kernel.

    A leaky ReLU, and the identity for None, is its slope alone: the call of a kernel takes 0.6 us
    longer with a tuple.
    """
    checked = check_activation(activation, dtype)
    return checked.negative_slope if isinstance(checked, LeakyRelu) else checked


def activation_type(argument: Any) -> type:
    """Return the type of the activation that an argument of this Numba type stands for."""
    return LeakyRelu if isinstance(argument, types.Float) else argument.instance_class


def activate(value, activation):
    """Return the activation of a vector."""
    raise NotImplementedError("only for compiled code")


def activate_grad(dy, value, activation):
    """Return dy times the derivative of the activation at a vector."""
    raise NotImplementedError("only for compiled code")


@overload(activate, jit_options={"forceinline": True})
def _(value, activation):
    return _FUNCTIONS[activation_type(activation)][0]


@overload(activate_grad, jit_options={"forceinline": True})
def _(dy, value, activation):
    return _FUNCTIONS[activation_type(activation)][1]
