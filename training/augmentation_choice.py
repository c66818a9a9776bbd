"""The default augmentation, chosen by the images: are mirrored ones like the others?

A small network is trained for a few epochs on images that are not mirrored. Then it labels other
images and their mirror images. Photos of things look alike both ways; letters and digits do not.

The small network of run.py labels correctly, in percent (means of three seeds):

                                   as they are   mirrored
    CIFAR-10                            52.6        52.0    mirrored by default
    CIFAR-10 in gray                    47.0        46.6    mirrored by default
    MNIST                               96.2        41.2
    MNIST in random colors              89.8        34.5
    scikit-learn's digits, 8x8          93.1        35.2
    capital letters in 21 fonts         82.2        35.7
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from training.errors import DivergedError, InputError
from training.model import Model
from training.optimizers import AdamW
from training.schedules import OneCycle

ImagesAndLabels = tuple[np.ndarray, np.ndarray]

MAX_TRAINING_IMAGES, MAX_HELD_OUT_IMAGES = 8_000, 10_000
SHOWN_IMAGES, MAX_EPOCHS = 24_000, 20  # three epochs of the most images, and more of fewer
MIN_SIDE = 32  # larger images are reduced to at least this many pixels a side
MIN_HELD_OUT_IMAGES = 100
ALLOWED_LOSS = 0.1


class AugmentationChoice(NamedTuple):
    """An augmentation and why it was chosen.

    Attributes
    ----------
    names : str
        For `make_augmenter`.
    reason : str
        In words.
    """

    names: str
    reason: str


class MirrorCheck(NamedTuple):
    """How well a network labels images and their mirror images.

    Attributes
    ----------
    accuracy, mirrored_accuracy : float
    n_images : int
    means_the_same : bool
        See `means_the_same`.
    """

    accuracy: float
    mirrored_accuracy: float
    n_images: int
    means_the_same: bool


def choose_augmentation(
    training: ImagesAndLabels,
    validation: ImagesAndLabels,
    build: Callable[[tuple[int, int, int]], Model],
) -> AugmentationChoice:
    """Choose the augmentation that suits images.

    Images are shifted, and also mirrored if `check_mirroring` shows that this does no harm. They
    are not recolored or covered: in 15 epochs on CIFAR-10, the network `small` of run.py reached
    71.4 % with ``shift,flip``, 70.3 % with ``shift`` and 69.5 % with ``photo`` (one seed).

    Parameters
    ----------
    training, validation : (x, y)
        Images (N, C, H, W) and their labels (N,).
    build : callable
        Called with the shape of an image (C, H, W). Returns a new, small model for these classes.
        Its seed is also that of the choice.

    Returns
    -------
    AugmentationChoice
    """
    check = None
    try:
        check = check_mirroring(training, validation, build)
        reason = (
            f"a small network labels {check.accuracy:.1%} of {check.n_images:,} held-out images "
            f"correctly, and {check.mirrored_accuracy:.1%} when they are mirrored"
        )
    except (ValueError, DivergedError) as error:  # it need not stop the run
        reason = f"not checked: {error}"
    is_mirrored = check is not None and check.means_the_same
    if is_mirrored:
        return AugmentationChoice("shift,flip", f"mirrored images mean the same: {reason}")
    return AugmentationChoice("shift", f"images are not mirrored: {reason}")


def check_mirroring(
    training: ImagesAndLabels,
    validation: ImagesAndLabels,
    build: Callable[[tuple[int, int, int]], Model],
) -> MirrorCheck:
    """Train a small network without mirrored images, and let it label mirrored ones.

    Parameters
    ----------
    training, validation, build
        As in `choose_augmentation`.

    Raises
    ------
    InputError
        There are too few images.
    ShapeError
        The images are too small for the network.
    DivergedError
        The training diverged.
    """
    n_trained = min(MAX_TRAINING_IMAGES, len(training[0]) // 2)
    n_held_out = len(training[0]) - n_trained + len(validation[0])
    if n_held_out < MIN_HELD_OUT_IMAGES:
        raise InputError(f"fewer than {MIN_HELD_OUT_IMAGES} held-out images")
    # Every step-th pixel: the check takes as long as with images of 32x32 to 63x63 pixels.
    step = max(1, min(training[0].shape[2:]) // MIN_SIDE)
    model = build(training[0][:1, :, ::step, ::step].shape[1:])
    rng = np.random.default_rng(model.seed)
    order, validation_order = rng.permutation(len(training[0])), rng.permutation(len(validation[0]))
    x, y = _take(training, order[:n_trained], step)
    model.fit_normalization(x).compile(AdamW(6e-3))
    epochs = min(MAX_EPOCHS, max(1, round(SHOWN_IMAGES / len(x))))
    model.train(x, y, epochs=epochs, batch_size=64, schedule=OneCycle())
    # The images of the training part that this network has not seen tell as much.
    parts = [_take(validation, validation_order[:MAX_HELD_OUT_IMAGES], step)]
    rest = max(0, MAX_HELD_OUT_IMAGES - len(validation[0]))
    parts.append(_take(training, order[n_trained:][:rest], step))
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    is_correct, is_mirrored_correct = (model.predict(z) == y for z in (x, x[..., ::-1]))
    return MirrorCheck(
        float(is_correct.mean()),
        float(is_mirrored_correct.mean()),
        len(x),
        means_the_same(is_correct, is_mirrored_correct, y),
    )


def _take(data: ImagesAndLabels, indices: np.ndarray, step: int) -> ImagesAndLabels:
    """Return images with every step-th pixel alone, and their labels."""
    x, y = data
    indices = np.sort(indices)  # the images may be in a file
    return np.ascontiguousarray(x[indices, :, ::step, ::step]), y[indices]


def means_the_same(
    is_correct: np.ndarray, is_mirrored_correct: np.ndarray, labels: np.ndarray
) -> bool:
    """Return whether a network reads mirrored images as it reads the images.

    The loss is the number of images that are labeled correctly only as they are, less the number
    of those only mirrored. If mirroring changed nothing but chance, its standard error would be the
    root of the number of both. Two conditions must hold:

    * Over all images, the loss, two standard errors added, is at most a tenth of the skill: the
      number of correct labels, two standard errors subtracted, less that of always guessing the
      most common class. A few images, or a network that has learned little, cannot show that.
    * In no class is the loss, three standard errors subtracted, above a tenth of the class's
      correct labels: left and right arrows among a hundred other signs are not mirrored.

    Parameters
    ----------
    is_correct, is_mirrored_correct : (N,) of bool
        Whether the image as it is, and its mirror image, were labeled correctly.
    labels : (N,) of int
    """
    n_classes = labels.max() + 1
    n_correct = np.bincount(labels, is_correct, n_classes)
    lost = np.bincount(labels, is_correct & ~is_mirrored_correct, n_classes)
    gained = np.bincount(labels, is_mirrored_correct & ~is_correct, n_classes)
    # One more than were seen: no difference in a few images does not show that there is none.
    errors = np.sqrt(lost + gained + 1)
    error = np.sqrt(lost.sum() + gained.sum() + 1)
    total = n_correct.sum()
    skill = total - np.bincount(labels).max() - 2 * np.sqrt(total * (1 - total / len(labels)))
    is_kept = skill > 0 and (lost - gained).sum() + 2 * error <= ALLOWED_LOSS * skill
    is_lost_in_class = lost - gained - 3 * errors > ALLOWED_LOSS * n_correct
    return bool(is_kept and not is_lost_in_class.any())
