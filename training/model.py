"""The model: layers in a row, a loss behind them, and an optimizer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernels import get_backend
from kernels.scalars import check_int
from kernels.validation import check_labels, check_raw_images, check_smoothing, standardize_dtype
from layers import LAYER_TYPES, Layer, Softmax, fold, fuse
from training import trainer
from training.errors import DivergedError
from training.input_stats import InputStats
from training.optimizers import Optimizer
from training.parameters import Parameters
from training.rwlock import RWLock, exclusive, shared
from training.saving import model_file

INFERENCE_BATCH = 256
MAX_CAPTURED_STEPS = 8  # batch sizes that are kept recorded; each holds its activations


class Model:
    """A network of layers that classifies images.

    The loss is softmax and cross-entropy. A `Softmax` as the last layer may be written or left
    out: the model trains and predicts the same.

    Parameters
    ----------
    input_shape : (C, H, W)
        Channels, rows and columns of an image.
    backend : "numba", "scipy" or "numpy"
    dtype : "float32" or "float64"
        Of all arithmetic and parameters.
    seed : int
        Of the initial weights, dropout, shuffling and augmentation.
    fused : bool
        Whether neighbouring layers run as one kernel where there is one for both, and the
        kernel calls of a step are recorded once and made again. The numbers are the same.

    What a layer is made of (its slope, rate, momentum) is fixed once it is in a model; numbers in
    its arrays may be changed in place at any time. Several threads may predict with a model, but
    none while another one trains it: that is a RuntimeError.

    Attributes
    ----------
    layers : list of Layer
    history : dict of str to list
        A number an epoch: loss, accuracy, and what else `train` measured.
    mean, std : (C,)
        What each pixel is normalised by on its way in; 0 and 1 until `fit_normalization`.
    pixels : Pixels
        The range of the images that it was taken from.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        backend: str = "numba",
        dtype: Any = "float32",
        seed: int = 0,
        fused: bool = True,
    ):
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
            raise ValueError(f"input_shape must be (C, H, W), got {input_shape!r}")
        C, H, W = (check_int(size, "input_shape", 1) for size in input_shape)
        self.input_shape = C, H, W
        self.backend = get_backend(backend)
        self.dtype = standardize_dtype(dtype)
        self.seed = check_int(seed, "seed", 0)
        self.rng = np.random.default_rng(self.seed)
        self.fused = fused
        self.rwlock = RWLock()
        self.layers: list[Layer] = []
        self._training_plan: list[Layer] = []
        self._inference_plan: list[Layer] = []
        self._captured: dict[Any, Callable[..., Any] | None] = {}
        self._head = Softmax()
        self.optimizer: Optimizer | None = None
        self._label_smoothing = 0.0
        self.history: dict[str, list] = {}
        self.mean = np.zeros(C, self.dtype)
        self.std = np.ones(C, self.dtype)
        self.pixels = InputStats()

    @exclusive
    def add(self, layer: Layer, saved: Callable | None = None) -> "Model":
        """Append a layer; it is built at once on the shape that it finds.

        Parameters
        ----------
        layer : Layer
        saved : callable, optional
            What the layer's arrays hold, if it was saved; see `Layer.build`.

        Raises
        ------
        ShapeError
            When the layer cannot take the output of the one before. The model is unchanged.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"add takes a layer such as Relu(), got {layer!r}")
        if layer.in_model:
            raise ValueError(f"layer {layer} is in a model already; make a new one")
        given = layer.name
        if given is None:
            kind = type(layer).__name__
            number = 1 + sum(type(other).__name__ == kind for other in self.layers)
            layer.name = f"{kind.lower()}_{number}"
        # A generator of its own: a layer's random numbers depend on its place alone.
        rng = np.random.default_rng([self.seed, len(self.layers)])
        try:
            layer.build(self.output_shape, self.backend, self.dtype, rng, saved)
        except ValueError:
            layer.name = given
            raise
        layer.in_model = True
        layer.need_dx = bool(self.layers)
        self.layers.append(layer)
        self.optimizer = None
        self._plan()
        return self

    def _plan(self) -> None:
        """Split the layers into the steps to the logits and the softmax behind them."""
        last = self.layers[-1]
        if isinstance(last, Softmax):
            body, self._head = self.layers[:-1], last
        else:
            body, self._head = self.layers, Softmax()
            if len(self.output_shape) == 1:
                self._head.build(self.output_shape, self.backend, self.dtype)
        self._training_plan = fuse(body) if self.fused else list(body)
        self._inference_plan = fold(body) if self.fused else list(body)
        # A layer of the user's own may do more than call the backend.
        known = all(type(layer) in LAYER_TYPES.values() for layer in self.layers)
        self._capturable = self.fused and known
        self._captured.clear()

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.layers[-1].output_shape if self.layers else self.input_shape

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        if len(self.output_shape) != 1:
            raise ValueError(
                f"the model puts out {self.output_shape}, not one number a class: "
                "add Flatten() and Dense(classes) at its end"
            )
        return self.output_shape[0]

    @exclusive
    def compile(self, optimizer: Optimizer, label_smoothing: float = 0.0) -> "Model":
        """Get ready to train.

        Parameters
        ----------
        optimizer : Optimizer
        label_smoothing : float
            Share of each label that is spread over all classes, so that the network is not
            driven to be ever more certain.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be one such as Adam(), got {optimizer!r}")
        if self.classes < 2:
            raise ValueError("the model needs at least two classes at its end")
        optimizer.check_free()
        self._label_smoothing = check_smoothing(label_smoothing)
        self.parameters = Parameters(self.layers, self.dtype)
        self._captured.clear()
        optimizer.bind(self.parameters, self.backend)
        self.optimizer = optimizer
        return self

    @property
    def label_smoothing(self) -> float:
        """Share of each label that is spread over all classes; `compile` sets it."""
        return self._label_smoothing

    @exclusive
    def fit_normalization(self, images: np.ndarray) -> "Model":
        """Take the mean and standard deviation of each channel from training images."""
        images, _, _ = self._check_images(images)
        if len(images) == 0 or not np.isfinite(images).all():
            raise ValueError("normalization needs at least one image, and finite pixels")
        pixels = InputStats.of(images)
        mean = images.mean(axis=(0, 2, 3), dtype=np.float64)
        squares = np.zeros_like(mean)
        with np.errstate(over="ignore", divide="ignore"):
            for start in range(0, len(images), 1024):  # in parts: all in float64 is 8 times uint8
                part = images[start : start + 1024] - mean[:, None, None]
                squares += np.square(part).sum(axis=(0, 2, 3))
            std = np.sqrt(squares / (images.size / len(mean)))
            # What rounding leaves of a constant channel's deviation must not be divided by.
            std = np.where(std <= 1e-7 * np.abs(mean), 1, std).astype(self.dtype)
            mean, limits = mean.astype(self.dtype), np.array(pixels[:2]).astype(self.dtype)
            if not np.isfinite([*mean, *std, *(1 / std), *limits]).all():
                raise ValueError(
                    f"pixels from {pixels.low:g} to {pixels.high:g} are too large or too close to "
                    f"each other for {self.dtype}: scale them, to 0 to 255, say"
                )
        self.mean, self.std, self.pixels = mean, std, pixels
        return self

    @exclusive
    def compute_gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[float, int]:
        """Run one batch forward and back; the gradients are left in `parameters.grads`.

        Returns
        -------
        loss : float
            Mean over the batch.
        correct : int
            How many images the model got right.
        """
        images, mean, std = self._check_images(x)
        if len(images) == 0:
            raise ValueError("a batch needs at least one image")
        labels = check_labels(y, len(images), self.classes)
        return self._run(self._forward_and_back, self.as_contiguous(images), mean, std, labels)

    def as_contiguous(self, images: np.ndarray) -> np.ndarray:
        """Return images as all backends take them."""
        if images.dtype != np.uint8:
            images = images.astype(self.dtype, copy=False)
        return np.require(
            images, None, ["C", "A", "W"]
        )  # kernels would be compiled anew for others

    def _run(self, function: Callable, *inputs: np.ndarray) -> Any:
        """Call a function, or make again what it did when it last saw inputs of these shapes."""
        if not self._capturable:
            return function(*inputs)
        key = function.__name__, inputs[0].shape, inputs[0].dtype
        again = self._captured.pop(key, function)
        if again is not function:
            self._captured[key] = again  # the last used is the last to go
            return function(*inputs) if again is None else again(*inputs)
        result, again = self.backend.capture(function, *inputs)
        self._captured[key] = again  # None: what it does cannot be recorded
        for oldest in list(self._captured)[:-MAX_CAPTURED_STEPS]:
            self._captured.pop(oldest, None)
        if again is not None:
            for layer in self._training_plan:
                layer.clear_context()
        return result

    def _forward_and_back(self, images, mean, std, labels) -> tuple[float, int]:
        activations = self.backend.normalize_images(images, mean, std, self.dtype)
        for layer in self._training_plan:
            activations = layer.forward(activations, training=True)
        loss, correct, gradient = self._head.loss(activations, labels, self._label_smoothing)
        for layer in reversed(self._training_plan):
            gradient = layer.backward(gradient)
        return loss, correct

    @exclusive
    def train_batch(self, x: np.ndarray, y: np.ndarray) -> tuple[float, int]:
        """Train on one batch; return its mean loss and how many were right before.

        Raises
        ------
        DivergedError
            When the loss is no finite number; weights and running averages are as they were.
        """
        if self.optimizer is None:
            raise RuntimeError("call compile(optimizer=...) before training")
        averages = self.parameters.buffers.copy()
        loss, correct = self.compute_gradients(x, y)
        if not math.isfinite(loss):
            self.parameters.buffers[:] = averages
            raise DivergedError(
                f"the loss became {loss}: try a smaller learning rate than "
                f"{self.optimizer.learning_rate:g}"
            )
        # Here all gradients are complete and none is applied: the place to sum over machines.
        self.optimizer.step()
        return loss, correct

    def train_step(self, x: np.ndarray, y: np.ndarray) -> float:
        """Train on one batch and return its mean loss.

        Parameters
        ----------
        x : (N, C, H, W)
        y : (N,) of int
        """
        return self.train_batch(x, y)[0]

    @exclusive
    def train(
        self, x: np.ndarray, y: np.ndarray, epochs: int = 10, batch_size: int = 64, **options
    ):
        """Train for some epochs; return the history. `training.trainer.train` has the options."""
        return trainer.train(self, x, y, epochs, batch_size, **options)

    @shared
    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the numbers (N, classes) before the softmax."""
        images, mean, std = self._check_images(x)
        classes = self.classes
        parts = [
            self._run(
                self._infer, self.as_contiguous(images[start : start + INFERENCE_BATCH]), mean, std
            )
            for start in range(0, len(images), INFERENCE_BATCH)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, classes), self.dtype)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return the probability (N, classes) of each class for each image."""
        return self.probabilities(self.logits(x))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability (N, classes) of each class for given `logits`."""
        return self._head.forward(logits, training=False)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the most probable label (N,) of each image."""
        return self.logits(x).argmax(axis=1)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the share of images that are labelled right, 0 to 1."""
        return self.loss_and_accuracy(x, y)[1]

    def loss_and_accuracy(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """Return the mean loss and the share of images that are labelled right."""
        x, y = self.check_data(x, y)
        loss, correct, _ = self._head.loss(self.logits(x), y)
        return loss, correct / len(x)

    @shared
    def save(self, path: str | Path) -> None:
        """Write the model as JSON; a file that is there is replaced only by a whole new one."""
        model_file.save(self, path)

    @classmethod
    def load(cls, path: str | Path, backend: str = "numba", dtype: Any = None) -> "Model":
        """Rebuild a saved model on any backend.

        Parameters
        ----------
        dtype : "float32" or "float64", optional
            None: the one that it was saved with.

        Raises
        ------
        InputError
            When the file is not a whole and valid model.
        """
        return model_file.load(cls, path, backend, dtype)

    def __str__(self) -> str:
        rows = [("layer", "output shape", "parameters")]
        rows.append(("input", str(self.input_shape), ""))
        for layer in self.layers:
            rows.append((str(layer.name), str(layer.output_shape), f"{layer.size:,}"))
        rows.append(("total", "", f"{sum(layer.size for layer in self.layers):,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _check_images(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if getattr(x, "shape", (0,))[1:] != self.input_shape:
            raise ValueError(
                f"the model takes images of shape (N, {', '.join(map(str, self.input_shape))}), "
                f"got {getattr(x, 'shape', type(x).__name__)}"
            )
        return check_raw_images(x, self.mean, self.std, self.dtype)

    def check_data(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return images and their labels as arrays that the model can learn from, or raise."""
        x, _, _ = self._check_images(x)
        if len(x) == 0:
            raise ValueError("there are no images")
        return x, check_labels(y, len(x), self.classes)

    def _infer(self, images, mean, std) -> np.ndarray:
        activations = self.backend.normalize_images(images, mean, std, self.dtype, predict=True)
        for layer in self._inference_plan:
            activations = layer.forward(activations, training=False)
        return self.backend.to_array(activations, output=True)
