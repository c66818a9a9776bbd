"""The learning-rate finder: a short run in which the learning rate grows step by step."""

import itertools

import numpy as np

from kernels.scalars import check_int
from training.augmentation import Augmenter, NoAugmenter
from training.class_weights import ClassWeight, image_weights, scale_to_mean_1
from training.errors import DivergedError, InputError
from training.input_stats import check_finite_pixels
from training.network import Network
from training.rwlock import exclusive
from training.trainer import batches

MIN_RATE, MAX_RATE, STEPS = 1e-6, 10.0, 200  # each rate is 8 % above the last
SMOOTHING = 8.0  # steps; with 4, the lowest point moved twice as far from seed to seed
DIVERGENCE_RATIO = 3.0  # the run ends when the loss is so many times the first


@exclusive
def find_learning_rate(
    model: Network,
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int = 64,
    augmenter: Augmenter | None = None,
    class_weight: ClassWeight | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Train with a learning rate that grows from step to step, until the loss diverges.

    The model is of no further use: its weights are those of the last step.

    Parameters
    ----------
    model : Model
        A new, compiled model.
    x, y, batch_size, augmenter, class_weight
        As in `Model.train`.

    Returns
    -------
    rates : (steps,)
    losses : (steps,)
        The losses of the batches, smoothed over the steps before and after.
    best : float
        Half of the rate with the lowest smoothed loss: a good highest rate of a schedule. On
        MNIST it was 0.028 for the tiny network, 0.009 for the small and 0.002 for the wide one.
        The rates with the best validation accuracy were 0.013 to 0.055 (tiny), 0.006 to 0.01
        (small) and 0.006 to 0.015 (wide).

    Raises
    ------
    InputError
        When a pixel is not finite, or batches are of one image and a BatchNorm needs more.
    DivergedError
        When the loss is not finite from the start.

    References
    ----------
    Smith: Cyclical learning rates for training neural networks (2017), section 3.3.
    """
    x, y = model.check_data(x, y)
    batch_size = check_int(batch_size, "batch_size", 1)
    if model.optimizer is None:
        raise RuntimeError("call compile(optimizer=...) before training")
    weights = image_weights(y, model.classes, class_weight, None)
    targets = [y] if weights is None else [y, scale_to_mean_1(weights)]
    augmenter = (augmenter or NoAugmenter()).fitted(x, model.mean)
    model.check_batch_size(min(batch_size, len(x)))
    endless_batches = itertools.chain.from_iterable(
        batches(model.rng.permutation(len(x)), batch_size) for _ in itertools.count()
    )
    losses: list[float] = []
    rates = np.geomspace(MIN_RATE, MAX_RATE, STEPS)
    for rate, indices in zip(rates, endless_batches, strict=False):
        model.optimizer.learning_rate = float(rate)
        images = augmenter(model.as_contiguous(x[indices]), model.rng, model.backend)
        try:
            batch = (images, *(numbers[indices] for numbers in targets))
            losses.append(model.train_batch(*batch)[0])
        except InputError:
            check_finite_pixels(x, "x", model.dtype)  # names the pixel by its place in x
            raise
        except DivergedError:
            break
        if losses[-1] > DIVERGENCE_RATIO * losses[0]:
            break
    if not losses:
        raise DivergedError(f"the loss is not finite even at a learning rate of {MIN_RATE:g}")
    from scipy.ndimage import gaussian_filter1d  # slow to import, and needed here only

    smoothed = gaussian_filter1d(losses, SMOOTHING)
    return rates[: len(losses)], smoothed, float(rates[smoothed.argmin()]) / 2
