"""Which learning rate to begin with: a short run in which it grows without end."""

import itertools

import numpy as np

from kernels.scalars import check_int
from training.augmentation import Augmenter, NoAugmenter
from training.errors import DivergedError
from training.model import Model
from training.rwlock import exclusive
from training.trainer import batches

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 200  # each rate is 8 % above the last
SMOOTHING = 8.0  # steps; with 4, the lowest point moved twice as far from seed to seed
DIVERGENCE_RATIO = 3.0  # times the first loss: larger rates are of no interest


@exclusive
def find_learning_rate(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int = 64,
    augmenter: Augmenter | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Train with a learning rate that grows from step to step, until the loss blows up.

    The model is spent: its weights are those of the last step.

    Parameters
    ----------
    model : Model
        New, and compiled.
    x, y
        As in `Model.train`.

    Returns
    -------
    rates : (steps,)
    losses : (steps,)
        Of the batches, smoothed over the steps before and after.
    best : float
        Half of the rate at which that is lowest, as the highest rate of a schedule. On MNIST it
        was 0.028 for the tiny network, 0.009 for the small and 0.002 for the wide one; on a
        validation split 0.013 to 0.055, 0.006 to 0.01 and 0.006 to 0.015 were the best.

    Raises
    ------
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
    augmenter = augmenter or NoAugmenter()
    entries = itertools.chain.from_iterable(
        batches(model.rng.permutation(len(x)), batch_size) for _ in itertools.count()
    )
    losses: list[float] = []
    rates = np.geomspace(LOWEST, HIGHEST, STEPS)
    for rate, chosen in zip(rates, entries, strict=False):
        model.optimizer.learning_rate = float(rate)
        images = augmenter(model.as_contiguous(x[chosen]), model.rng, model.backend)
        try:
            losses.append(model.train_batch(images, y[chosen])[0])
        except DivergedError:
            break
        if losses[-1] > DIVERGENCE_RATIO * losses[0]:
            break
    if not losses:
        raise DivergedError(f"the loss is not finite even at a learning rate of {LOWEST:g}")
    from scipy.ndimage import gaussian_filter1d  # takes long to load, for this alone

    smoothed = gaussian_filter1d(losses, SMOOTHING)
    return rates[: len(losses)], smoothed, float(rates[smoothed.argmin()]) / 2
