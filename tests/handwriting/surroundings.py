"""Styles that differ by what is around the digit: nothing, or more than the paper."""

import numpy as np
from PIL import Image, ImageDraw

from tests.handwriting.files import jpeg, png
from tests.handwriting.light import BLACK, WHITE, Color, grain, off_white, paint, pen_color
from tests.handwriting.strokes import place
from tests.handwriting.styles import (
    MAX_SIDE,
    MIN_SIDE,
    Rng,
    by_hand,
    canvas,
    draw,
    felt_pen,
    line_style,
    photographed,
    style,
)

MAX_MARGIN = 0.05  # of a digit that was cut out, of its longer side
DESKS: list[Color] = [(0.25, 0.16, 0.1), (0.1, 0.1, 0.1), (0.4, 0.3, 0.2), (0.3, 0.3, 0.33)]


def cut_out_digit(strokes: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a canvas (H, W) that ends at the ink or just beside it."""
    side = np.exp(rng.uniform(np.log(150), np.log(0.9 * MAX_SIDE)))
    n = round(1.2 * side)
    cover = place(strokes, (n, n), side, (n / 2, n / 2))
    for axis in (0, 1):
        ink = np.flatnonzero((cover > 0.5).any(axis=1 - axis))
        missing = max(0, MIN_SIDE - len(ink)) / 2  # of an upright 1
        before, after = (round(max(missing, side * rng.uniform(0, MAX_MARGIN))) for _ in range(2))
        indices = np.arange(max(0, ink[0] - before), min(n, ink[-1] + 1 + after))
        cover = cover.take(indices, axis)
    return cover


@line_style
def cut_out(digits, rng):
    """A scan cut out around the digit, which ink of a felt pen fills by up to a half."""
    strokes = by_hand(digits[0], rng) if rng.random() < 0.3 else felt_pen(digits[0], rng)
    return png(1 - cut_out_digit(strokes, rng)), ".png"


@line_style
def photo_cut_out(digits, rng):
    cover = cut_out_digit(felt_pen(digits[0], rng), rng)
    scene = paint(cover, off_white(rng), pen_color(rng))
    return jpeg(photographed(scene, rng), int(rng.integers(50, 81))), ".jpg"


@style
def sheet_on_a_desk(digits, rng):
    """A photograph that shows the desk beside some or all sides of the sheet."""
    shape = canvas(rng, 300)
    H, W = shape
    turn = rng.uniform(-8, 8)
    top, left, bottom, right = (rng.uniform(-0.1, 0.14) for _ in range(4))
    box = np.array([[top, left], [top, 1 - right], [1 - bottom, 1 - right], [1 - bottom, left]])
    corners = box * shape
    center = corners.mean(axis=0)
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = (corners - center) @ rotation.T + center
    sheet = Image.new("L", (W, H), 0)
    ImageDraw.Draw(sheet).polygon([(x, y) for y, x in corners], fill=255)
    wood = np.float32(DESKS[rng.integers(len(DESKS))])
    desk = np.clip(wood + 0.02 * grain(shape, max(shape) / 30, rng)[..., np.newaxis], 0, 1)
    paper = paint(np.asarray(sheet, np.float32) / 255, desk, off_white(rng))
    side = rng.uniform(0.35, 0.6) * min(shape)
    cover = place(by_hand(digits[0], rng), shape, side, tuple(center), turn=turn)
    scene = photographed(paint(cover, paper, pen_color(rng)), rng)
    return jpeg(scene, int(rng.integers(50, 81))), ".jpg"


@style
def canvas_in_a_window(digits, rng):
    """A screenshot of a canvas with the page around it, which has another brightness."""
    shape = canvas(rng, MIN_SIDE, round(0.75 * MAX_SIDE))
    is_dark = int(rng.integers(2))
    grounds = WHITE, BLACK
    drawing = draw(by_hand(digits[0], rng), shape, rng, size=(0.5, 0.8))
    image = paint(drawing.cover, grounds[is_dark], grounds[1 - is_dark])
    page = (rng.uniform(0.2, 0.94), rng.uniform(0.3, 1))[is_dark]
    margin = round(min(shape) * rng.uniform(0.03, 0.15))
    around = ((margin, margin), (margin, margin), (0, 0))
    return png(np.pad(image, around, constant_values=page)), ".png"
