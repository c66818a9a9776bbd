"""Handwriting on paper, step by step, and as a whole."""

import numpy as np
import pytest

from training.input_stats import Spread
from training.preprocessing.components import (
    choose_main,
    drop_cut_off,
    group_shapes,
    label_components,
    remove_frames,
)
from training.preprocessing.ink import Ink, draw_shape, find_shapes, read_ink
from training.preprocessing.ink_stats import InkStats, measure_ink
from training.preprocessing.lines import find_lines, remove_lines
from training.preprocessing.paper import (
    even_light,
    has_light_ink,
    map_ink,
    noise_level,
    otsu_threshold,
    rough_paper,
    smooth_paper,
)
from training.preprocessing.placement import crop_to_ink, place
from training.preprocessing.strokes import fill_strokes, resize_strokes, stroke_width, thicken


def constant(value):
    return Spread(value, value, value)


INK = InkStats(
    0, 255, constant(20), constant(0.5), constant(0.5), constant(2.2), constant(1), constant(0.8)
)
SIZE = (28, 28)
SIDE = 256  # of pictures


def ring(row=128.0, column=128.0, radius=60.0, width=10.0, shape=(SIDE, SIDE)):
    """Return how much of each pixel a circle covers that was drawn with a pen of a width."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distance = np.abs(np.hypot(rows - row, columns - column) - radius)
    return np.float32(np.clip(width / 2 + 0.5 - distance, 0, 1))


def bar(top, bottom, left, right, shape=(SIDE, SIDE)):
    strokes = np.zeros(shape, np.float32)
    strokes[top:bottom, left:right] = 1
    return strokes


def on_paper(strokes, paper=0.9, ink=0.2):
    return np.float32(paper + (ink - paper) * strokes)


def read(gray):
    return read_ink(np.float32(gray), INK, SIZE)


@pytest.fixture(scope="module")
def ring_image():
    return read(on_paper(ring())).image


def check_ring(gray, ring_image, tolerance=12):
    """Check that a picture is read as the ring is, within a mean difference of its pixels."""
    reading = read(gray)
    assert reading.n_shapes == 1
    assert not reading.fills_picture
    assert np.abs(reading.image - ring_image).mean() < tolerance


# -- paper ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("light", [False, True])
def test_polarity_is_that_of_the_strokes(light):
    gray = on_paper(ring(), 0.3, 0.8) if light else on_paper(ring())
    assert has_light_ink(gray) == light


def test_polarity_is_right_with_a_frame_and_thick_strokes():
    frame = 1 - bar(4, SIDE - 4, 4, SIDE - 4)
    assert not has_light_ink(on_paper(np.maximum(ring(width=40), frame)))


def test_polarity_is_right_where_strokes_reach_the_edges():
    assert not has_light_ink(on_paper(ring(128, 100, 115, 45, (256, 200))))


def test_polarity_is_right_where_thick_strokes_enclose_paper():
    eight = np.maximum(ring(72, 128, 40, 40), ring(180, 128, 45, 40))
    assert not has_light_ink(on_paper(eight))
    assert has_light_ink(1 - on_paper(eight))


@pytest.mark.parametrize("light", [False, True])
def test_polarity_is_that_of_the_outline_where_strokes_and_paper_are_equally_wide(light):
    shape = 204, 124
    eight = np.maximum(ring(61, 62, 40, 42, shape), ring(143, 62, 40, 42, shape))
    gray = np.pad(on_paper(eight, 0.95, 0.05), 6, constant_values=0.95)
    assert has_light_ink(1 - gray if light else gray) == light


def test_lamp_in_the_middle_is_no_light_ink():
    """The outline is dark, but not black."""
    row, column = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = 0.6 + 0.25 * np.exp(-(row**2 + column**2) / 0.3)
    assert not has_light_ink(np.float32(light * on_paper(ring(radius=50), 1, 0.55)))


def test_rough_paper_follows_the_edge_of_a_shadow_and_not_strokes():
    light = np.ones((SIDE, SIDE), np.float32)
    light[:, 100:] = 0.5
    paper = rough_paper(on_paper(ring()) * light)
    np.testing.assert_allclose(paper[:, :80], 0.9, atol=0.03)
    np.testing.assert_allclose(paper[:, 120:], 0.45, atol=0.03)


def test_even_light_is_that_of_the_paper():
    row, column = np.mgrid[-1:1:40j, -1:1:30j].astype(np.float32)
    light = 0.7 + 0.1 * row - 0.1 * column + 0.05 * row * column - 0.1 * row**2
    strokes = bar(10, 14, 5, 20, (40, 30))
    np.testing.assert_allclose(even_light(light * (1 - 0.8 * strokes)), light, atol=0.02)


def test_smooth_paper_is_that_between_the_strokes():
    light = np.linspace(1, 0.4, SIDE, dtype=np.float32) * np.ones((SIDE, 1), np.float32)
    gray = on_paper(ring()) * light
    paper = smooth_paper(gray, 1.1 * light, ring() > 0)
    np.testing.assert_allclose(paper, 0.9 * light, atol=0.02)


def test_smooth_paper_is_the_rough_one_where_all_may_be_ink():
    rough = np.full((40, 60), 0.3, np.float32)
    paper = smooth_paper(rough + 0.1, rough, np.ones((40, 60), bool))
    np.testing.assert_allclose(paper, rough)


def test_strength_is_the_same_in_light_and_shadow():
    light = np.linspace(1, 0.4, SIDE, dtype=np.float32) * np.ones((SIDE, 1), np.float32)
    strength, threshold = map_ink(on_paper(ring()) * light)
    left, right = strength[128, 68], strength[128, 188]
    assert left == pytest.approx(7 / 9, abs=0.06)
    assert right == pytest.approx(left, abs=0.06)
    assert 0.1 < threshold < 0.6


def test_noise_level_is_the_deviation_beside_ink():
    rng = np.random.default_rng(0)
    difference = rng.normal(0, 0.05, (SIDE, SIDE)) + 0.7 * ring()
    assert noise_level(difference) == pytest.approx(0.05, rel=0.15)


def test_otsu_threshold_separates_two_classes_of_unequal_size():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.05, 9000), rng.normal(1, 0.05, 1000)])
    assert 0.15 < otsu_threshold(values) < 0.8


def test_otsu_threshold_of_one_value():
    assert otsu_threshold(np.full(10, 0.25, np.float32)) == pytest.approx(0.25, abs=1e-6)


def test_ink_over_most_of_a_picture_is_found():
    ink = ring(75, 75, 45, 48, (150, 150))
    assert (ink > 0.5).mean() > 0.5
    strength, threshold = map_ink(on_paper(ink))
    found = strength > threshold
    assert (found == (ink > 0.5)).mean() > 0.95


# -- frames and lines -----------------------------------------------------------------------------
def test_frame_about_a_character_is_removed():
    frame = bar(20, 236, 10, 246) - bar(24, 232, 14, 242)
    mask = remove_frames((ring() + frame) > 0.5)
    np.testing.assert_array_equal(mask, ring() > 0.5)


def test_rectangle_with_nothing_in_it_is_kept():
    rectangle = (bar(60, 190, 60, 190) - bar(64, 186, 64, 186)) > 0
    np.testing.assert_array_equal(remove_frames(rectangle), rectangle)


def ruled(slope=0.03, spacing=60, thickness=3):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows + slope * (columns - SIDE / 2) + spacing / 2) % spacing < thickness


def test_tilted_lines_are_found():
    lines = find_lines(ruled(slope=-0.03))
    assert len(lines) == 4
    for top, slope, thickness in lines:
        assert abs(top % 60 - 30) < 1.6
        assert slope == pytest.approx(0.03, abs=0.006)
        assert thickness == 3


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_lines_are_removed_and_strokes_that_cross_them_are_mended(transposed, strength):
    strokes = ring()
    lines = ruled().T if transposed else ruled()
    picture = np.maximum(strokes, np.float32(strength) * lines)
    mask = remove_lines(picture > 0.1, picture, 0.2)
    expected = strokes > 0.1
    assert (mask & ~expected).sum() < 0.05 * expected.sum()
    # Where strokes run along a line of the same strength, they cannot be told from it.
    assert (expected & ~mask).sum() < 0.1 * expected.sum()
    assert label_components(mask, picture)[1][0].area > 0.8 * expected.sum()


@pytest.mark.parametrize(("left", "right"), [(40, 216), (0, 216), (40, SIDE)])
def test_strokes_that_end_in_the_picture_are_no_lines(left, right):
    seven = np.maximum(bar(60, 63, left, right), bar(60, 220, right - 3, right))
    seven[100, [0, -1]] = 1  # ink at both ends, as a line has
    np.testing.assert_array_equal(remove_lines(seven > 0, seven, 0.2), seven > 0)


# -- components -----------------------------------------------------------------------------------
def characters(strokes):
    _, components = label_components(strokes > 0.5, strokes)
    return group_shapes(drop_cut_off(components), max(strokes.shape))


def test_components_have_their_box_area_mass_and_contact_with_the_edge():
    _, (large, small) = label_components(
        bar(10, 30, 20, 80) + bar(0, 10, 200, 206) > 0, bar(0, 256, 0, 256) / 2
    )
    assert (large.top, large.bottom, large.left, large.right) == (10, 30, 20, 80)
    assert (large.area, large.mass, large.edge) == (1200, 600, 0)
    assert (large.height, large.width, large.side) == (20, 60, 60)
    assert small.edge == pytest.approx(6 / 1024)


def test_the_bar_of_a_five_belongs_to_it():
    body, top = ring(150, 120, 50), bar(60, 70, 110, 190)
    (five,) = characters(np.maximum(body, top))
    assert (five.top, five.right) == (60, 190)


def test_parts_above_one_another_are_one_character():
    (eight,) = characters(np.maximum(ring(80, 128, 35), ring(170, 128, 40)))
    assert (eight.top, eight.bottom) == (41, 215)


@pytest.mark.parametrize(
    "beside",
    [
        bar(100, 140, 250, 256),  # near, and cut off
        bar(20, 40, 20, 32),  # a small label
        ring(128, 40, 40),  # of like size
    ],
)
def test_what_lies_beside_a_character_is_no_part_of_it(beside):
    found = characters(np.maximum(ring(128, 185, 50), beside))
    main = choose_main(found, (SIDE, SIDE))
    assert main.area == (ring(128, 185, 50) > 0.5).sum()


def test_the_main_character_is_whole():
    whole = ring(128, 50, 35)
    main = choose_main(characters(np.maximum(whole, ring(128, 225, 60))), (SIDE, SIDE))
    assert main.area == (whole > 0.5).sum()


def test_crop_has_the_ink_of_one_shape():
    strokes = np.maximum(bar(10, 30, 10, 50), bar(40, 60, 40, 80))
    labels, (first, _) = label_components(strokes > 0, strokes)
    crop = Ink(strokes, labels, []).crop(first._replace(top=5, bottom=60, left=5, right=80))
    assert crop.sum() == pytest.approx(first.area)


def test_what_touches_much_of_the_edge_is_dropped():
    assert len(characters(np.maximum(ring(), bar(0, 40, 0, SIDE)))) == 1


def test_specks_are_no_characters():
    assert characters(bar(100, 105, 100, 105)) == []


# -- strokes --------------------------------------------------------------------------------------
def test_fill_strokes_gives_most_ink_full_strength():
    filled = fill_strokes(0.3 * ring(), ring() > 0.5)
    assert np.median(filled[ring() > 0.5]) == 1
    assert filled.max() == 1


@pytest.mark.parametrize("shape", [(100, 40), (40, 100), (3, 200)])
def test_resized_strokes_have_the_longer_side(shape):
    assert max(resize_strokes(np.ones(shape, np.float32), 80).shape) == 80


@pytest.mark.parametrize("growth", [0.5, 1, 2.5, 6])
def test_thickened_strokes_are_wider_by_the_growth_at_each_side(growth):
    strokes = bar(0, 80, 38, 42, (80, 80))
    wide = thicken(strokes, growth)
    middle = wide[wide.shape[0] // 2]
    assert middle.sum() == pytest.approx(4 + 2 * growth, abs=0.6 if growth >= 1 else 1)


# -- placement ------------------------------------------------------------------------------------
def center_of_mass(image):
    return [
        image.sum(axis=1 - axis) @ np.arange(n) / image.sum() - (n - 1) / 2
        for axis, n in enumerate(image.shape)
    ]


def test_ink_is_placed_with_the_size_and_the_center_of_training():
    placed = place(ring(30, 30, 27, 5, (61, 61)), INK, SIZE)
    np.testing.assert_allclose(center_of_mass(placed), 0.5, atol=0.05)
    rows, columns = np.nonzero(placed > 0.2)
    assert np.ptp(rows) + 1 in (20, 21)
    assert np.ptp(columns) + 1 in (20, 21)


@pytest.mark.parametrize("size", [(28, 28), (20, 20), (16, 40), (64, 64), (5, 5)])
@pytest.mark.parametrize("shape", [(60, 60), (80, 3), (3, 80), (1, 1)])
def test_no_ink_is_placed_outside(size, shape):
    strokes = np.full(shape, 0.1, np.float32)
    strokes[-1, -1] = 1  # the center of mass is at one end
    strokes[: -(-shape[0] // 4), : -(-shape[1] // 4)] = 1
    placed = place(strokes, INK, size)
    scale = min(20 / max(shape), size[0] / shape[0], size[1] / shape[1])
    assert placed.shape == size
    assert placed.sum() == pytest.approx(strokes.sum() * scale**2, rel=0.01)


def test_crop_to_ink():
    assert crop_to_ink(bar(10, 30, 20, 80)).shape == (20, 60)


# -- whole pictures -------------------------------------------------------------------------------
def test_ink_on_white_paper_has_the_form_of_the_training_images(ring_image):
    assert ring_image.shape == SIZE
    assert ring_image.dtype == np.float32
    assert ring_image.min() == 0
    assert ring_image.max() == pytest.approx(255, abs=1)
    stats = measure_ink(np.repeat(ring_image[np.newaxis, np.newaxis], 3, axis=0))
    assert stats.side.median in (20, 21)
    assert stats.row.median == pytest.approx(0.5, abs=0.1)
    assert stats.stroke_width.median == pytest.approx(2.2, abs=0.35)


@pytest.mark.parametrize("width", [2, 4, 8, 12])
def test_strokes_of_every_width_become_those_of_training(width, ring_image):
    check_ring(on_paper(ring(width=width)), ring_image)


@pytest.mark.parametrize(
    ("row", "column", "radius"), [(60, 180, 45), (128, 128, 20), (130, 126, 110), (40, 40, 25)]
)
def test_size_and_place_do_not_matter(row, column, radius, ring_image):
    strokes = ring(row, column, radius, width=radius / 6)
    check_ring(on_paper(strokes), ring_image)


@pytest.mark.parametrize(("paper", "ink"), [(1, 0), (0, 1), (0.2, 0.05), (0.3, 0.7), (0.8, 0.65)])
def test_paper_and_ink_of_every_brightness(paper, ink, ring_image):
    check_ring(on_paper(ring(), paper, ink), ring_image)


def test_shadow_and_noise_vanish(ring_image):
    rng = np.random.default_rng(0)
    light = 1 - 0.5 / (1 + np.exp((np.arange(SIDE) - 120) / 6))
    check_ring(on_paper(ring()) * light + rng.normal(0, 0.03, (SIDE, SIDE)), ring_image, 18)


def test_small_pictures_are_read(ring_image):
    check_ring(on_paper(ring(14, 14, 8, 2, (28, 28))), ring_image)


@pytest.mark.parametrize("shape", [(256, 100), (100, 256), (60, 240)])
def test_pictures_of_other_proportions_are_read(shape, ring_image):
    strokes = ring(shape[0] / 2, shape[1] / 2, 24, 4, shape)
    check_ring(on_paper(strokes), ring_image)


def test_frame_lines_and_a_cut_neighbor_are_not_read(ring_image):
    frame = 1 - bar(3, SIDE - 3, 3, SIDE - 3)
    check_ring(on_paper(np.maximum(ring(), frame)), ring_image)
    check_ring(on_paper(np.maximum(ring(), 0.4 * ruled(spacing=50))), ring_image, 18)
    check_ring(on_paper(np.maximum(ring(), ring(128, 290))), ring_image)


def test_character_that_touches_the_edge_is_read():
    reading = read(on_paper(ring(60, 128, 60)))
    assert reading.image.max() > 200
    assert reading.n_shapes == 1


@pytest.mark.parametrize("noise", [0, 0.03])
def test_blank_paper(noise):
    rng = np.random.default_rng(0)
    light = np.linspace(1, 0.5, SIDE)
    reading = read(0.8 * light + rng.normal(0, noise, (SIDE, SIDE)))
    assert reading.image is None
    assert reading.n_shapes == 0


def test_edge_of_a_shadow_is_no_ink():
    way = np.linspace(-1, 1, SIDE)
    shadow = 1 - 0.4 / (1 + np.exp(-way / 0.06))
    assert read(0.8 * np.tile(shadow, (SIDE, 1))).image is None
    curved = np.hypot(*np.meshgrid(way, way)) - 0.5
    light = 1 - 0.4 / (1 + np.exp(-curved / 0.06))
    assert read(0.8 * light).image is None
    faint = on_paper(ring(), ink=0.75)  # as pale, with a sharp outline
    assert read(faint).image is not None


def test_separate_shapes_of_like_size_are_counted():
    strokes = np.maximum(ring(128, 60, 30), ring(128, 180, 35))
    assert read(on_paper(strokes)).n_shapes == 2
    assert read(on_paper(np.maximum(strokes, ring(40, 60, 8)))).n_shapes == 2


def test_ink_that_fills_the_picture_is_reported():
    assert read(on_paper(ring(128, 128, 80, 80))).fills_picture
    assert not read(on_paper(ring(128, 128, 105, 40))).fills_picture  # a thick digit cut out
    assert not read(on_paper(ring())).fills_picture


def test_shapes_are_found_from_left_to_right(ring_image):
    strokes = np.maximum(ring(128, 180, 30, 5), ring(120, 60, 30, 5))
    found = find_shapes(on_paper(strokes))
    assert [shape.left for shape in found.shapes] == sorted(shape.left for shape in found.shapes)
    for shape in found.shapes:
        image = draw_shape(found.crop(shape), INK, SIZE)
        assert np.abs(image - ring_image).mean() < 12


def test_stroke_width_of_the_ring():
    assert stroke_width(ring(width=9)) == pytest.approx(9, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (2, 3), (28, 28)])
@pytest.mark.parametrize("level", [0, 0.5, 1])
def test_pictures_of_any_shape_are_read_or_blank(shape, level):
    assert read(np.full(shape, level)).image is None
    noise = np.random.default_rng(0).random(shape)
    image = read(noise).image
    assert image is None or np.isfinite(image).all()


def test_the_picture_is_not_changed():
    gray = on_paper(ring())
    before = gray.copy()
    read_ink(gray, INK, SIZE)
    np.testing.assert_array_equal(gray, before)
