"""Pictures of one digit, in the styles in which they reach the program.

A style is a function of two digits (2, 28, 28), the one to be read and another one, and of a random
generator. It returns the content of a file, and the suffix of the file's name.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from tests.handwriting.files import encode, jpeg, png, png_16_bits, to_picture, transparent_png
from tests.handwriting.light import (
    BLACK,
    WHITE,
    Color,
    grain,
    lines,
    off_white,
    paint,
    pen_color,
    photograph,
    print_text,
    rectangle,
    shadow,
    slope,
    text_width,
    vignette,
)
from tests.handwriting.strokes import EXTENT, is_line_drawing, outline, pen, place

Rng = np.random.Generator
File = tuple[bytes, str]
Style = Callable[[np.ndarray, Rng], File]
STYLES: dict[str, Style] = {}
LINE_STYLES: set[str] = set()  # those of digits whose loops are open

MIN_SIDE, MAX_SIDE = 100, 1500  # of a canvas, in pixels
ORIENTATION_TAG = 0x0112  # of EXIF
# The values of the orientation tag, and how a camera that is held so stores an upright scene.
ORIENTATIONS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
INKS_ON_PAPERS: list[tuple[Color, Color]] = [
    ((0.10, 0.15, 0.60), (0.98, 0.93, 0.65)),  # blue on yellow
    ((0.75, 0.08, 0.12), (0.96, 0.95, 0.92)),  # red on white
    ((0.05, 0.35, 0.15), (0.80, 0.90, 0.97)),  # green on light blue
    ((0.40, 0.10, 0.45), (0.98, 0.82, 0.86)),  # violet on pink
    ((0.65, 0.10, 0.10), (0.98, 0.88, 0.45)),  # red on yellow
    ((0.90, 0.45, 0.10), (0.97, 0.96, 0.93)),  # orange on white
    ((0.20, 0.15, 0.10), (0.78, 0.62, 0.42)),  # black on cardboard
    ((0.95, 0.93, 0.85), (0.10, 0.28, 0.20)),  # chalk on a green board
    ((0.98, 0.85, 0.20), (0.12, 0.14, 0.40)),  # yellow on dark blue
    ((0.95, 0.95, 0.95), (0.70, 0.12, 0.15)),  # white on red
]
LABELS = ("No. 4", "a)", "1.", "Name:", "x =", "page 12", "Fig. 3", "test", "(b)")


class Drawing(NamedTuple):
    """A digit on a canvas.

    Attributes
    ----------
    cover : ndarray of float32, shape (H, W)
        How much of each pixel its ink covers.
    side : float
        Longer side of its bounding box, in pixels.
    center : (row, column)
        Of its bounding box.
    """

    cover: np.ndarray
    side: float
    center: tuple[float, float]


def style(function: Style) -> Style:
    """Enter a function into the table of styles, under its name with spaces."""
    STYLES[function.__name__.replace("_", " ")] = function
    return function


def line_style(function: Style) -> Style:
    """Enter a function that needs digits of which `is_line_drawing` is true."""
    style(function)
    LINE_STYLES.add(list(STYLES)[-1])
    return function


def canvas(rng: Rng, smallest: int = MIN_SIDE, largest: int = MAX_SIDE) -> tuple[int, int]:
    """Return the shape of a canvas: nearly square, small ones as often as large ones."""
    side = np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    other = side * rng.uniform(0.75, 1)
    shape = max(smallest, round(side)), max(smallest, round(other))
    return shape if rng.random() < 0.5 else shape[::-1]


def long_canvas(rng: Rng) -> tuple[int, int]:
    """Return the shape of a canvas that is 2 to 4 times as tall as wide."""
    width = np.exp(rng.uniform(np.log(MIN_SIDE), np.log(MAX_SIDE / 4)))
    return round(rng.uniform(2, 4) * width), round(width)


def draw(
    strokes: np.ndarray,
    shape: tuple[int, int],
    rng: Rng,
    size: tuple[float, float] = (0.45, 0.8),
    wander: float = 0.06,
    **angles: float,
) -> Drawing:
    """Return strokes drawn near the center of a canvas.

    Parameters
    ----------
    strokes : ndarray
    shape : (H, W)
    rng : numpy.random.Generator
    size : (low, high)
        Range of the longer side of the ink, as a share of the shorter side of the canvas.
    wander : float
        Largest distance from the center in each direction, as a share of that side.
    **angles : float
        `slant` and `turn` of `place`.
    """
    side = rng.uniform(*size) * min(shape)
    center = tuple(n / 2 + min(shape) * rng.uniform(-wander, wander) for n in shape)
    return Drawing(place(strokes, shape, side, center, **angles), side, center)


def by_hand(digit: np.ndarray, rng: Rng) -> np.ndarray:
    """Return strokes of the width that pens, pencils and felt pens have."""
    if rng.random() < 0.3 or not is_line_drawing(digit):
        return outline(digit)
    return pen(digit, rng.uniform(0.8, 2.2))


def felt_pen(digit: np.ndarray, rng: Rng) -> np.ndarray:
    """Return thick strokes that leave loops open."""
    wider = rng.uniform(0.4, 0.9)
    while wider > 0.1 and n_loops(outline(digit, wider)) < n_loops(outline(digit)):
        wider *= 0.7
    return outline(digit, wider)


def n_loops(strokes: np.ndarray) -> int:
    """Return how many parts of the ground are enclosed by ink."""
    return int(ndimage.label(strokes < 0)[1]) - 1


def black_on_white(drawing: Drawing) -> np.ndarray:
    return 1 - drawing.cover


# -- size, place and width of the strokes ----------------------------------------------------------
@style
def large_drawing(digits, rng):
    """Black on white, as a paint program saves it."""
    return png(black_on_white(draw(outline(digits[0]), canvas(rng, 300), rng))), ".png"


@style
def off_center(digits, rng):
    shape = canvas(rng)
    side = rng.uniform(0.3, 0.5) * min(shape)
    margin = 0.55 * side
    while True:
        center = tuple(rng.uniform(margin, n - margin) for n in shape)
        if any(abs(c - n / 2) > 0.15 * n for c, n in zip(center, shape, strict=True)):
            break
    return png(1 - place(outline(digits[0]), shape, side, center)), ".png"


@style
def fills_the_canvas(digits, rng):
    drawing = draw(outline(digits[0]), canvas(rng), rng, size=(0.86, 0.93), wander=0.02)
    return png(black_on_white(drawing)), ".png"


@style
def small(digits, rng):
    drawing = draw(outline(digits[0]), canvas(rng, 250), rng, size=(0.12, 0.22), wander=0.25)
    return png(black_on_white(drawing)), ".png"


@line_style
def thin(digits, rng):
    """As with a sharp pencil: 2 to 4 hundredths of the digit's height."""
    strokes = pen(digits[0], EXTENT * rng.uniform(0.02, 0.04))
    return png(black_on_white(draw(strokes, canvas(rng, 200), rng))), ".png"


@line_style
def hairline(digits, rng):
    """A line of one pixel, as the pencil of a paint program draws it."""
    shape = canvas(rng)
    side = rng.uniform(0.45, 0.8) * min(shape)
    strokes = pen(digits[0], EXTENT * 1.3 / side)
    center = tuple(n / 2 + side * rng.uniform(-0.08, 0.08) for n in shape)
    return png(1 - place(strokes, shape, side, center)), ".png"


@line_style
def thick(digits, rng):
    return png(black_on_white(draw(felt_pen(digits[0], rng), canvas(rng), rng))), ".png"


@style
def slanted(digits, rng):
    drawing = draw(outline(digits[0]), canvas(rng), rng, slant=rng.uniform(-15, 15))
    return png(black_on_white(drawing)), ".png"


@style
def tall_canvas(digits, rng):
    shape = long_canvas(rng)
    drawing = draw(outline(digits[0]), shape, rng, size=(0.4, 0.75))
    return png(black_on_white(drawing)), ".png"


@style
def wide_canvas(digits, rng):
    shape = long_canvas(rng)
    drawing = draw(outline(digits[0]), shape[::-1], rng, size=(0.4, 0.75))
    return png(black_on_white(drawing)), ".png"


# -- ink and paper ---------------------------------------------------------------------------------
def pencil_scene(digit, shape, rng):
    """Return pencil on white paper, whose grain shows in the strokes."""
    drawing = draw(pen(digit, rng.uniform(0.6, 1.4)), shape, rng)
    coverage = np.clip(0.85 + 0.2 * grain(shape, max(1.5, drawing.side / 200), rng), 0.3, 1)
    return paint(drawing.cover * coverage, off_white(rng), (rng.uniform(0.45, 0.62),) * 3)


@line_style
def pencil(digits, rng):
    scene = pencil_scene(digits[0], canvas(rng, 200), rng)
    return jpeg(photograph(scene, 1, rng, noise=0.012), 85), ".jpg"


@style
def colored(digits, rng):
    ink, paper = INKS_ON_PAPERS[rng.integers(len(INKS_ON_PAPERS))]
    drawing = draw(by_hand(digits[0], rng), canvas(rng), rng)
    return png(paint(drawing.cover, paper, ink)), ".png"


def on_ruled_paper(drawing: Drawing, rng: Rng, is_squared: bool) -> np.ndarray:
    """Return a digit on paper with printed lines, written on a line or anywhere."""
    shape = drawing.cover.shape
    spacing = drawing.side * (rng.uniform(0.3, 0.8) if is_squared else rng.uniform(0.7, 1.6))
    width = max(1, drawing.side * rng.uniform(0.008, 0.02))
    offset = rng.uniform(0, spacing)
    if rng.random() < 0.5:
        offset = drawing.center[0] + drawing.side * rng.uniform(0.45, 0.52)
    printed = lines(shape, spacing, width, offset)
    if is_squared:
        printed = np.maximum(printed, lines(shape, spacing, width, rng.uniform(0, spacing), axis=1))
    paper = off_white(rng)
    fade = rng.uniform(0.2, 0.4)
    tint = [(0.4, 0.55, 0.8), (0.5, 0.5, 0.5)][rng.integers(2)]
    sheet = paint(fade * printed, paper, tint)
    return paint(drawing.cover, sheet, pen_color(rng))


@style
def ruled_paper(digits, rng):
    drawing = draw(by_hand(digits[0], rng), canvas(rng, 200), rng, size=(0.35, 0.7))
    scene = on_ruled_paper(drawing, rng, is_squared=False)
    return jpeg(photograph(scene, 1, rng, noise=0.01), 85), ".jpg"


@style
def squared_paper(digits, rng):
    drawing = draw(by_hand(digits[0], rng), canvas(rng, 200), rng, size=(0.35, 0.7))
    scene = on_ruled_paper(drawing, rng, is_squared=True)
    return jpeg(photograph(scene, 1, rng, noise=0.01), 85), ".jpg"


# -- what else is in the picture -------------------------------------------------------------------
@style
def frame(digits, rng):
    """A box about the digit, as on a form, at the edge of the picture or within it."""
    shape = canvas(rng)
    H, W = shape
    drawing = draw(by_hand(digits[0], rng), shape, rng, size=(0.4, 0.62), wander=0.04)
    width = max(1, min(shape) * rng.uniform(0.006, 0.02))
    inset = min(shape) * rng.choice([0, rng.uniform(0.02, 0.1)])
    border = rectangle(shape, inset, inset, H - inset, W - inset, width)
    return png(paint(np.maximum(drawing.cover, border), WHITE, BLACK)), ".png"


@style
def neighbor_at_the_edge(digits, rng):
    """Part of the next digit, where one was cut out of a row."""
    shape = canvas(rng)
    drawing = draw(by_hand(digits[0], rng), shape, rng, size=(0.5, 0.7), wander=0.03)
    other = by_hand(digits[1], rng)
    beyond = drawing.side * rng.uniform(0.12, 0.3)
    row = drawing.center[0] + drawing.side * rng.uniform(-0.1, 0.1)
    column = rng.choice([-beyond, shape[1] + beyond])
    cut = place(other, shape, drawing.side, (row, column))
    return png(1 - np.maximum(drawing.cover, cut)), ".png"


@style
def labels_beside(digits, rng):
    """Small print in one corner or two, away from the digit."""
    shape = canvas(rng, 250)
    H, W = shape
    drawing = draw(by_hand(digits[0], rng), shape, rng, size=(0.45, 0.6), wander=0.03)
    height = drawing.side * rng.uniform(0.1, 0.16)
    cover = drawing.cover
    tops = rng.permutation([0.03 * H, H - 1.6 * height])[: rng.integers(1, 3)]
    for top in tops:
        text = LABELS[rng.integers(len(LABELS))]
        left = rng.choice([0.04 * W, W - text_width(text, height) - 0.04 * W])
        cover = np.maximum(cover, print_text(shape, text, height, top, left))
    return png(1 - cover), ".png"


# -- light and cameras -----------------------------------------------------------------------------
def pen_on_paper(digit, rng, smallest=300):
    """Return a scene: a pen on white paper."""
    drawing = draw(by_hand(digit, rng), canvas(rng, smallest), rng, turn=rng.uniform(-5, 5))
    return paint(drawing.cover, off_white(rng), pen_color(rng))


@style
def light_from_one_side(digits, rng):
    scene = pen_on_paper(digits[0], rng)
    return jpeg(photograph(scene, slope(scene.shape[:2], rng), rng, noise=0.01), 85), ".jpg"


@style
def soft_shadow(digits, rng):
    scene = pen_on_paper(digits[0], rng)
    return jpeg(photograph(scene, shadow(scene.shape[:2], rng), rng, noise=0.01), 85), ".jpg"


@style
def dark_corners(digits, rng):
    """The vignette of a lens."""
    scene = pen_on_paper(digits[0], rng)
    return jpeg(photograph(scene, vignette(scene.shape[:2], rng), rng, noise=0.01), 85), ".jpg"


@style
def dim(digits, rng):
    """A photograph in the evening: a quarter of the light."""
    scene = pen_on_paper(digits[0], rng)
    light = rng.uniform(0.15, 0.35) * (0.5 + 0.5 * vignette(scene.shape[:2], rng))
    return jpeg(photograph(scene, light, rng, noise=0.015), 80), ".jpg"


@style
def noise_and_jpeg_30(digits, rng):
    scene = pen_on_paper(digits[0], rng, smallest=150)
    return jpeg(photograph(scene, 1, rng, noise=rng.uniform(0.04, 0.1)), 30), ".jpg"


def photographed(scene, rng):
    """Return a usual photograph: uneven light, a little blur and noise."""
    shape = scene.shape[:2]
    light = rng.uniform(0.5, 1) * shadow(shape, rng) * (0.4 + 0.6 * vignette(shape, rng))
    blur = max(shape) / 1000 * rng.uniform(0.3, 1.5)
    return photograph(scene, light, rng, noise=rng.uniform(0.01, 0.03), blur=blur)


@style
def photo(digits, rng):
    """A pen on white paper by a telephone: shadow, vignette, noise and JPEG at once."""
    scene = pen_on_paper(digits[0], rng)
    return jpeg(photographed(scene, rng), int(rng.integers(40, 76))), ".jpg"


@line_style
def photo_of_pencil(digits, rng):
    scene = pencil_scene(digits[0], canvas(rng, 300), rng)
    return jpeg(photographed(scene, rng), int(rng.integers(50, 81))), ".jpg"


@style
def photo_of_squared_paper(digits, rng):
    drawing = draw(
        by_hand(digits[0], rng),
        canvas(rng, 300),
        rng,
        size=(0.35, 0.7),
        turn=rng.uniform(-5, 5),
    )
    scene = on_ruled_paper(drawing, rng, is_squared=True)
    return jpeg(photographed(scene, rng), int(rng.integers(50, 81))), ".jpg"


@style
def rotated_by_exif(digits, rng):
    """The camera was held on its side, and its file says so."""
    scene = photograph(pen_on_paper(digits[0], rng), 1, rng, noise=0.01)
    tag = int(rng.choice(list(ORIENTATIONS)))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = tag
    stored = to_picture(scene).transpose(ORIENTATIONS[tag])
    return encode(stored, "JPEG", quality=85, exif=exif), ".jpg"


# -- formats of files ------------------------------------------------------------------------------
@style
def white_on_black(digits, rng):
    return png(draw(outline(digits[0]), canvas(rng), rng).cover), ".png"


@style
def white_on_transparent(digits, rng):
    cover = draw(by_hand(digits[0], rng), canvas(rng), rng).cover
    return transparent_png(cover, ink=255), ".png"


@style
def black_on_transparent(digits, rng):
    cover = draw(by_hand(digits[0], rng), canvas(rng), rng).cover
    return transparent_png(cover, ink=0), ".png"


@style
def scan_12_bit(digits, rng):
    """Values of 12 bits in a PNG file of 16, as some scanners and cameras write them."""
    drawing = draw(by_hand(digits[0], rng), canvas(rng), rng)
    image = photograph(paint(drawing.cover, (0.92,) * 3, (0.1,) * 3), 1, rng, noise=0.01)
    return png_16_bits(4095 * image[..., 0]), ".png"


@style
def one_bit(digits, rng):
    picture = to_picture(black_on_white(draw(by_hand(digits[0], rng), canvas(rng), rng)))
    return encode(picture.convert("1", dither=Image.Dither.NONE), "PNG"), ".png"


@style
def palette(digits, rng):
    picture = to_picture(pen_on_paper(digits[0], rng, smallest=MIN_SIDE))
    return encode(picture.quantize(int(rng.integers(4, 33))), "PNG"), ".png"


@style
def cmyk_jpeg(digits, rng):
    picture = to_picture(pen_on_paper(digits[0], rng, smallest=MIN_SIDE))
    return encode(picture.convert("CMYK"), "JPEG", quality=80), ".jpg"


@style
def gif(digits, rng):
    picture = to_picture(pen_on_paper(digits[0], rng, smallest=MIN_SIDE))
    return encode(picture.quantize(64), "GIF"), ".gif"


@style
def tiff(digits, rng):
    """A scan in grey."""
    scene = photograph(pen_on_paper(digits[0], rng, smallest=MIN_SIDE), 1, rng, noise=0.008)
    return encode(to_picture(scene).convert("L"), "TIFF"), ".tif"


@style
def webp(digits, rng):
    picture = to_picture(pen_on_paper(digits[0], rng, smallest=MIN_SIDE))
    return encode(picture, "WEBP", quality=int(rng.integers(30, 81)), method=2), ".webp"
