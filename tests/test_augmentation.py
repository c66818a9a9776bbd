"""Augmenters."""

import numpy as np
import pytest
from numba.core.config import NUMBA_NUM_THREADS

from kernels import BACKENDS, get_backend
from tests.networks import digits, small_network
from training import (
    AUGMENTERS,
    AffineAugmenter,
    ComposedAugmenter,
    FlipAugmenter,
    InputError,
    PhotoAugmenter,
    ShiftAugmenter,
    make_augmenter,
)

every_backend = pytest.mark.parametrize("backend", [get_backend(name) for name in BACKENDS])
NUMPY = get_backend("numpy")
MEAN = np.array([120.0, 100, 80])


def photos(N=60, size=(16, 28), dtype=np.uint8, channels=3):
    """Return random images that are smooth enough to be recognized."""
    return np.random.default_rng(0).integers(0, 256, (N, channels, *size)).astype(dtype)


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
        (lambda: PhotoAugmenter(max_shift=0.6), "max_shift must be 0 to 0.5"),
        (lambda: PhotoAugmenter(cutout=1.5), "cutout must be 0 to 1"),
        (lambda: PhotoAugmenter(contrast=-0.1), "contrast must be 0 to 1"),
        (lambda: make_augmenter("flip,turn"), "must be one or more of none, shift, affine, flip"),
        (lambda: make_augmenter(""), "must be one or more of"),
        (lambda: make_augmenter("flip,"), "must be one or more of"),
        (lambda: make_augmenter("flip,shift,flip"), "must name each augmentation once"),
        (lambda: make_augmenter("none,flip"), "must be none alone"),
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


@every_backend
def test_flip_mirrors_half_of_the_images(backend):
    images = photos(200, dtype=np.float32)
    flipped = FlipAugmenter()(images, np.random.default_rng(1), backend)
    is_mirrored = (flipped == images[..., ::-1]).all(axis=(1, 2, 3))
    is_same = (flipped == images).all(axis=(1, 2, 3))
    assert (is_mirrored ^ is_same).all()
    assert 70 < is_mirrored.sum() < 130


@every_backend
@pytest.mark.parametrize("names", [*AUGMENTERS, "shift,flip", "affine,photo", "photo,flip"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_backends_augment_alike(backend, names, dtype):
    images = photos(dtype=dtype)
    augmenter = make_augmenter(names).fitted(images, MEAN)
    got = augmenter(images, np.random.default_rng(5), backend)
    want = augmenter(images, np.random.default_rng(5), NUMPY)
    assert got.dtype == dtype
    assert (names == "none") == np.array_equal(want, images)
    # An affine map may round bytes differently. Positions are float32 but for float64 images.
    tolerance = {np.uint8: 0, np.float32: 1e-4, np.float64: 1e-9}[dtype]
    if "affine" in names:
        tolerance = {np.uint8: 2, np.float32: 0.1, np.float64: 1e-9}[dtype]
    assert np.abs(got.astype(float) - want).max() <= tolerance


def test_photo_does_not_depend_on_the_threads():
    backend, images, augmenter = get_backend("numba"), photos(), PhotoAugmenter()
    on_all = augmenter(images, np.random.default_rng(0), backend)
    backend.set_threads(1)
    try:
        on_one = augmenter(images, np.random.default_rng(0), backend)
    finally:
        backend.set_threads(NUMBA_NUM_THREADS)
    np.testing.assert_array_equal(on_one, on_all)


def test_photo_mirrors_shifts_and_reflects():
    only_moved = PhotoAugmenter(max_shift=0.25, cutout=0, brightness=0, contrast=0, saturation=0)
    images = photos(200, size=(8, 13))
    moved = only_moved(images, np.random.default_rng(1), NUMPY)
    found = {}
    for image, result in zip(images, moved, strict=True):
        for is_mirrored in (False, True):
            original = image[..., ::-1] if is_mirrored else image
            padded = np.pad(original, ((0, 0), (2, 2), (3, 3)), mode="reflect")
            for i, j in np.ndindex(5, 7):
                if np.array_equal(result, padded[:, i : i + 8, j : j + 13]):
                    found[is_mirrored, i, j] = found.get((is_mirrored, i, j), 0) + 1
    assert sum(found.values()) == len(images)
    assert 70 < sum(n for (is_mirrored, *_), n in found.items() if is_mirrored) < 130
    assert {i for _, i, _ in found} == set(range(5))
    assert {j for *_, j in found} == set(range(7))


def test_photo_without_flip_draws_the_same_numbers():
    """A run whose images are not mirrored sees the same shifts, boxes and colors."""
    images = photos()
    images = np.maximum(images, images[..., ::-1])  # symmetric: mirroring changes nothing
    results = [
        make_augmenter(name)(images, np.random.default_rng(3), NUMPY)
        for name in ("photo", "photo_no_flip")
    ]
    np.testing.assert_array_equal(*results)


def test_photo_covers_a_box_with_the_mean():
    only_box = PhotoAugmenter(False, 0, cutout=0.25, brightness=0, contrast=0, saturation=0)
    images = photos(300, size=(16, 28))
    augmenter = only_box.fitted(images, MEAN)
    changed = augmenter(images, np.random.default_rng(1), NUMPY)
    sizes, n_covered = set(), 0
    for image, result in zip(images, changed, strict=True):
        is_mean = (result == MEAN.astype(np.uint8)[:, None, None]).all(axis=0)
        assert np.array_equal(result[:, ~is_mean], image[:, ~is_mean])
        rows, columns = np.flatnonzero(is_mean.any(axis=1)), np.flatnonzero(is_mean.any(axis=0))
        n_covered += is_mean
        sizes.add((len(rows), len(columns)))
        assert is_mean.sum() == len(rows) * len(columns)
    assert max(sizes) == (4, 7)
    assert len(sizes) > 4  # boxes may extend beyond the image
    assert n_covered[:2].sum() == pytest.approx(n_covered[-2:].sum(), rel=0.3)  # on every side
    assert n_covered[:, :2].sum() == pytest.approx(n_covered[:, -2:].sum(), rel=0.3)


def recolor(images, mean, **options):
    """Return images that are changed in color alone, by the options that are not 0."""
    unchanged = {"brightness": 0, "contrast": 0, "saturation": 0, "max_shift": 0, "cutout": 0}
    augmenter = PhotoAugmenter(flip=False, **unchanged | options).fitted(images, mean)
    return augmenter(images, np.random.default_rng(0), NUMPY)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_photo_changes_colors(channels):
    images = np.linspace(2, 5, 40 * channels * 9).reshape(40, channels, 3, 3)
    mean = images.mean(axis=(0, 2, 3))
    everything = recolor(images, mean, brightness=0.3, contrast=0.5, saturation=0.5)
    assert (everything.min(), everything.max()) == (2, 5)  # in the range of the training images

    unclipped, center = slice(10, 30), mean[:, None, None]
    differences = (recolor(images, mean, brightness=0.2) - images)[unclipped]
    shift = differences[:, :1, :1, :1]  # one number for each image
    np.testing.assert_allclose(differences, np.broadcast_to(shift, differences.shape), atol=1e-6)
    assert 0.1 < np.abs(shift).max() / np.ptp(images) <= 0.2

    ratios = ((recolor(images, mean, contrast=0.5) - center) / (images - center))[unclipped]
    factor = ratios[:, :1, :1, :1]
    np.testing.assert_allclose(ratios, np.broadcast_to(factor, ratios.shape), rtol=1e-4)
    assert 0.5 <= factor.min() < 0.7 < 1.3 < factor.max() <= 1.5

    grays = np.repeat(images[:, :1], channels, axis=1)
    np.testing.assert_allclose(recolor(grays, mean, saturation=1), grays, rtol=1e-6)
    changed = recolor(images, mean, saturation=0.5)
    assert (channels == 3) == (np.abs(changed - images).max() > 1e-3)


def test_photo_scales_brightness_by_the_range_of_the_training_images():
    """Bytes need not use their whole range: those of scikit-learn's digits are 0 to 16."""
    images = photos(100) // 16
    only_brightness = PhotoAugmenter(False, 0, 0, brightness=0.2, contrast=0, saturation=0)
    changed = only_brightness(images, np.random.default_rng(0), NUMPY)
    differences = changed.astype(int) - images
    assert {*np.unique(differences)} == {-3, -2, -1, 0, 1, 2, 3}


def test_photo_reports_pixels_that_are_not_finite():
    images, labels = digits(40)
    bad = images.astype(float)
    bad[7, 0, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"x\[7, 0, 2, 3\] is nan"):
        small_network().train(bad, labels, 1, validation_split=0.5, augmenter=PhotoAugmenter())


def test_composed_augmenters_are_applied_in_order():
    images = photos(20)
    rng, both = np.random.default_rng(2), make_augmenter("shift,photo").fitted(images, MEAN)
    assert isinstance(both, ComposedAugmenter)
    shifted = ShiftAugmenter()(images, rng, NUMPY)
    want = PhotoAugmenter().fitted(images, MEAN)(shifted, rng, NUMPY)
    np.testing.assert_array_equal(both(images, np.random.default_rng(2), NUMPY), want)


@pytest.mark.parametrize("names", list(AUGMENTERS))
def test_augments_an_empty_batch(names):
    empty = photos()[:0]
    augmenter = make_augmenter(names)
    assert augmenter(empty, np.random.default_rng(0), NUMPY).shape == empty.shape


@pytest.mark.parametrize(
    ("names", "mirrors"),
    [
        ("none", False),
        ("shift", False),
        ("affine", False),
        ("photo_no_flip", False),
        ("flip", True),
        ("photo", True),
        ("shift,flip", True),
        ("shift,photo_no_flip", False),
    ],
)
def test_tells_whether_images_are_mirrored(names, mirrors):
    assert make_augmenter(names).mirrors is mirrors
