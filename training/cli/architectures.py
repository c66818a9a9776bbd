"""The networks that --arch names: those of run.py, and functions in the user's own files."""

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from layers import ShapeError
from training.errors import InputError
from training.model import Model
from training.saving.model_file import check_saveable


class Architecture(NamedTuple):
    """A function that builds a network.

    Attributes
    ----------
    name : str
        The value of `--arch`.
    build : callable
        Called with the shape of an image, the number of classes and the options of `Model`.
        Returns a `Model`.
    is_built_in : bool
        Whether the function is one of run.py, and not the user's.
    """

    name: str
    build: Callable[..., Any]
    is_built_in: bool


class Recipe(NamedTuple):
    """How a network is trained where the flags leave it open.

    Attributes
    ----------
    epochs : int
    photo_epochs : int, optional
        Epochs where mirrored images mean the same as the images: there is more to learn in photos
        than in signs. None: as many.
    optimizer : str
        A key of `OPTIMIZERS`.
    learning_rate : float
        The largest of the schedule.
    weight_decay : float
    batch_size : int
    label_smoothing : float
    """

    epochs: int = 15
    photo_epochs: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 6e-3
    weight_decay: float = 1e-3
    batch_size: int = 64
    label_smoothing: float = 0.1

    def with_optimizer(self, name: str) -> "Recipe":
        """Return the recipe with an optimizer, and the learning rate that suits it."""
        if name == self.optimizer:
            return self
        return self._replace(optimizer=name, learning_rate=LEARNING_RATES[name])

    def for_images(self, n_images: int) -> "Recipe":
        """Return the recipe for so many training images: few are not shown in large batches.

        On 360 photos of 100x100 pixels, `resnet` reached 42 % with batches of 64, and 36 % of 256.
        """
        if n_images >= MIN_BATCHES * self.batch_size:
            return self
        return self._replace(batch_size=min(self.batch_size, Recipe().batch_size))


MIN_BATCHES = 100  # of an epoch of large batches
LEARNING_RATES = {"adamw": 6e-3, "muon": 0.1}


class Networks(NamedTuple):
    """What the command line needs to know of the networks of run.py.

    Attributes
    ----------
    choose : callable
        Returns the function that builds the default network for images of a shape (C, H, W).
    recipes : dict of callable to Recipe
        How a network is trained, by the function that builds it, if not by the default recipe.
    """

    choose: Callable[[tuple[int, int, int]], Callable]
    recipes: Mapping[Callable, Recipe]

    def recipe(self, architecture: Architecture | None) -> Recipe:
        """Return how a network is trained; None is a network that was loaded."""
        if architecture is None:
            return Recipe()
        return self.recipes.get(architecture.build, Recipe())


def find_architecture(name: str, built_in: Mapping[str, Callable]) -> Architecture:
    """Return the network of a name, or that of a function in the user's own file.

    Parameters
    ----------
    name : str
        A key of `built_in`, or path/to/file.py:function.
    built_in : dict of str to callable
        The networks of run.py.

    Raises
    ------
    ValueError
        The name is unknown, or the file cannot be run or has no such function.
    """
    if name in built_in:
        return Architecture(name, built_in[name], is_built_in=True)
    file, colon, function_name = name.rpartition(":")
    if not colon:
        raise ValueError(f"must be {', '.join(built_in)} or path/to/file.py:function, got {name!r}")
    if not Path(file).is_file():
        raise ValueError(f"there is no file {file!r}")
    try:
        # Unlike an import, it leaves no compiled file beside the user's.
        functions = runpy.run_path(file)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{file!r} cannot be run: {one_line(error)}") from None
    function = functions.get(function_name)
    if not callable(function):
        raise ValueError(f"{file!r} has no function {function_name!r}")
    return Architecture(name, function, is_built_in=False)


def build_model(
    architecture: Architecture, input_shape: tuple[int, int, int], n_classes: int, **options: Any
) -> Model:
    """Build a network and check that it suits the images.

    Raises
    ------
    InputError
        The images are too small for the network, or the user's function fails or returns a wrong
        model.
    """
    shape = tuple(input_shape)
    if architecture.is_built_in:
        try:
            return architecture.build(shape, n_classes, **options)
        except ShapeError as error:
            raise InputError(
                f"--arch {architecture.name}: images of {shape} (channels, rows, columns) "
                f"do not fit: {error}"
            ) from None
    try:
        model = architecture.build(shape, n_classes, **options)
        if not isinstance(model, Model) or model.input_shape != shape:
            raise ValueError(f"the function must return a Model for images of {shape}")
        if model.classes != n_classes:
            raise ValueError(f"the model has {model.classes} classes, and the images {n_classes}")
        check_saveable(model)  # now, and not after the training
    except (Exception, SystemExit) as error:
        raise InputError(f"--arch: {one_line(error)}") from error
    return model


def one_line(error: BaseException) -> str:
    """Return the type and the message of an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
