"""The model that users create: a network with training over epochs and files."""

from pathlib import Path
from typing import Any

from training import trainer
from training.network import Network
from training.rwlock import shared
from training.saving import model_file


class Model(Network):
    """A network of layers that classifies images.

    The loss is softmax and cross-entropy. A `Softmax` as the last layer may be written or left
    out: the model trains and predicts the same.

    Parameters
    ----------
    input_shape : (C, H, W)
        Channels, rows and columns of an image.
    backend : "numba", "scipy" or "numpy"
    dtype : "float32", "float64" or "bfloat16"
        The dtype of all arithmetic and parameters. "bfloat16" is mixed precision: activations and
        their gradients are rounded to bfloat16, and parameters, sums, the logits, the loss and the
        optimizer are float32 (`kernels.mixed_precision`). It pays for networks of many filters on
        processors with instructions for bfloat16.
    seed : int
        Seed of the initial weights, dropout, shuffling and augmentation.
    fused : bool
        Whether neighboring layers run as one kernel where there is one for both, and the kernel
        calls of a step are captured once and replayed. The numbers are the same; in mixed
        precision, those between two layers of one kernel are not rounded.

    Attributes
    ----------
    layers : list of Layer
    dtype : dtype
        That of the parameters and of returned arrays: float32 or float64.
    compute_dtype : str
        The precision of the arithmetic: "float32", "float64" or "bfloat16".
    parameters : Parameters or None
        All parameters in one vector, and their gradients; None until `compile`.
    history : dict of str to list
        One number per epoch: loss, accuracy, and what else `train` measured.
    mean, std : (C,)
        Each channel is normalized by them; 0 and 1 until `fit_normalization`.
    input_stats : InputStats
        Statistics of the images that `fit_normalization` was given.
    ink_stats : InkStats or None
        What the ink in these images looks like, if they are ink on a plain ground.
    class_names : tuple of str
        The name of each class: "0", "1" and so on, until others are assigned.
    resize : "pad", "crop" or "stretch"
        How images of other proportions are brought to the model's size.
    test_time_augmentation : str
        "none" until it is assigned; "flip", "shift" or "shift,flip": predictions are the mean of
        those of an image, of it moved, mirrored, or both. They take 2, 3 or 6 times as long. A
        model gains by it that was trained on images that were changed in the same way.

    Notes
    -----
    The options of a layer (its slope, rate, momentum) are fixed once it is in a model. The numbers
    in its arrays may be changed in place at any time. Several threads may predict with a model at
    the same time, but none while another thread trains it: that is a RuntimeError.

    Examples
    --------
    >>> import numpy as np
    >>> from layers import Dense, Flatten
    >>> from training import Adam
    >>> model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(Dense(10))
    >>> model.compile(optimizer=Adam())
    <Model: (1, 8, 8) -> (10,), 2 layers, 650 parameters>
    >>> x, y = np.zeros((20, 1, 8, 8), np.uint8), np.arange(20) % 10
    >>> history = model.train(x, y, epochs=2, batch_size=5)
    >>> model.predict(x).shape
    (20,)
    """

    train = trainer.train

    @shared
    def save(self, path: str | Path) -> None:
        """Write the model as JSON. An existing file is replaced only by a complete new one."""
        model_file.save(self, path)

    @classmethod
    def load(cls, path: str | Path, backend: str = "numba", dtype: Any = None) -> "Model":
        """Load a saved model on any backend.

        Parameters
        ----------
        path : path
        backend : "numba", "scipy" or "numpy"
        dtype : "float32", "float64" or "bfloat16", optional
            None: the one that it was saved with. A model may be loaded with another one.

        Raises
        ------
        InputError
            When the file is not a complete and valid model.
        ValueError, TypeError
            When there is no such backend, or the dtype is another one.
        ImportError
            When a package that the backend needs is missing.
        """
        return model_file.load(cls, path, backend, dtype)
