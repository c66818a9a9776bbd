"""Residual blocks: the sum of a few layers and a shortcut past them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.activations import Activation
from layers.base import Layer, Shape, ShapeError, walk


class Residual(Layer):
    """Return the sum of what two paths make of the input: y = body(x) + shortcut(x).

    Accepts what the first layers of both paths accept. Each layer inside has its own parameters,
    and may be a Residual itself.

    Parameters
    ----------
    *layers : Layer
        The body: one layer or more, which run one after the other.
    shortcut : list of Layer, optional
        The layers of the shortcut, such as ``[Conv(32, 1, stride=2), BatchNorm()]``. None: the
        identity. Both paths must have the same output shape.
    name : str, optional

    Attributes
    ----------
    body, shortcut : list of Layer
        The layers of both paths. An empty shortcut is the identity.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or if a layer occurs twice.
    ShapeError
        In `build`, if the paths have different output shapes.

    References
    ----------
    He et al.: Deep residual learning for image recognition (2016).

    Examples
    --------
    >>> block = Residual(Conv(4, 3, padding="same"), Relu(), shortcut=[Conv(4, 1)])
    >>> block.forward(np.zeros((10, 3, 8, 8), np.float32)).shape
    (10, 4, 8, 8)
    """

    def __init__(
        self, *layers: Layer, shortcut: list[Layer] | None = None, name: str | None = None
    ):
        super().__init__(name)
        self.body, self.shortcut = list(layers), _check_shortcut(shortcut)
        # `fold` sets the activation after the block, for the plans of prediction.
        self.activation: Activation | None = None
        if not self.body:
            raise ValueError("a Residual needs at least one layer in its body")
        for layer in (*self.body, *self.shortcut):
            if not isinstance(layer, Layer):
                raise TypeError(f"a Residual takes layers such as Relu(), got {layer!r}")
        inside = list(walk([self]))
        for position, layer in enumerate(inside):
            if any(layer is other for other in inside[:position]):
                raise ValueError(f"layer {layer} occurs twice in a Residual: make a new one")

    @property
    def paths(self) -> dict[str, list[Layer]]:
        return {"": self.body, "shortcut.": self.shortcut}

    def with_paths(self, plan: Callable[[list[Layer]], list[Layer]]) -> "Residual":
        """Return this block with the plans of its paths, which share its parameters."""
        block = copy.copy(self)
        block.body, block.shortcut = plan(self.body), plan(self.shortcut)
        return block

    def _build(self, input_shape):
        shapes = [self._build_path(path, input_shape) for path in (self.body, self.shortcut)]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"its body returns {shapes[0]} and its shortcut {shapes[1]}, but both must have "
                "the same shape: give it a shortcut such as [Conv(filters, 1, stride)]"
            )
        return shapes[0]

    def _build_path(self, path: list[Layer], shape: Shape) -> Shape:
        """Build layers one on the other, and return the output shape of the last."""
        for layer in path:
            # Its random numbers depend on its position alone.
            rng = np.random.default_rng(self.rng.integers(2**63))
            layer.build(shape, self.backend, self.compute_dtype, rng, self._load_array)
            shape = layer.output_shape
        return shape

    def _forward(self, x, training):
        y, shortcut = x, x
        for layer in self.body:
            y = layer.forward(y, training)
        for layer in self.shortcut:
            shortcut = layer.forward(shortcut, training)
        return self.backend.add(y, shortcut, self.activation), ()

    def _backward(self, dy, context):
        dx = self._backward_path(self.body, dy)
        d_shortcut = self._backward_path(self.shortcut, dy)
        return self.backend.add(dx, d_shortcut) if self.need_dx else None

    def _backward_path(self, path: list[Layer], dy: Any) -> Any:
        """Return the gradient of the input of a path."""
        if path:
            path[0].need_dx = self.need_dx
        for layer in reversed(path):
            dy = layer.backward(dy)
        return dy

    def clear_context(self) -> None:
        super().clear_context()
        for layer in (*self.body, *self.shortcut):
            layer.clear_context()

    def __repr__(self) -> str:
        arguments = [repr(layer) for layer in self.body]
        arguments += [f"shortcut={self.shortcut!r}"] if self.shortcut else []
        arguments += [] if self.name is None else [f"name={self.name!r}"]
        return f"Residual({', '.join(arguments)})"


def _check_shortcut(shortcut: Any) -> list[Layer]:
    """Return the layers of a shortcut, none for the identity."""
    if shortcut is not None and not isinstance(shortcut, (list, tuple)):
        raise TypeError(f"shortcut must be None or a list of layers, got {shortcut!r}")
    return list(shortcut or [])
