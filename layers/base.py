"""What all layers share: building, parameters, and what is saved."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import Backend, get_backend
from kernels.scalars import check_int
from kernels.validation import standardize_dtype

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A layer cannot take the shape that the layer before it puts out."""


class Layer(ABC):
    """A layer of a network: a shape, parameters, and the way forward and back.

    A subclass says in `_build` which shape it puts out and creates its parameters there, and
    calls one or two functions of its backend in `forward` and `backward`. What flows between
    layers is opaque to them: only the backend looks into it.

    Parameters
    ----------
    name : str, optional
        What the layer is called in the summary and in errors; a model numbers the unnamed.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Of one image, without the batch: (C, H, W) or (features,).
    params, grads : dict of str to array
        What the layer learns, and the gradient that the last `backward` left for it.
    buffers : dict of str to array
        What it keeps beside that, such as running statistics.
    need_dx : bool
        Whether `backward` must return a gradient; a network's first layer need not.
    """

    def __init__(self, name: str | None = None):
        if name is not None and not isinstance(name, str):  # a file keeps it as text
            raise TypeError(f"a layer's name must be text or None, got {name!r}")
        self.name = name
        self.built = False
        self.in_model = False
        self.need_dx = True
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self.buffers: dict[str, np.ndarray] = {}
        self._context: Any = None
        self._has_context = False
        self._loaded: Callable[[str, Shape], np.ndarray] | None = None

    def build(
        self,
        input_shape: Shape,
        backend: str | Backend = "numba",
        dtype: str | np.dtype = "float32",
        rng: np.random.Generator | int | None = None,
        saved: Callable[[str, Shape], np.ndarray] | None = None,
    ) -> "Layer":
        """Fix the input shape, infer the output shape and create the parameters.

        Parameters
        ----------
        input_shape : (C, H, W) or (features,)
        backend : str or backend
        dtype : float32 or float64
        rng : numpy.random.Generator or seed
        saved : callable, optional
            Called as saved(name, shape) for each parameter and buffer in place of drawing it. A
            file may ask for layers of any size: nothing as large is made before this is asked.

        Returns
        -------
        The layer itself.

        Raises
        ------
        ShapeError
            When the layer cannot take the shape; it names the layer and both shapes.
        ValueError
            When the layer is in a model already, which would go on with the old parameters.
        """
        if self.in_model:
            raise ValueError(f"layer {self} is in a model already; make a new one")
        self.backend: Backend = get_backend(backend) if isinstance(backend, str) else backend
        self.dtype = standardize_dtype(dtype)
        self.rng = np.random.default_rng(rng)
        self.params, self.grads, self.buffers = {}, {}, {}
        self._loaded = saved
        try:
            self.input_shape = tuple(check_int(size, "input_shape", 1) for size in input_shape)
            if len(self.input_shape) not in (1, 3):
                raise ShapeError("it expects images (C, H, W) or rows (features,)")
            self.output_shape = self._build(self.input_shape)
        except (ValueError, TypeError) as error:
            raise ShapeError(f"layer {self} cannot take {input_shape}: {error}") from error
        finally:
            self._loaded = None
        self.built = True
        return self

    def _build(self, input_shape: Shape) -> Shape:
        """Create the parameters and return the output shape."""
        return input_shape

    def forward(self, x, training: bool = True):
        """Return the layer's output; while training, keep what `backward` needs.

        Parameters
        ----------
        x : (N, *input_shape)
        training : bool
            Whether batch statistics and dropout are at work and `backward` will follow.
        """
        try:
            shape, dtype = x.shape[1:], x.dtype
        except AttributeError:
            raise TypeError(
                f"layer {self} takes a NumPy array (N, *input_shape), got {type(x).__name__}"
            ) from None
        if not self.built:
            self.build(shape, dtype=dtype)
        if tuple(shape) != self.input_shape:
            raise ShapeError(f"layer {self} is built for {self.input_shape}, got {shape}")
        y, saved = self._forward(x, training)
        self._context, self._has_context = (saved if training else None), training
        return y

    def clear_context(self) -> None:
        """Drop what the last `forward` kept."""
        self._context, self._has_context = None, False

    def backward(self, dy):
        """Return the gradient for the input, and leave those of the parameters in `grads`.

        Parameters
        ----------
        dy : (N, *output_shape)
            Gradient of the loss with respect to what `forward` returned.
        """
        if not self._has_context:
            raise RuntimeError(
                f"layer {self}: backward needs a forward(x, training=True) before it"
            )
        return self._backward(dy, self._context)

    @abstractmethod
    def _forward(self, x, training: bool) -> tuple[Any, Any]:
        """Return the output, and what `_backward` needs."""

    @abstractmethod
    def _backward(self, dy, context: Any) -> Any:
        """Set `grads` and return the gradient for the input."""

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as they are saved."""
        return {}

    def __str__(self) -> str:
        return repr(self.name or type(self).__name__)

    def add_param(self, name: str, shape: Shape, draw: Callable = np.zeros) -> None:
        """Create a parameter, to be called in `_build`; ``draw(shape)`` makes its first values."""
        self.params[name] = self._first(name, shape, draw)
        self.grads[name] = np.zeros_like(self.params[name])

    def add_buffer(self, name: str, shape: Shape, draw: Callable = np.zeros) -> None:
        """Create what is saved with the parameters but not learned, to be called in `_build`."""
        self.buffers[name] = self._first(name, shape, draw)

    def _first(self, name: str, shape: Shape, draw: Callable) -> np.ndarray:
        value = draw(shape) if self._loaded is None else self._loaded(name, shape)
        return np.array(value, self.dtype, order="C")

    def set_grads(self, **grads: np.ndarray) -> None:
        """Leave the gradient of each named parameter for the optimizer."""
        for name, value in grads.items():
            if value is not self.grads[name]:  # a backend may have written it there
                np.copyto(self.grads[name], value)

    def grad_buffers(self, *names: str) -> tuple[np.ndarray | None, ...]:
        """Return the gradients' arrays for a backend to write into; None for what is missing."""
        return tuple(self.grads.get(name) for name in names)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that a saved layer holds: parameters and buffers."""
        return {**self.params, **self.buffers}

    def set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy saved numbers into the parameters and buffers."""
        for name, target in self.arrays.items():
            np.copyto(target, arrays[name], casting="same_kind")

    @property
    def size(self) -> int:
        """How many numbers the layer learns."""
        return sum(value.size for value in self.params.values())


def expect_image(shape: Shape) -> Shape:
    """Return a shape (C, H, W), or raise."""
    if len(shape) != 3:
        raise ShapeError("it expects images (C, H, W)")
    return shape


def expect_rows(shape: Shape) -> int:
    """Return the length of rows (features,), or raise."""
    if len(shape) != 1:
        raise ShapeError("it expects rows (features,); put a Flatten() before it")
    return shape[0]
