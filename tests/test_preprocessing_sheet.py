"""A sheet of paper on a desk, and a window with a drawing."""

import numpy as np
import pytest
from scipy import ndimage

from training.preprocessing.sheet import crop_to_sheet, find_sheet, rectangularity

SIDE = 200


def rectangle(shape=(SIDE, SIDE), height=120, width=100, turn=0.0):
    """Return a mask of a rectangle in the middle, turned by an angle in degrees."""
    row, column = (np.arange(n) - n / 2 for n in shape)
    y, x = np.meshgrid(row, column, indexing="ij")
    angle = np.deg2rad(turn)
    along, across = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    return (np.abs(along) < height / 2) & (np.abs(across) < width / 2)


def ring(radius=30.0, width=8.0, shape=(SIDE, SIDE)):
    row, column = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(row - shape[0] / 2, column - shape[1] / 2)
    return np.abs(distance - radius) < width / 2


def on_desk(sheet, ink, desk=0.2, paper=0.9, dark=0.15):
    return np.float32(np.where(ink, dark, np.where(sheet, paper, desk)))


@pytest.mark.parametrize("turn", [0, 7, -20])
@pytest.mark.parametrize("inverted", [False, True])
def test_sheet_is_cut_out_and_its_surroundings_become_paper(turn, inverted):
    gray = on_desk(rectangle(turn=turn), ring())
    cut = crop_to_sheet(1 - gray if inverted else gray)
    cut = 1 - cut if inverted else cut
    assert cut.shape[0] < 185
    assert cut.dtype == np.float32
    assert (cut < 0.5).sum() == ring().sum()
    assert cut[[0, -1]].min() > 0.85
    assert cut[:, [0, -1]].min() > 0.85


def seven():
    digit = np.zeros((SIDE, SIDE), bool)
    digit[30:50, 50:150] = digit[30:170, 130:150] = True
    return digit


@pytest.mark.parametrize(
    "light",
    [
        ring(),  # a digit
        ring(70, 60),  # whose inside is like its surroundings
        ndimage.binary_fill_holes(ring(70)),
        seven(),
        rectangle(height=150, width=90),  # nothing is on it
        rectangle(height=150, width=30),
        ~(rectangle(height=190, width=190) & ~rectangle(height=180, width=180)) & ~ring(),  # a box
    ],
)
@pytest.mark.parametrize("inverted", [False, True])
def test_other_pictures_stay_as_they_are(light, inverted):
    gray = np.float32(np.where(light != inverted, 0.9, 0.2))
    assert crop_to_sheet(gray) is gray


def test_light_of_a_lamp_is_no_sheet():
    soft = ndimage.gaussian_filter(np.float32(rectangle()), 12)
    assert (
        find_sheet(np.float32((0.3 + 0.6 * soft) * np.where(ring(20, 6), 0.4, 1))[::3, ::3]) is None
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (5, 5)])
@pytest.mark.parametrize("level", [0, 0.5])
def test_small_and_plain_pictures_have_no_sheet(shape, level):
    gray = np.full(shape, level, np.float32)
    assert crop_to_sheet(gray) is gray


@pytest.mark.parametrize("turn", [0, 10, 45, 80])
def test_rectangularity_is_the_same_at_any_angle(turn):
    assert rectangularity(rectangle(turn=turn)) > 0.93


def test_ellipses_are_less_rectangular_than_rectangles():
    disk = ndimage.binary_fill_holes(ring(70))
    assert rectangularity(disk) == pytest.approx(np.pi / 4, abs=0.02)
