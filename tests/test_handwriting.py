"""The generator of handwriting: each style is what its name says, and the same every time."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage

from tests.handwriting import ROWS, STYLES, Sample, write, write_row
from tests.handwriting.strokes import is_line_drawing, outline, pen, place, thin
from tests.handwriting.styles import MAX_SIDE, MIN_SIDE, ORIENTATION_TAG, ORIENTATIONS
from training.datasets import load_dataset

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".tif": "TIFF", ".webp": "WEBP"}
MODES = {
    "large drawing": "L",
    "colored": "RGB",
    "photo": "RGB",
    "white on transparent": "RGBA",
    "black on transparent": "RGBA",
    "scan 12 bit": "I;16",
    "one bit": "1",
    "palette": "P",
    "cmyk jpeg": "CMYK",
    "gif": "P",
    "tiff": "L",
    "webp": "RGB",
}
EVERY_PART = np.ones((3, 3))  # parts that touch by a corner are one
every_style = pytest.mark.parametrize("name", STYLES)
every_row = pytest.mark.parametrize("name", ROWS)


@pytest.fixture(scope="module")
def digits():
    train, _ = load_dataset("mnist-5k")
    return train.images, train.labels


def open_sample(sample: Sample):
    return Image.open(BytesIO(sample.content))


def grey(sample):
    return np.asarray(open_sample(sample).convert("L"), np.float32) / 255


def ink_box(ink):
    """Return the top, the left, the bottom and the right of what is above a half."""
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis=axis)) for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def n_parts(ink):
    return ndimage.label(ink > 0.5, EVERY_PART)[1]


def bar(H=20, W=4):
    digit = np.zeros((28, 28), np.uint8)
    digit[14 - H // 2 : 14 + H // 2, 14 - W // 2 : 14 + W // 2] = 255
    return digit


def ring():
    row, column = np.mgrid[:28, :28] - 13.5
    radius = np.hypot(row, column)
    return np.uint8(255 * np.clip(2 - np.abs(radius - 7), 0, 1))


# -- every style -----------------------------------------------------------------------------------
@every_style
def test_picture_is_the_same_every_time_and_another_for_another_number(name, digits):
    sample = write(name, 3, *digits)
    assert write(name, 3, *digits) == sample
    assert write(name, 4, *digits).content != sample.content


@every_style
def test_file_has_its_format_and_size(name, digits):
    sample = write(name, 1, *digits)
    picture = open_sample(sample)
    assert picture.format == FORMATS[sample.suffix]
    assert picture.mode == MODES.get(name, picture.mode)
    assert MIN_SIDE <= min(picture.size) <= max(picture.size) <= MAX_SIDE


@pytest.mark.parametrize(
    "name", ["large drawing", "off center", "small", "thick", "white on black"]
)
def test_picture_shows_the_digit_of_its_label(name, digits):
    """Its ink is more like the mean image of the label's digits than like that of most others."""
    images, labels = digits
    ranks = []
    for index in range(5):
        sample = write(name, index, images, labels)
        ink = grey(sample) if name == "white on black" else 1 - grey(sample)
        top, left, bottom, right = ink_box(ink)
        n = max(bottom - top, right - left)
        square = np.zeros((n, n), np.float32)
        y, x = (n - bottom + top) // 2, (n - right + left) // 2
        square[y : y + bottom - top, x : x + right - left] = ink[top:bottom, left:right]
        image = np.asarray(Image.fromarray(square).resize((20, 20), Image.Resampling.BOX))
        means = [images[labels == label, 0, 4:24, 4:24].mean(axis=0) for label in range(10)]
        likeness = [np.corrcoef(mean.ravel(), image.ravel())[0, 1] for mean in means]
        ranks.append(int(np.sum(likeness > likeness[int(sample.label)])))
    assert np.median(ranks) <= 1


# -- single styles ---------------------------------------------------------------------------------
def relative_box(sample):
    """Return the longer side and the center of the ink, as shares of the shorter side."""
    ink = 1 - grey(sample)
    top, left, bottom, right = ink_box(ink)
    shorter = min(ink.shape)
    middle = np.array([top + bottom - ink.shape[0], left + right - ink.shape[1]]) / 2
    return max(bottom - top, right - left) / shorter, np.abs(middle).max() / shorter


@pytest.mark.parametrize("index", range(3))
def test_size_and_place_of_the_ink(index, digits):
    side, away = relative_box(write("large drawing", index, *digits))
    assert 0.44 < side < 0.81
    assert away < 0.07
    assert relative_box(write("fills the canvas", index, *digits))[0] > 0.84
    side, away = relative_box(write("small", index, *digits))
    assert 0.11 < side < 0.23
    assert relative_box(write("off center", index, *digits))[1] > 0.1


def stroke_width(ink):
    """Return the width of strokes in pixels, from their area and the length of their center."""
    return (ink > 0.5).sum() / thin(ink > 0.5).sum()


def test_widths_of_strokes(digits):
    images, labels = digits
    ones = images[labels == 1], labels[labels == 1]  # lines without loops
    widths = {}
    for name in ("hairline", "thin", "large drawing", "thick"):
        ink = 1 - grey(write(name, 2, *ones))
        top, left, bottom, right = ink_box(ink)
        widths[name] = stroke_width(ink), stroke_width(ink) / max(bottom - top, right - left)
    assert widths["hairline"][0] < 2
    assert 0.015 < widths["thin"][1] < 0.06
    assert widths["thin"][1] < widths["large drawing"][1] < widths["thick"][1]


def test_tall_and_wide_canvases(digits):
    width, height = open_sample(write("tall canvas", 0, *digits)).size
    assert 1.9 < height / width < 4.1
    width, height = open_sample(write("wide canvas", 0, *digits)).size
    assert 1.9 < width / height < 4.1


@pytest.mark.parametrize("index", range(3))
def test_exif_flag_turns_the_picture_upright(index):
    digit = bar()
    digit[21:24, 12:20] = 255  # a foot to the right
    picture = open_sample(write("rotated by exif", index, digit[np.newaxis, np.newaxis], [1]))
    tag = picture.getexif()[ORIENTATION_TAG]
    assert tag in ORIENTATIONS
    upright = ImageOps.exif_transpose(picture).convert("L")
    ink = 1.5 * (1 - np.asarray(upright) / 255)
    top, left, bottom, right = ink_box(ink)
    assert bottom - top > right - left
    foot = ink[top + 3 * (bottom - top) // 4 : bottom, left:right] > 0.5
    assert foot.sum() > 0.3 * (ink > 0.5).sum()
    assert foot[:, foot.shape[1] // 2 :].sum() > 0.2 * foot.sum()
    stored = upright.transpose(ORIENTATIONS[tag])
    assert abs(np.asarray(stored, int) - np.asarray(picture.convert("L"), int)).max() <= 1


@pytest.mark.parametrize(
    ("name", "ink"), [("white on transparent", 255), ("black on transparent", 0)]
)
def test_transparent_picture_has_its_digit_in_the_alpha_channel_alone(name, ink, digits):
    *colors, alpha = open_sample(write(name, 0, *digits)).split()
    assert all(color.getextrema() == (ink, ink) for color in colors)
    assert alpha.getextrema() == (0, 255)


def test_values_of_12_bits(digits):
    values = np.asarray(open_sample(write("scan 12 bit", 0, *digits)))
    assert values.dtype == np.uint16
    assert 3000 < np.median(values) <= values.max() <= 4095


def test_frame_surrounds_the_digit(digits):
    ink = 1 - grey(write("frame", 0, *digits))
    top, left, bottom, right = ink_box(ink)
    H, W = ink.shape
    assert min(bottom - top, right - left) > 0.75 * min(H, W)
    assert n_parts(ink) >= 2


@pytest.mark.parametrize("index", range(3))
def test_neighbor_touches_the_edge_and_not_the_digit(index, digits):
    ink = 1 - grey(write("neighbor at the edge", index, *digits))
    parts, n = ndimage.label(ink > 0.5, EVERY_PART)
    at_edge = set(np.r_[parts[:, 0], parts[:, -1]]) - {0}
    assert at_edge
    assert n > len(at_edge)
    biggest = np.argmax(np.bincount(parts[parts > 0]))
    assert biggest not in at_edge


@pytest.mark.parametrize("name", ["cut out", "photo cut out"])
def test_ink_that_was_cut_out_comes_near_every_edge(name, digits):
    """Brightness differs along the edges of a photograph, and hides how near it comes."""
    ink = 1 - grey(write(name, 1, *digits))
    top, left, bottom, right = ink_box(ink / ink.max())
    H, W = ink.shape
    assert max(bottom - top, right - left) > 0.88 * max(H, W)
    if name == "cut out":
        assert (ink > 0.5).mean() > 0.2


def test_desk_is_seen_beside_the_sheet(digits):
    images = [grey(write("sheet on a desk", index, *digits)) for index in range(4)]
    corners = [min(image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]) for image in images]
    papers = [np.percentile(image, 90) for image in images]
    assert np.median(np.divide(corners, papers)) < 0.5


def test_page_around_a_canvas_has_another_brightness(digits):
    image = grey(write("canvas in a window", 0, *digits))
    page, ground = image[0, 0], np.median(image)
    assert np.ptp(np.r_[image[0], image[-1], image[:, 0], image[:, -1]]) < 0.01
    assert abs(page - ground) > 0.04
    assert ground in (0, 1)


def test_labels_are_smaller_than_the_digit(digits):
    ink = 1 - grey(write("labels beside", 0, *digits))
    parts, n = ndimage.label(ink > 0.5, EVERY_PART)
    heights = sorted(rows.stop - rows.start for rows, _ in ndimage.find_objects(parts))
    assert n >= 3
    assert heights[-2] < 0.3 * heights[-1]


def test_lines_of_ruled_and_squared_paper_cross_the_picture(digits):
    for name, has_upright in (("ruled paper", False), ("squared paper", True)):
        image = grey(write(name, 0, *digits))
        across, upright = np.median(image, axis=1), np.median(image, axis=0)
        assert across.max() - across.min() > 0.03
        assert (upright.max() - upright.min() > 0.03) == has_upright


def paper_levels(sample):
    """Return the brightness (3, 3) of the paper in the ninths of a picture."""
    image = grey(sample)
    blocks = [np.array_split(rows, 3, axis=1) for rows in np.array_split(image, 3)]
    return np.array([[np.percentile(block, 80) for block in row] for row in blocks])


@pytest.mark.parametrize("name", ["light from one side", "soft shadow"])
def test_light_is_uneven(name, digits):
    levels = paper_levels(write(name, 0, *digits))
    assert levels.min() < 0.85 * levels.max()


def test_corners_are_dark(digits):
    levels = paper_levels(write("dark corners", 0, *digits))
    assert levels[::2, ::2].max() < levels[1, 1]


def test_dim_photograph_is_dark(digits):
    assert paper_levels(write("dim", 0, *digits)).max() < 0.4


def test_noisy_photograph_has_quality_30(digits):
    sample = write("noise and jpeg 30", 0, *digits)
    reference = BytesIO()
    Image.new("RGB", (8, 8)).save(reference, "JPEG", quality=30)
    assert open_sample(sample).quantization == Image.open(reference).quantization
    image = grey(sample)
    assert np.median(np.abs(np.diff(image, axis=1))) > 0.01


def test_pencil_is_grey(digits):
    image = grey(write("pencil", 0, *digits))
    assert np.median(image) - 0.65 < np.percentile(image, 0.5) < np.median(image) - 0.15
    assert np.percentile(image, 0.5) > 0.3


def test_colored_ink_on_colored_paper(digits):
    pixels = np.asarray(open_sample(write("colored", 0, *digits))).reshape(-1, 3)
    paper = np.median(pixels, axis=0)
    ink = pixels[np.argmax(np.abs(pixels - paper).sum(axis=1))].astype(float)
    assert max(np.ptp(paper), np.ptp(ink)) > 30


# -- strokes ---------------------------------------------------------------------------------------
def test_enlarged_ring_is_round():
    """Its edge shows neither pixels of the digit nor steps."""
    ink = place(outline(ring()), (900, 900), 800, (450, 450))
    row, column = np.nonzero(np.abs(ink - 0.5) < 0.4)
    radius = np.hypot(row - 449.5, column - 449.5)
    outer = radius[radius > 300]
    assert len(outer) > 1000
    assert np.abs(outer - 400).max() < 8


def test_digit_is_placed_by_its_box():
    ink = place(outline(bar()), (300, 400), 120, (100, 250))
    np.testing.assert_allclose(ink_box(ink), (40, 238, 160, 262), atol=2)
    assert ink.dtype == np.float32
    assert 0 <= ink.min() <= ink.max() <= 1


def test_slanted_bar_leans_to_the_right():
    ink = place(outline(bar()), (300, 300), 200, (150, 150), slant=15)
    top, _, bottom, _ = ink_box(ink)
    high, low = (np.flatnonzero(ink[row] > 0.5).mean() for row in (top + 20, bottom - 20))
    assert np.rad2deg(np.arctan((high - low) / (bottom - top - 40))) == pytest.approx(15, abs=1)


def test_turn_is_clockwise():
    ink = place(outline(bar()), (300, 300), 200, (150, 150), turn=30)
    top, _, bottom, _ = ink_box(ink)
    high, low = (np.flatnonzero(ink[row] > 0.5).mean() for row in (top + 30, bottom - 30))
    assert np.rad2deg(np.arctan((high - low) / (bottom - top - 60))) == pytest.approx(30, abs=2)


@pytest.mark.parametrize("width", [0.5, 1, 3])
def test_pen_has_its_width(width):
    strokes = pen(bar(), width)
    middle = strokes[strokes.shape[0] // 2] > 0
    assert middle.sum() / 8 == pytest.approx(width, abs=0.15)


def test_thin_keeps_the_shape_of_a_ring():
    mask = outline(ring()) > 0
    spine = thin(mask)
    assert spine.sum() < 0.1 * mask.sum()
    assert ndimage.label(spine, EVERY_PART)[1] == 1
    assert ndimage.label(~spine)[1] == 2  # inside and outside


def test_digit_with_a_filled_loop_is_no_line_drawing():
    filled = bar()
    filled[14:24, 8:20] = 255
    assert is_line_drawing(bar())
    assert is_line_drawing(ring())
    assert not is_line_drawing(filled)


def test_specks_are_left_out():
    digit = bar(W=6)
    digit[3:5, 24:26] = 255
    np.testing.assert_array_equal(outline(digit), outline(bar(W=6)))


def test_faint_stroke_does_not_break():
    digit = bar()
    digit[12:15] = np.minimum(digit[12:15], 75)
    assert ndimage.label(outline(digit) > 0)[1] == 1


# -- rows ------------------------------------------------------------------------------------------
@every_row
def test_row_is_the_same_every_time(name, digits):
    sample = write_row(name, 3, *digits)
    assert write_row(name, 3, *digits) == sample
    assert write_row(name, 4, *digits).content != sample.content
    assert len(sample.label) == (5 if name == "postal code" else 4)
    assert max(open_sample(sample).size) <= 2 * MAX_SIDE


@pytest.mark.parametrize("name", ["on a line", "wide apart", "of different sizes"])
@pytest.mark.parametrize("index", range(3))
def test_digits_of_a_row_do_not_touch(name, index, digits):
    """An upright line separates two of them."""
    ink = 1 - grey(write_row(name, index, *digits))
    columns = (ink > 0.5).any(axis=0)
    assert np.diff(np.r_[0, columns, 0]).clip(0).sum() >= 4


def test_box_of_a_form_has_a_digit_each(digits):
    for name in ("in boxes", "in separate boxes"):
        ink = 1 - grey(write_row(name, 0, *digits)) > 0.35
        _, n_grounds = ndimage.label(~ink)
        assert n_grounds >= 1 + 4
        assert n_parts(ink) >= (5 if name == "in boxes" else 8)


def test_year_is_of_these_two_centuries(digits):
    for index in range(3):
        assert 1900 <= int(write_row("year", index, *digits).label) < 2030
