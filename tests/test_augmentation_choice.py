"""The choice of the augmentation, and the check whether mirrored images mean the same."""

import numpy as np
import pytest

import run
from training import augmentation_choice
from training.augmentation_choice import check_mirroring, choose_augmentation, means_the_same


def arrows(N=500, channels=1, kinds=(0, 1), size=8, seed=0):
    """Return images of triangles and their labels.

    The tips of kinds 0 and 1 are to the left and to the right; those of 2 and 3 are up and down.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(kinds), N)
    triangle = np.abs(np.arange(7) - 3)[:, None] <= np.arange(7) / 2
    images = rng.integers(0, 60, (N, channels, size, size))
    for image, label, (i, j) in zip(images, labels, rng.integers(0, size - 6, (N, 2)), strict=True):
        kind = kinds[label]
        shape = triangle if kind < 2 else triangle.T
        shape = shape[::-1, ::-1] if kind in (1, 3) else shape
        image[:, i : i + 7, j : j + 7] += 150 * shape
    return images.astype(np.uint8), labels


def build(seed=0):
    def build_network(shape):
        return run.tiny(shape, 2, backend="numpy", seed=seed)

    return build_network


def split(images, labels, count=200):
    return (images[count:], labels[count:]), (images[:count], labels[:count])


@pytest.mark.parametrize(
    ("channels", "kinds", "names"),
    [
        (1, (0, 1), "shift"),
        (1, (2, 3), "shift,flip"),
        (3, (0, 1), "shift"),
        (3, (2, 3), "shift,flip"),
    ],
)
def test_images_are_mirrored_if_that_does_not_change_their_class(channels, kinds, names):
    data = split(*arrows(channels=channels, kinds=kinds))
    choice = choose_augmentation(*data, build())
    assert choice.names == names
    mirrors = names == "shift,flip"
    assert ("not mirrored" in choice.reason) == (not mirrors)
    check = check_mirroring(*data, build())
    assert check.accuracy > 0.9
    assert (check.mirrored_accuracy > 0.9) == mirrors
    assert check.n_images == 200 + 150  # half of the training images are not trained on
    assert f"{check.accuracy:.1%} of 350 held-out images" in choice.reason


def test_the_seed_of_the_network_decides():
    images, labels = arrows()
    data = split(images, np.random.default_rng(0).permutation(labels))  # nothing to learn
    first, again, other = (check_mirroring(*data, build(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert first.accuracy < 0.65  # on images that were not trained on


def test_few_or_small_images_are_not_mirrored():
    few = split(*arrows(120, kinds=(2, 3)), count=30)
    choice = choose_augmentation(*few, build())
    assert choice.names == "shift"
    assert "not checked: fewer than 100 held-out images" in choice.reason
    images, labels = arrows(kinds=(2, 3))
    choice = choose_augmentation(*split(images[:, :, :1, :1], labels), build())
    assert choice.names == "shift"
    assert "not checked: " in choice.reason


def test_large_images_are_reduced(monkeypatch):
    shapes = []

    def build_network(shape):
        shapes.append(shape)
        return build()(shape)

    monkeypatch.setattr(augmentation_choice, "SHOWN_IMAGES", 600)
    images, labels = arrows(150, size=96, kinds=(2, 3))
    choose_augmentation(*split(images[:, :, :, :70], labels, count=50), build_network)
    assert shapes == [(1, 48, 35)]


def labeled(n_correct, n_mirrored, n_both, n_images, label=0):
    """Return whether images, and their mirror images, were labeled correctly; and their labels."""
    is_correct = np.arange(n_images) < n_correct
    is_mirrored_correct = np.roll(np.arange(n_images) < n_mirrored, n_correct - n_both)
    assert (is_correct & is_mirrored_correct).sum() == n_both
    return is_correct, is_mirrored_correct, np.full(n_images, label)


def join(*parts):
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


@pytest.mark.parametrize(
    ("n_correct", "n_mirrored", "n_both", "n_images", "expected"),
    [
        (900, 900, 880, 1000, True),
        (900, 800, 790, 1000, False),
        (900, 900, 900, 1000, True),
        (95, 95, 94, 100, True),
        (45, 45, 43, 50, False),  # too few
        (30, 30, 30, 30, False),
        (600, 600, 400, 1000, False),  # many labels are different
        (520, 520, 520, 1000, False),  # not better than to guess
        (300, 900, 300, 1000, False),
    ],
)
def test_rule_over_all_images(n_correct, n_mirrored, n_both, n_images, expected):
    """Two classes of as many images."""
    *correct, labels = labeled(n_correct, n_mirrored, n_both, n_images)
    labels = np.arange(n_images) % 2
    assert means_the_same(*correct, labels) == expected


def test_rule_within_a_class():
    """One class of a hundred images among 5,000 is read only as it is."""
    others = [labeled(450, 450, 440, 500, label) for label in range(10)]
    same, lost = labeled(80, 78, 75, 100, 10), labeled(80, 20, 15, 100, 10)
    assert means_the_same(*join(*others, same))
    assert not means_the_same(*join(*others, lost))
    few = labeled(5, 0, 0, 6, 10)  # which is not enough to be sure
    assert means_the_same(*join(*others, few))
