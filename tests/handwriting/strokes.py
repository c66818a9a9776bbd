"""Strokes of a digit of 28x28 pixels, enlarged smoothly and placed on a canvas of any size.

Strokes are a field of signed distances on a fine grid: how far each point is within the ink
(positive) or outside it (negative), in pixels of the digit. A field is smooth, so that its contour
at any scale shows no pixels of the digit.
"""

import numpy as np
from PIL import Image
from scipy import ndimage, special

FINE = 8  # points of the grid along a pixel of the digit
MARGIN = 4  # pixels around the digit
EDGE_LEVELS = (0.4, 0.3, 0.2)  # of the blurred digit: the first at which no stroke breaks
MIN_INK = 60  # pixels of a digit above this, of 255, belong to its strokes
CORNERS_TOUCH = np.ones((3, 3))
EXTENT = 20  # longer side of the ink of MNIST's digits, in pixels
OUTSIDE = -100.0
MIN_LINE_SHARE = 0.93  # of the ink that a pen covers, where its center lines are the whole digit
MIN_INK_SHARE = 0.04  # of all ink; smaller parts are specks


def outline(digit: np.ndarray, wider: float = 0.0) -> np.ndarray:
    """Return the strokes with the edge that they have in the digit.

    Parameters
    ----------
    digit : ndarray of uint8, shape (28, 28)
        Light ink on black.
    wider : float
        How far the edge is moved outwards, in pixels of the digit.

    Returns
    -------
    ndarray of float32, shape (288, 288)
    """
    mask = _fine_mask(digit)
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    distance = ndimage.gaussian_filter(inside - outside, 0.25 * FINE) / FINE
    return np.float32(distance + wider)


def pen(digit: np.ndarray, width: float) -> np.ndarray:
    """Return the strokes as a pen of one width draws them along their center lines.

    Parameters
    ----------
    digit : ndarray of uint8, shape (28, 28)
    width : float
        In pixels of the digit, whose ink is 20 pixels long.

    Returns
    -------
    ndarray of float32, shape (288, 288)
    """
    _, spine = _center_lines(digit)
    sigma = 2.0  # without the filter, the steps of the grid would show in a hairline
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(~spine), sigma)
    # The filter adds to the distance from a straight line, most on the line.
    true = np.linspace(0, 4 * sigma, 100)
    share = true / (sigma * np.sqrt(2))
    filtered = true * special.erf(share) + sigma * np.sqrt(2 / np.pi) * np.exp(-(share**2))
    is_near = distance < filtered[-1]
    distance[is_near] = np.interp(distance[is_near], filtered, true)
    return np.float32(width / 2 - distance / FINE)


def is_line_drawing(digit: np.ndarray) -> bool:
    """Return whether center lines show the whole digit: no loop of it is filled with ink."""
    mask, spine = _center_lines(digit)
    radius = np.median(ndimage.distance_transform_edt(mask)[spine])
    distance = ndimage.distance_transform_edt(~spine)
    return bool((distance[mask] <= 1.25 * radius).mean() >= MIN_LINE_SHARE)


def _center_lines(digit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ink of a digit, and its center lines."""
    mask = _fine_mask(digit)
    spine = np.zeros_like(mask)
    (box,) = ndimage.find_objects(mask.astype(int))  # the whole grid takes four times as long
    spine[box] = thin(mask[box])
    return mask, spine


def _fine_mask(digit: np.ndarray) -> np.ndarray:
    """Return where the ink is on the fine grid, without specks."""
    padded = np.pad(digit, MARGIN).astype(np.float32) / 255
    size = tuple(FINE * n for n in padded.shape[::-1])
    fine = np.asarray(Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC))
    smooth = ndimage.gaussian_filter(fine, 0.5 * FINE)
    n_parts = ndimage.label(digit > MIN_INK, CORNERS_TOUCH)[1]
    for level in EDGE_LEVELS:
        mask = smooth > level
        parts, n = ndimage.label(mask, CORNERS_TOUCH)
        if n <= n_parts:
            break
    areas = np.bincount(parts[mask])
    return (areas >= MIN_INK_SHARE * areas.sum())[parts] & mask


def thin(mask: np.ndarray) -> np.ndarray:
    """Return the center lines of a mask, by the method of Zhang and Suen (1984).

    T. Y. Zhang, C. Y. Suen, "A fast parallel algorithm for thinning digital patterns",
    Communications of the ACM 27 (3), 236-239.
    """
    spine = np.pad(mask, 1)
    is_changed = True
    while is_changed:
        is_changed = False
        for side in (0, 1):
            removed = _removable(spine, side)
            spine[1:-1, 1:-1] &= ~removed
            is_changed |= bool(removed.any())
    return spine[1:-1, 1:-1]


def _removable(spine: np.ndarray, side: int) -> np.ndarray:
    """Return the points that one half of a step of thinning removes."""
    h, w = spine.shape
    steps = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]  # from the north
    ring = np.stack([spine[1 + r : h - 1 + r, 1 + c : w - 1 + c] for r, c in steps])
    north, east, south, west = ring[0], ring[2], ring[4], ring[6]
    n_neighbors = ring.sum(axis=0)
    n_starts = (~ring & np.roll(ring, -1, axis=0)).sum(axis=0)
    if side == 0:
        is_rim = ~(north & east & south) & ~(east & south & west)
    else:
        is_rim = ~(north & east & west) & ~(north & south & west)
    is_curve = (n_neighbors >= 2) & (n_neighbors <= 6) & (n_starts == 1)
    return spine[1:-1, 1:-1] & is_curve & is_rim


def place(
    strokes: np.ndarray,
    shape: tuple[int, int],
    side: float,
    center: tuple[float, float],
    slant: float = 0.0,
    turn: float = 0.0,
) -> np.ndarray:
    """Return how much of each pixel of a canvas the ink of strokes covers.

    Parameters
    ----------
    strokes : ndarray
        Of `outline` or `pen`.
    shape : (H, W)
        Of the canvas.
    side : float
        Longer side of the ink's bounding box on the canvas, in pixels.
    center : (row, column)
        Of the bounding box on the canvas, in pixels.
    slant : float
        Angle in degrees by which upright strokes lean to the right.
    turn : float
        Angle in degrees by which the digit is rotated clockwise.

    Returns
    -------
    ndarray of float32, shape (H, W)
        From 0 to 1.
    """
    lean, angle = np.tan(np.deg2rad(slant)), np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1, -lean], [0, 1]])  # of (x, y)
    points = matrix @ (np.argwhere(strokes > -0.05)[:, ::-1].T + 0.5)
    low, high = points.min(axis=1), points.max(axis=1)
    scale = side / max(high - low + 1)
    back = np.linalg.inv(matrix * scale)
    start = np.linalg.inv(matrix) @ ((low + high) / 2) - back @ np.array(center[::-1])
    data = (back[0, 0], back[0, 1], start[0], back[1, 0], back[1, 1], start[1])
    distance = np.asarray(
        Image.fromarray(strokes).transform(
            shape[::-1],
            Image.Transform.AFFINE,
            data,
            Image.Resampling.BICUBIC,
            fillcolor=OUTSIDE,
        )
    )
    return np.clip(distance * np.float32(FINE * scale) + 0.5, 0, 1)
