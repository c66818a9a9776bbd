"""Augmenters."""

import numpy as np
import pytest

from kernels import BACKENDS, get_backend
from training import AffineAugmenter, ShiftAugmenter


def find_shifts(image, shifted, max_shift):
    """Return the shifts (rows, columns) by which an image (C, H, W) becomes another."""
    (_, H, W), (rows, columns) = image.shape, max_shift
    padded = np.pad(image, ((0, 0), (rows, rows), (columns, columns)), mode="edge")
    return [
        (i - rows, j - columns)
        for i in range(2 * rows + 1)
        for j in range(2 * columns + 1)
        if np.array_equal(shifted, padded[:, i : i + H, j : j + W])
    ]


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_shifts_are_whole_pixels_and_repeat_the_border(backend):
    images = np.random.default_rng(0).integers(0, 256, (60, 2, 8, 13), dtype=np.uint8)
    augmenter = ShiftAugmenter(max_shift=0.25)
    shifted = augmenter(images, np.random.default_rng(1), get_backend(backend))
    assert shifted.dtype == np.uint8
    shifts = [find_shifts(*pair, max_shift=(2, 3)) for pair in zip(images, shifted, strict=True)]
    assert all(len(found) == 1 for found in shifts)
    assert {found[0][0] for found in shifts} == {-2, -1, 0, 1, 2}
    assert {found[0][1] for found in shifts} == {-3, -2, -1, 0, 1, 2, 3}


def test_affine_rotates_and_scales_about_the_center():
    augmenter = AffineAugmenter(degrees=20, scaling=0.2, max_shift=0.1)
    matrices = augmenter.matrices(500, (20, 30), np.random.default_rng(0))
    angles = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    assert np.abs(angles).max() == pytest.approx(20, abs=0.5)
    sizes = 1 / np.linalg.norm(matrices[:, :, :2], axis=2)
    assert sizes.min() == pytest.approx(0.8, abs=0.01)
    assert sizes.max() == pytest.approx(1.2, abs=0.01)
    assert set(matrices[:, 0, 2]) == set(range(-2, 3))
    assert set(matrices[:, 1, 2]) == set(range(-3, 4))


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: ShiftAugmenter(0.6), "max_shift must be 0 to 0.5"),
        (lambda: AffineAugmenter(degrees=-1), "degrees must be 0 to 180"),
        (lambda: AffineAugmenter(scaling=1), "scaling must be"),
    ],
)
def test_rejects_options_out_of_range(create, message):
    with pytest.raises(ValueError, match=message):
        create()


@pytest.mark.parametrize("augmenter", [ShiftAugmenter, AffineAugmenter])
def test_accepts_reach_as_the_deprecated_name_of_max_shift(augmenter):
    with pytest.warns(DeprecationWarning, match="reach is now called max_shift") as warned:
        former = augmenter(reach=0.25)
    assert warned[0].filename == __file__
    draws = (
        each.matrices(20, (8, 8), np.random.default_rng(0))
        for each in (former, augmenter(max_shift=0.25))
    )
    np.testing.assert_array_equal(*draws)
