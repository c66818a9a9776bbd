"""Rows of separate digits."""

import csv

import numpy as np
import pytest
from PIL import Image

from layers import Dense, Flatten, Softmax
from training import Model
from training.preprocessing.digits import choose_row, read_row, touching_shapes
from training.preprocessing.ink import find_shapes
from training.preprocessing.ink_stats import measure_ink
from training.preprocessing.lines import is_box

pytest_plugins = ["tests.command_line_fixtures"]


def draw(symbol: str, height: int = 60, width: int = 36, pen: int = 6) -> np.ndarray:
    """Return a mask of a sign of straight strokes: l, L, T, U or O."""
    mask = np.zeros((height, width), bool)
    if symbol == "l":
        mask[:, (width - pen) // 2 : (width + pen) // 2] = True
    if symbol in "LUO":
        mask[:, :pen] = mask[-pen:] = True
    if symbol in "UO":
        mask[:, -pen:] = True
    if symbol in "TO":
        mask[:pen] = True
    if symbol == "T":
        mask[:, (width - pen) // 2 : (width + pen) // 2] = True
    return mask


def picture(symbols: str, gap: int = 24, **size: int) -> np.ndarray:
    """Return a page (h, w) from 0 to 1 with dark signs from left to right."""
    masks = [np.pad(draw(symbol, **size), ((40, 40), (gap // 2, gap // 2))) for symbol in symbols]
    return 0.9 - 0.8 * np.pad(np.concatenate(masks, axis=1), ((0, 0), (30, 30))).astype(np.float32)


@pytest.fixture(scope="module")
def training_images():
    """Return (200, 1, 28, 28) images of signs in 20 rows, light on black."""
    rng = np.random.default_rng(0)
    images = np.zeros((200, 1, 28, 28), np.uint8)
    for image, symbol in zip(images, rng.choice(list("lLTUO"), 200), strict=True):
        image[0, 4:24, 8:20] = 255 * draw(symbol, 20, 12, 2)
    return images


@pytest.fixture(scope="module")
def ink(training_images):
    ink = measure_ink(training_images)
    assert ink is not None
    return ink


@pytest.mark.parametrize("symbols", ["LT", "TUOL", "lLlTlO"])
def test_reads_from_left_to_right(ink, symbols):
    reading = read_row(picture(symbols), ink, (28, 28))
    assert reading.images.shape == (len(symbols), 28, 28)
    assert not reading.touching
    for image, symbol in zip(reading.images, symbols, strict=True):
        alone = read_row(picture(symbol), ink, (28, 28)).images[0]
        assert np.abs(image - alone).mean() < 10, symbol  # of 255


def test_a_blank_page_has_no_digits(ink):
    assert len(read_row(np.full((100, 300), 0.9, np.float32), ink, (28, 28)).images) == 0


def test_small_marks_are_no_digits(ink):
    gray = picture("LTU")
    gray[96:102, 84:90] = 0.1  # a comma
    gray[66:72, 144:156] = 0.1  # a dash
    assert len(read_row(gray, ink, (28, 28)).images) == 3


@pytest.mark.parametrize("boxes", ["shared lines", "separate"])
@pytest.mark.parametrize("thickness", [1, 3])
def test_boxes_of_a_form_are_no_digits(ink, boxes, thickness):
    plain = picture("TUL", gap=40)
    gray = plain.copy()
    n, left, step = 3, 34, 76
    for number in range(n):
        start = left + number * step
        end = start + (step + thickness if boxes == "shared lines" else step - 8)
        gray[20 : 20 + thickness, start:end] = gray[120 - thickness : 120, start:end] = 0.1
        gray[20:120, start : start + thickness] = gray[20:120, end - thickness : end] = 0.1
    reading = read_row(gray, ink, (28, 28))
    assert len(reading.images) == n
    expected = read_row(plain, ink, (28, 28)).images
    assert np.abs(reading.images - expected).mean() < 3  # of 255


def test_a_sign_of_four_strokes_is_a_box_and_others_are_not():
    assert is_box(draw("O", 100, 80, 3))
    assert not any(is_box(draw(symbol, 100, 80, 3)) for symbol in "lLTU")


def test_tells_digits_that_touch(ink):
    gray = picture("LTUL")
    gray[96:100, 54:120] = 0.1  # joins the first two
    reading = read_row(gray, ink, (28, 28))
    assert len(reading.images) == 3
    assert reading.touching == (0,)


def test_one_wide_sign_does_not_touch_another(ink):
    shapes = find_shapes(picture("U", width=90)).shapes
    assert len(choose_row(shapes)) == 1
    assert touching_shapes(shapes) == ()


def test_command_line(cli, tmp_path, training_images, monkeypatch):
    model = Model((1, 28, 28), backend="numpy").add(Flatten()).add(Dense(10)).add(Softmax())
    model.fit_normalization(training_images).save(tmp_path / "digits.json")
    (tmp_path / "rows").mkdir()
    for name, symbols in (("four", "TUOL"), ("two", "lL"), ("one", "U")):
        Image.fromarray((picture(symbols) * 255).astype(np.uint8)).save(
            tmp_path / "rows" / f"{name}.png"
        )
    Image.new("L", (200, 100), 230).save(tmp_path / "rows" / "blank.png")
    arguments = ("--predict", "rows", "--digits", "auto", "--from_path", "digits.json")
    done = cli(*arguments, "--backend", "numpy", "--output", "answers.csv")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "answers.csv", newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    for name, n in (("four.png", 4), ("two.png", 2), ("one.png", 1), ("blank.png", 0)):
        assert len(rows[name]["label"]) == len(rows[name]["probabilities"].split()) == n, name
    assert rows["blank.png"]["remarks"] == "blank page"
    done = cli(*arguments, "--backend", "numpy", "--show_input", "sheet.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["image", "label", "probabilities"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300
    monkeypatch.setattr("training.reporting.input_sheet.MAX_ENTRIES", 3)
    done = cli(*arguments, "--backend", "numpy", "--show_input", "sheet.png")
    assert "sees them, 3 of 4, those with remarks first: sheet.png" in done.stdout


def test_rejects_a_model_of_photographs(cli, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (60, 1, 28, 28)).astype(np.uint8)
    model = Model((1, 28, 28), backend="numpy").add(Flatten()).add(Dense(10)).add(Softmax())
    model.fit_normalization(images).save(tmp_path / "photos.json")
    Image.new("L", (200, 100), 230).save(tmp_path / "page.png")
    done = cli("--predict", "page.png", "--digits", "auto", "--from_path", "photos.json")
    assert done.returncode == 2
    assert "--digits auto is for a model whose training images are ink" in done.stderr
