"""The sheet of images as they came and as the network sees them."""

import numpy as np
import pytest
from PIL import Image

from training.input_stats import InputStats
from training.reporting.input_sheet import MAX_ENTRIES, Entry, choose, draw, is_sheet


@pytest.mark.parametrize("n", [1, 7, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_of_any_number_of_images(tmp_path, n, channels):
    original = np.zeros((30, 50, 3), np.uint8)
    image = np.zeros((channels, 8, 8), np.float32)
    entries = [
        Entry(original, image, f"$a_{{{k}}}.png\n\u732b (9%)", "ink", k == 0) for k in range(n)
    ]
    draw(entries, InputStats(), tmp_path / "a.png")
    assert is_sheet(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as sheet:
        columns, rows = {1: (1, 1), 7: (5, 2), 30: (8, 4)}[n]
        assert sheet.width == pytest.approx(110 * (2.35 * columns + 0.2), abs=1) or n == 1
        assert sheet.height == pytest.approx(110 * (1.75 * rows + 0.5), abs=1)


def test_both_images_are_drawn_in_place_and_on_their_scale(tmp_path):
    """The original in colors; the image of the network from its smallest pixel to the largest."""
    original = np.zeros((40, 40, 3), np.uint8)
    original[:20, :, 0] = 255
    image = np.full((1, 4, 4), -1, np.float32)
    image[0, 2:] = 1
    draw([Entry(original, image, "a.png\n3 (90%)", "ink")], InputStats(-1, 1), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    top, left = round(110 * (0.45 + 0.34)), round(110 * 0.15)
    at = {
        name: tuple(pixels[top + row, left + column])
        for name, row, column in (
            ("original top", 25, 55),
            ("original bottom", 85, 55),
            ("seen top", 25, 55 + 121),
            ("seen bottom", 85, 55 + 121),
        )
    }
    assert at == {
        "original top": (255, 0, 0),
        "original bottom": (0, 0, 0),
        "seen top": (0, 0, 0),
        "seen bottom": (255, 255, 255),
    }


def test_other_pictures_are_no_sheets(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    assert not is_sheet(tmp_path / "a.png")


def test_the_doubtful_come_first_where_not_all_are_shown():
    assert choose([False, True, False]) == [0, 1, 2]
    is_doubtful = [index % 10 == 9 for index in range(400)]
    chosen = choose(is_doubtful)
    assert chosen[:40] == list(range(9, 400, 10))
    assert chosen[40:43] == [0, 1, 2]
    assert len(chosen) == MAX_ENTRIES
