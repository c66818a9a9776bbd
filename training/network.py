"""A network: layers in a row, the loss behind them, and one training step."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from kernels import Backend, get_backend
from kernels.scalars import check_bool, check_int
from kernels.validation import (
    check_channel_numbers,
    check_labels,
    check_real_images,
    check_smoothing,
    check_weights,
    standardize_precision,
)
from layers import BatchNorm, Layer, LoadArray, Softmax, walk
from training.class_weights import ClassWeight, image_weights
from training.errors import DivergedError, InputError
from training.input_format import InputFormat, check_class_names, default_class_names
from training.input_stats import InputStats, check_finite_pixels
from training.optimizers import Optimizer
from training.parameters import Parameters
from training.plans import make_plans
from training.preprocessing.ink_stats import InkStats, measure_ink
from training.rwlock import RWLock, exclusive, shared
from training.test_time_augmentation import check_names as check_test_time_augmentation
from training.test_time_augmentation import mean_logits

INFERENCE_BATCH = 256
MAX_CAPTURED_STEPS = 8  # batch sizes whose steps stay captured; each holds its activations

Self = TypeVar("Self", bound="Network")


class Network:
    """A network of layers with one training step and prediction.

    `Model`, which users create, adds training over epochs and files. See there for the parameters
    and attributes.
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
        self.dtype, self._compute_dtype = standardize_precision(dtype)
        self.backend = get_backend(backend, self._compute_dtype)
        # The backend of the logits and the loss.
        self._full_backend: Backend = getattr(self.backend, "full", self.backend)
        self.seed = check_int(seed, "seed", 0)
        self.rng = np.random.default_rng(self.seed)
        self.fused = check_bool(fused, "fused")
        self.rwlock = RWLock()
        self.layers: list[Layer] = []
        self._training_plan: list[Layer] = []
        self._inference_plan: list[Layer] = []
        self._captured: dict[Any, Callable[..., Any] | None] = {}
        self._head = Softmax()
        self.optimizer: Optimizer | None = None
        self.parameters: Parameters | None = None
        self._label_smoothing = 0.0
        self.history: dict[str, list] = {}
        self.mean = np.zeros(C, self.dtype)
        self.std = np.ones(C, self.dtype)
        self.input_stats = InputStats()
        self.ink_stats: InkStats | None = None
        self.resize = "pad"
        self._class_names: tuple[str, ...] | None = None
        self._test_time_augmentation = "none"
        self._checked = self.mean, self.std  # arrays that `_run` need not check again

    @exclusive
    def add(self: Self, layer: Layer, load_array: LoadArray | None = None) -> Self:
        """Append a layer and build it on the output shape of the layer before.

        Parameters
        ----------
        layer : Layer
        load_array : callable, optional
            Returns the arrays of a layer that was saved; see `Layer.build`.

        Returns
        -------
        The model itself.

        Raises
        ------
        ShapeError
            When the layer cannot take the output of the layer before. The model is unchanged.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"add takes a layer such as Relu(), got {layer!r}")
        inside = list(walk([layer]))
        for each in inside:
            if each.in_model:
                raise ValueError(f"layer {each} is in a model already; make a new one")
        original_names = [each.name for each in inside]
        _name(layer, self.layers)
        # Each layer has its own generator: its random numbers depend on its position alone.
        rng = np.random.default_rng([self.seed, len(self.layers)])
        try:
            layer.build(self.output_shape, self.backend, self._compute_dtype, rng, load_array)
        except ValueError:
            for each, name in zip(inside, original_names, strict=True):
                each.name = name
            raise
        for each in inside:
            each.in_model = True
        layer.need_dx = bool(self.layers)
        self.layers.append(layer)
        self.optimizer = self.parameters = self._class_names = None
        plans = make_plans(self.layers, self.fused)
        self._training_plan, self._inference_plan, self._head, self._capturable = plans
        self._captured.clear()
        return self

    @property
    def compute_dtype(self) -> str:
        """The precision of the arithmetic: "float32", "float64", or "bfloat16"."""
        return self._compute_dtype

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape that the last layer returns for one image."""
        return self.layers[-1].output_shape if self.layers else self.input_shape

    @property
    def multiply_adds(self) -> int:
        """The number of multiplications and additions by weights to predict an image."""
        total = 0
        for layer in walk(self.layers):
            weights = layer.params.get("weights")
            if weights is not None:  # each is used once for each pixel of the output
                total += weights.size * math.prod(layer.output_shape[1:])
        return total

    @property
    def classes(self) -> int:
        """The number of classes."""
        if len(self.output_shape) != 1:
            raise ValueError(
                f"the model has output shape {self.output_shape}, not one score per class: "
                "add Flatten() and Dense(classes) at its end"
            )
        return self.output_shape[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class: "0", "1" and so on, until others are assigned."""
        if self._class_names is None:
            return default_class_names(self.classes)
        return self._class_names

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        self._class_names = check_class_names(names, self.classes)

    @property
    def input_format(self) -> InputFormat:
        """What the model expects of images and labels: see `training.datasets.load_images`."""
        return InputFormat(
            self.input_shape, self.class_names, self.resize, self.input_stats, self.ink_stats
        )

    @exclusive
    def compile(self: Self, optimizer: Optimizer, label_smoothing: float = 0.0) -> Self:
        """Prepare the model for training.

        Parameters
        ----------
        optimizer : Optimizer
        label_smoothing : float
            Share of each label that is spread over all classes, which keeps the network from
            becoming too certain.

        Returns
        -------
        The model itself.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be one such as Adam(), got {optimizer!r}")
        if self.classes < 2:
            raise ValueError("the model needs at least two classes at its end")
        optimizer.check_unbound()
        self._label_smoothing = check_smoothing(label_smoothing)
        self.parameters = Parameters(self.layers, self.dtype)
        self._captured.clear()
        optimizer.bind(self.parameters, self.backend)
        self.optimizer = optimizer
        return self

    @property
    def label_smoothing(self) -> float:
        """Share of each label that is spread over all classes in training.

        `compile` sets it, and a saved model keeps it.
        """
        return self._label_smoothing

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        self._label_smoothing = check_smoothing(value)

    @exclusive
    def fit_normalization(self: Self, images: np.ndarray) -> Self:
        """Set the mean and standard deviation of each channel to those of training images.

        Also measure what images for prediction are compared with, `input_stats` and `ink_stats`.

        Parameters
        ----------
        images : (N, C, H, W)

        Returns
        -------
        The model itself.

        Raises
        ------
        ValueError
            When there are no images, or their pixels are not finite or cannot be normalized.
        """
        images = self._check_images(images)
        if len(images) == 0:
            raise ValueError("normalization needs at least one image")
        check_finite_pixels(images, "images", images.dtype)
        mean = images.mean(axis=(0, 2, 3), dtype=np.float64)
        squares = np.zeros_like(mean)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            stats = InputStats.of(images)
            for start in range(0, len(images), 1024):  # in parts: all in float64 is 8 times uint8
                part = images[start : start + 1024] - mean[:, None, None]
                squares += np.square(part).sum(axis=(0, 2, 3))
            std = np.sqrt(squares / (images.size / len(mean)))
            # A constant channel's deviation is a rounding error, which must not be divided by.
            std = np.where(std <= 1e-7 * np.abs(mean), 1, std).astype(self.dtype)
            mean, limits = mean.astype(self.dtype), np.array(stats[:5]).astype(self.dtype)
            if not np.isfinite([*mean, *std, *(1 / std), *limits]).all():
                raise ValueError(
                    f"pixels from {stats.low:g} to {stats.high:g} are too large or too close to "
                    f"each other for {self.dtype}: scale them, to 0 to 255, say"
                )
        self.mean, self.std, self.input_stats = mean, std, stats
        self.ink_stats = measure_ink(images)
        return self

    def check_batch_size(self, size: int) -> None:
        """Raise InputError when the model cannot be trained on batches of this size.

        The statistics of a BatchNorm over a single value are that value and a variance of 0: its
        output would not depend on the image, and its running variance would fall to 0.
        """
        if size > 1:
            return
        if size == 0:
            raise InputError("a batch needs at least one image")
        for layer in walk(self.layers):
            if isinstance(layer, BatchNorm) and math.prod(layer.output_shape[1:]) == 1:
                raise InputError(
                    f"layer {layer} normalizes over the batch, and a batch of one image has a "
                    "single value per channel there: train on batches of at least two images"
                )

    @exclusive
    def compute_gradients(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
    ) -> tuple[float, int]:
        """Run one batch forward and backward, and leave the gradients in `parameters.grads`.

        Parameters
        ----------
        x : (N, C, H, W)
        y : (N,) of int
        weights : (N,) of float, optional
            Factor of the loss of each image.

        Returns
        -------
        loss : float
            Mean over the batch of the loss, or of weight * loss.
        n_correct : int
            The number of images that the model labeled correctly.
        """
        images = self._check_images(x)
        self.check_batch_size(len(images))
        # Before the forward pass, which updates running statistics; the loss checks them later.
        labels = check_labels(y, len(images), self.classes)
        weights = check_weights(weights, len(images))
        targets = (labels,) if weights is None else (labels, weights)
        return self._run(self._forward_and_back, self.as_contiguous(images), *targets)

    def as_contiguous(self, images: np.ndarray) -> np.ndarray:
        """Return images as all backends take them: contiguous, uint8 or the model's dtype."""
        if images.dtype == self.dtype and images.flags.carray:  # without the calls below: 1 us
            return images
        if images.dtype != np.uint8:
            images = images.astype(self.dtype, copy=False)
        # For any other array, Numba would compile its kernels once more.
        return np.require(images, None, ["C", "A", "W"])

    def _run(self, function: Callable, images: np.ndarray, *targets: np.ndarray) -> Any:
        """Call a function of images, or replay its kernel calls if they were captured.

        A function is captured once for each shape and dtype of the images, with weights among the
        targets and without. Kernels that are
        replayed check nothing, so all their inputs are checked here.
        """
        key = function.__name__, images.shape, images.dtype, len(targets)
        replay = self._captured.pop(key, function) if self._capturable else None
        if self._capturable and replay is not function:
            self._captured[key] = replay  # the last used is the last to be dropped
        if replay is None:  # it cannot be captured; `normalize_images` checks the mean and std
            return function(images, self.mean, self.std, *targets)
        mean, std = self._checked
        if self.mean is not mean or self.std is not std or replay is function:
            # A replay checks their shapes and dtypes again, and nobody their numbers.
            mean = check_channel_numbers(self.mean, "mean", images, self.dtype)
            std = check_channel_numbers(self.std, "std", images, self.dtype)
            self._checked = mean, std
        inputs = (images, mean, std, *targets)
        if replay is not function:
            return replay(*inputs)
        result, replay = self.backend.capture(function, *inputs)
        self._captured[key] = replay  # None: the function cannot be captured
        for oldest in list(self._captured)[:-MAX_CAPTURED_STEPS]:
            self._captured.pop(oldest, None)
        if replay is not None:
            for layer in self._training_plan:
                layer.clear_context()
        return result

    def _forward_and_back(self, images, mean, std, labels, weights=None) -> tuple[float, int]:
        activations = self.backend.normalize_images(images, mean, std, self.dtype)
        for layer in self._training_plan:
            activations = layer.forward(activations, training=True)
        loss, n_correct, gradient = self._head.loss(
            activations, labels, self._label_smoothing, weights
        )
        for layer in reversed(self._training_plan):
            gradient = layer.backward(gradient)
        return loss, n_correct

    @exclusive
    def train_batch(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
    ) -> tuple[float, int]:
        """Train on one batch.

        Parameters
        ----------
        x : (N, C, H, W)
        y : (N,) of int
        weights : (N,) of float, optional
            Factor of the loss of each image.

        Returns
        -------
        loss : float
            Mean over the batch of the loss, or of weight * loss, before the step.
        n_correct : int
            The number of images that were labeled correctly before the step.

        Raises
        ------
        InputError
            When a pixel is not finite, or the batch is one image and a BatchNorm needs more.
        DivergedError
            When the loss is not finite. Weights and running averages are unchanged.
        """
        if self.optimizer is None or self.parameters is None:
            raise RuntimeError("call compile(optimizer=...) before training")
        buffers_before = self.parameters.buffers.copy()
        loss, n_correct = self.compute_gradients(x, y, weights)
        if not math.isfinite(loss):
            self.parameters.buffers[:] = buffers_before
            check_finite_pixels(np.asarray(x), "x", self.dtype)
            raise DivergedError(
                f"the loss became {loss}: try a smaller learning rate than "
                f"{self.optimizer.learning_rate:g}"
            )
        # All gradients are computed but not yet applied. A distributed version would sum them here.
        self.optimizer.step()
        return loss, n_correct

    def train_step(
        self,
        x: np.ndarray,
        y: np.ndarray,
        class_weight: ClassWeight | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> float:
        """Train on one batch and return its mean loss, as it was before the step.

        Parameters
        ----------
        x : (N, C, H, W)
        y : (N,) of int
        class_weight : dict of int to float, sequence of float, or "balanced", optional
            Factor of the loss of the images of each class; 1 for a class that is not in the dict.
            "balanced" gives all classes in this batch the same total.
        sample_weight : (N,) of float, optional
            Factor of the loss of each image, times that of its class. The mean loss is the sum of
            weight * loss, divided by N as in Keras: a rare class has the same effect in a batch
            with few of its images as in one with many. (A division by the sum of the weights, as
            in PyTorch, would undo the weight of an image that is alone in its batch.)

        Raises
        ------
        InputError
            When a pixel is not finite, or the batch is one image and a BatchNorm needs more.
        DivergedError
            When the loss is not finite. Weights and running averages are unchanged.
        """
        if class_weight is None and sample_weight is None:
            return self.train_batch(x, y)[0]
        labels = check_labels(y, len(self._check_images(x)), self.classes)
        weights = image_weights(labels, self.classes, class_weight, sample_weight)
        return self.train_batch(x, labels, weights)[0]

    @property
    def test_time_augmentation(self) -> str:
        """Which views of an image a prediction is the mean of, besides the image itself."""
        return self._test_time_augmentation

    @test_time_augmentation.setter
    def test_time_augmentation(self, names: str) -> None:
        self._test_time_augmentation = check_test_time_augmentation(names)

    @shared
    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the scores (N, classes) of images (N, C, H, W) before the softmax.

        They are the mean over the views of `test_time_augmentation`.
        """
        return self._logits(self._check_images(x), self.test_time_augmentation)

    def _logits(self, images: np.ndarray, views: str = "none") -> np.ndarray:
        # Views are made batch by batch: the images may be in a file, and larger than the memory.
        parts = [
            mean_logits(self._logits_of_batch, images[start : start + INFERENCE_BATCH], views)
            for start in range(0, len(images), INFERENCE_BATCH)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.classes), self.dtype)

    def _logits_of_batch(self, images: np.ndarray) -> np.ndarray:
        return self._run(self._infer, self.as_contiguous(images))

    def _infer(self, images, mean, std) -> np.ndarray:
        activations = self.backend.normalize_images(images, mean, std, self.dtype, predict=True)
        for layer in self._inference_plan:
            activations = layer.forward(activations, training=False)
        return self._full_backend.to_array(activations, output=True)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return the probability (N, classes) of each class for each image (N, C, H, W)."""
        return self.probabilities(self.logits(x))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities (N, classes) that belong to `logits`."""
        return self._head.forward(logits, training=False)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the most probable label (N,) of each image (N, C, H, W)."""
        return self.logits(x).argmax(axis=1)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the accuracy: the share of images labeled correctly, 0 to 1."""
        x, y = self.check_data(x, y)
        return float((self.predict(x) == y).mean())

    @shared
    def loss_and_accuracy(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """Return the mean loss and the accuracy on images (N, C, H, W) with labels (N,).

        This is without test-time augmentation, which would multiply the time of the validation
        after each epoch.
        """
        x, y = self.check_data(x, y)
        loss, n_correct, _ = self._head.loss(self._logits(x), y)
        return loss, n_correct / len(x)

    def mean_loss(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Return the mean loss of images from their `logits` and their labels."""
        return self._head.loss(logits, labels)[0]

    def summary(self) -> str:
        """Return a table of the layers with their output shapes and numbers of parameters.

        Layers inside another are indented. Their parameters count in its number, too.
        """
        rows = [("layer", "output shape", "parameters")]
        rows.append(("input", str(self.input_shape), ""))
        rows += _summary_rows(self.layers, "")
        rows.append(("total", "", f"{self._size:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        layers = f"{len(self.layers)} layer" + "s" * (len(self.layers) != 1)
        return (
            f"<{type(self).__name__}: {self.input_shape} -> {self.output_shape}, {layers}, "
            f"{self._size:,} parameters>"
        )

    @property
    def _size(self) -> int:
        return sum(layer.size for layer in self.layers)

    def _check_images(self, x: Any) -> np.ndarray:
        """Return images (N, C, H, W) of the model's shape and of any real dtype."""
        if getattr(x, "shape", (0,))[1:] != self.input_shape:
            raise ValueError(
                f"the model takes images of shape (N, {', '.join(map(str, self.input_shape))}), "
                f"got {getattr(x, 'shape', type(x).__name__)}"
            )
        return check_real_images(x)

    def check_data(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return images and their labels as arrays that the model can learn from, or raise."""
        x = self._check_images(x)
        if len(x) == 0:
            raise ValueError("there are no images")
        return x, check_labels(y, len(x), self.classes)


def _name(layer: Layer, before: list[Layer], prefix: str = "") -> None:
    """Name a layer after its type, such as "conv_1", if it has no name, and those inside it.

    Parameters
    ----------
    layer : Layer
    before : list of Layer
        The layers before it.
    prefix : str
        Of the names of all layers beside it: the name of the layer that they are in.
    """
    if layer.name is None:
        type_name = type(layer).__name__
        number = 1 + sum(type(other).__name__ == type_name for other in before)
        layer.name = f"{prefix}{type_name.lower()}_{number}"
    for path_name, path in layer.paths.items():
        for position, inner in enumerate(path):
            _name(inner, path[:position], f"{layer.name}.{path_name}")


def _summary_rows(layers: list[Layer], indent: str) -> list[tuple[str, str, str]]:
    """Return the rows of layers in a summary, and of the layers inside them."""
    rows = []
    for layer in layers:
        rows.append((f"{indent}{layer.name}", str(layer.output_shape), f"{layer.size:,}"))
        for path in layer.paths.values():
            rows += _summary_rows(path, f"{indent}  ")
    return rows
