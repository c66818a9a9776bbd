"""The end of a plan in mixed precision, where activations become float32.

In mixed precision, activations are bfloat16 numbers, which have two to three digits. The logits and
the loss need more: the gradient of the loss is the difference of a probability and a target, which
is small where the network is right. A plan therefore computes its last Dense layer in float32.
"""

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from layers.base import Layer
from layers.dense import Dense

AnyLayer = TypeVar("AnyLayer", bound=Layer)


class FullPrecision(Layer):
    """A layer at the end of a plan that computes in float32, after layers in bfloat16.

    Its output belongs to the float32 backend. The parameters, gradients and buffers are those of
    the layer, which itself is unchanged.

    Parameters
    ----------
    layer : Layer
        A layer built in mixed precision.
    """

    def __init__(self, layer: Layer):
        super().__init__(layer.name)
        self.backend: Any = layer.backend  # a `kernels.MixedBackend`
        self.input_shape = layer.input_shape
        self.built = True
        self._original, self._layer = layer, in_full_precision(layer)

    def _forward(self, x, training):
        return self._layer._forward(self.backend.widen(x), training)

    def _backward(self, dy, context):
        self._layer.need_dx = self._original.need_dx
        dx = self._layer._backward(dy, context)
        return None if dx is None else self.backend.narrow(dx)


class Widen(Layer):
    """Return activations in bfloat16 as float32; the gradient is rounded to bfloat16.

    Parameters
    ----------
    before : Layer
        The layer before it, built in mixed precision.
    """

    def __init__(self, before: Layer):
        super().__init__(f"output of {before.name}")
        self.backend: Any = before.backend  # a `kernels.MixedBackend`
        self.input_shape = self.output_shape = before.output_shape
        self.built = True

    def _forward(self, x, training):
        return self.backend.widen(x), ()

    def _backward(self, dy, context):
        return self.backend.narrow(dy)


def in_full_precision(layer: AnyLayer) -> AnyLayer:
    """Return a layer that shares the arrays of one in mixed precision, and computes in float32."""
    backend: Any = layer.backend
    layer = copy.copy(layer)
    layer.backend, layer.compute_dtype = backend.full, layer.dtype.name
    return layer


def end_in_full_precision(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers of a plan in mixed precision, with an end that computes in float32.

    Parameters
    ----------
    layers : sequence of Layer
        Layers built in mixed precision, without the softmax. If the last one is a Dense, it
        computes in float32; behind another one, its output is converted.

    Examples
    --------
    >>> dense = Dense(10).build((32,), backend="numpy", dtype="bfloat16")
    >>> [type(layer).__name__ for layer in end_in_full_precision([dense])]
    ['FullPrecision']
    """
    *before, last = layers
    if isinstance(last, Dense):
        return [*before, FullPrecision(last)]
    return [*layers, Widen(last)]
