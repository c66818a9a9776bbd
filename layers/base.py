"""The base class of all layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from kernels import BFLOAT16, Backend, get_backend
from kernels.scalars import check_int
from kernels.validation import standardize_precision

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A layer does not accept the shape of its input."""


class Layer(ABC):
    """A layer of a network.

    A subclass implements `_forward` and `_backward` by one or two functions of its backend. If it
    has parameters, or changes the shape, it also implements `_build`. The activations that layers
    pass to each other belong to the backend: a layer may only use their ``shape`` and ``dtype``,
    and converts them by ``to_array`` and ``from_array`` of its backend.

    Parameters
    ----------
    name : str, optional
        Name in summaries and errors. A model gives names such as "conv_1" to unnamed layers.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Shape of one input and of one output, without the batch: (C, H, W) or (features,).
    params : dict of str to array
        Learned parameters.
    grads : dict of str to array
        Gradient of each parameter, as computed by the last `backward`.
    buffers : dict of str to array
        Arrays that are saved with the parameters but not learned, such as running statistics.
    dtype : dtype
        That of its parameters, and of arrays outside of a backend: float32 or float64.
    compute_dtype : str
        The name of the dtype, or "bfloat16" in mixed precision (`kernels.mixed_precision`).
    built : bool
        Whether the layer has its shapes and parameters.
    in_model : bool
        Whether the layer belongs to a model.
    need_dx : bool
        Whether `backward` must return a gradient. The first layer of a network need not.

    Examples
    --------
    A layer that multiplies its input by a learned number:

    >>> class Scale(Layer):
    ...     def _build(self, input_shape):
    ...         self.add_param("factor", (1,), np.ones)
    ...         return input_shape
    ...
    ...     def _forward(self, x, training):
    ...         x = self.backend.to_array(x)
    ...         return self.backend.from_array(x * self.params["factor"]), x
    ...
    ...     def _backward(self, dy, x):
    ...         dy = self.backend.to_array(dy)
    ...         self.set_grads(factor=np.array([(dy * x).sum()]))
    ...         return self.backend.from_array(dy * self.params["factor"])
    >>> layer = Scale().build((3,), backend="numpy")
    >>> layer.forward(np.ones((1, 3), np.float32))
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(self, name: str | None = None):
        if name is not None and not isinstance(name, str):  # model files store it as text
            raise TypeError(f"a layer's name must be a string or None, got {name!r}")
        self.name = name
        self.built = False
        self.in_model = False
        self.need_dx = True
        self.params: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}
        self.buffers: dict[str, np.ndarray] = {}
        self._context: Any = None  # what `_forward` returned for `_backward`
        self._has_context = False
        self._load_array: LoadArray | None = None

    def build(
        self,
        input_shape: Shape,
        backend: str | Backend = "numba",
        dtype: str | np.dtype = "float32",
        rng: np.random.Generator | int | None = None,
        load_array: "LoadArray | None" = None,
    ) -> "Layer":
        """Infer the output shape from the input shape and create the parameters.

        A model builds its layers. A layer that is used alone builds itself at its first `forward`.

        Parameters
        ----------
        input_shape : (C, H, W) or (features,)
        backend : "numba", "scipy" or "numpy", or the backend itself
        dtype : "float32", "float64" or "bfloat16"
            "bfloat16" is mixed precision: the parameters are float32.
        rng : numpy.random.Generator or seed, optional
            For the initial parameters and dropout. None: a random seed.
        load_array : callable, optional
            ``load_array(layer, name, shape)`` returns the values of each parameter and buffer of
            this layer and of those inside it, instead of the initializer. A file may declare a
            layer of any size. Because this is called before an array of that size is allocated, it
            can reject the file first.

        Returns
        -------
        Layer
            The layer itself.

        Raises
        ------
        ShapeError
            If the layer does not accept the shape. The message names the layer and the shape.
        ValueError
            If the layer belongs to a model, whose optimizer would keep the old parameters, or if
            the backend itself is given and computes in another dtype.
        """
        if self.in_model:
            raise ValueError(f"layer {self} is in a model already; make a new one")
        self.dtype, self.compute_dtype = standardize_precision(dtype)
        if isinstance(backend, str):
            backend = get_backend(backend, self.compute_dtype)
        elif hasattr(backend, "full") != (self.compute_dtype == BFLOAT16):
            raise ValueError(
                f"dtype is {self.compute_dtype}, but {backend.__name__} computes in another one: "
                f"get the backend by get_backend(name, {self.compute_dtype!r})"
            )
        self.backend: Backend = backend
        self.rng = np.random.default_rng(rng)
        self.params, self.grads, self.buffers = {}, {}, {}
        self._load_array = load_array
        try:
            self.input_shape = tuple(check_int(size, "input_shape", 1) for size in input_shape)
            if len(self.input_shape) not in (1, 3):
                raise ShapeError("it expects images (C, H, W) or rows (features,)")
            self.output_shape = self._build(self.input_shape)
        except (ValueError, TypeError) as error:
            raise ShapeError(f"layer {self} cannot take {input_shape}: {error}") from error
        finally:
            self._load_array = None
        self.built = True
        return self

    def _build(self, input_shape: Shape) -> Shape:
        """Create the parameters and return the output shape."""
        return input_shape

    def forward(self, x, training: bool = True):
        """Return the output of the layer.

        Parameters
        ----------
        x : (N, *input_shape)
        training : bool
            Whether to use batch statistics and dropout, and to keep what `backward` needs.

        Returns
        -------
        y : (N, *output_shape)

        Raises
        ------
        TypeError
            If x is not an array.
        ShapeError
            If the layer was built for another shape.
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
        y, context = self._forward(x, training)
        self._context, self._has_context = (context if training else None), training
        return y

    def clear_context(self) -> None:
        """Release what the last `forward` kept for `backward`."""
        self._context, self._has_context = None, False

    def backward(self, dy):
        """Return the gradient of the input and store those of the parameters in `grads`.

        Parameters
        ----------
        dy : (N, *output_shape)
            Gradient of the loss with respect to the output of the last `forward`.

        Returns
        -------
        dx : (N, *input_shape), or None if `need_dx` is False

        Raises
        ------
        RuntimeError
            If the last call was not ``forward(x, training=True)``.
        """
        if not self._has_context:
            raise RuntimeError(
                f"layer {self}: backward needs a forward(x, training=True) before it"
            )
        return self._backward(dy, self._context)

    @abstractmethod
    def _forward(self, x, training: bool) -> tuple[Any, Any]:
        """Return the output, and the context that `_backward` needs."""

    @abstractmethod
    def _backward(self, dy, context: Any) -> Any:
        """Store the gradients of the parameters by `set_grads` and return that of the input."""

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor but ``name``; model files contain them."""
        return {}

    def __str__(self) -> str:
        return repr(self.name or type(self).__name__)

    def __repr__(self) -> str:
        arguments = self.config() | ({} if self.name is None else {"name": self.name})
        text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        return f"{type(self).__name__}({text})"

    def add_param(self, name: str, shape: Shape, initialize: Callable = np.zeros) -> None:
        """Create a parameter and its gradient. To be called in `_build`.

        Parameters
        ----------
        name : str
            Key in `params` and `grads`.
        shape : tuple of int
        initialize : callable
            ``initialize(shape)`` returns the initial values.
        """
        self.params[name] = self._create_array(name, shape, initialize)
        self.grads[name] = np.zeros_like(self.params[name])

    def add_buffer(self, name: str, shape: Shape, initialize: Callable = np.zeros) -> None:
        """Create an array that is saved but not learned. To be called in `_build`.

        The parameters are those of `add_param`; the array is stored in `buffers`.
        """
        self.buffers[name] = self._create_array(name, shape, initialize)

    def _create_array(self, name: str, shape: Shape, initialize: Callable) -> np.ndarray:
        if self._load_array is None:
            value = initialize(shape)
        else:
            value = self._load_array(self, name, shape)
        return np.array(value, self.dtype, order="C")

    def set_grads(self, **grads: np.ndarray) -> None:
        """Store the gradients of parameters, given by name. To be called in `_backward`.

        Raises
        ------
        KeyError
            If there is no parameter of a name.
        """
        for name, value in grads.items():
            if value is not self.grads[name]:  # the backend may have written to it: `grad_buffers`
                np.copyto(self.grads[name], value)

    def grad_buffers(self, *names: str) -> tuple[np.ndarray | None, ...]:
        """Return the arrays in `grads` for a backend to write to; None for a missing parameter."""
        return tuple(self.grads.get(name) for name in names)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays that model files contain: parameters and buffers."""
        return {**self.params, **self.buffers}

    def set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy values into the parameters and buffers, given by name as in `arrays`."""
        for name, target in self.arrays.items():
            np.copyto(target, arrays[name], casting="same_kind")

    @property
    def paths(self) -> dict[str, list["Layer"]]:
        """The layers inside this one, if any, as lists of layers that run one after the other.

        The keys are prefixes of the names of these layers.
        """
        return {}

    @property
    def size(self) -> int:
        """Number of learned parameters, with those of the layers inside."""
        return sum(value.size for layer in walk([self]) for value in layer.params.values())


def walk(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield each layer, followed by the layers inside it."""
    for layer in layers:
        yield layer
        for path in layer.paths.values():
            yield from walk(path)


# Returns the values of an array of a layer, given the layer and the name and shape of the array.
LoadArray = Callable[[Layer, str, Shape], np.ndarray]


def expect_image(shape: Shape) -> Shape:
    """Return a shape (C, H, W); raise ShapeError for another shape."""
    if len(shape) != 3:
        raise ShapeError("it expects images (C, H, W)")
    return shape


def expect_rows(shape: Shape) -> int:
    """Return the number of features of a shape (features,); raise ShapeError for another shape."""
    if len(shape) != 1:
        raise ShapeError("it expects rows (features,); put a Flatten() before it")
    return shape[0]
