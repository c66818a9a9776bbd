"""Remove ruled and squared lines, which reach from one edge of a picture to the other."""

import numpy as np
from scipy import ndimage

MAX_SLOPE, N_SLOPES = 0.08, 33  # lines tilted by up to 4.5 degrees
# Share of the columns in which the upper edge of a line is seen. On paper with dark squares, 17 of
# 20 digits are read with 0.7 and all with 0.45 to 0.55: a digit hides much of the lines.
MIN_COVER = 0.5
MAX_THICKNESS = 0.03  # of the picture's longer side
MIN_BOX_SIDE = 12  # pixels of a box of a form
BOX_BAND = 0.1  # of its height and width, in which its sides lie
MIN_BOX_COVER = 0.9  # share of the length of a side that has ink
END = 0.1  # a line is seen in the first and the last tenth of the columns


def remove_lines(mask: np.ndarray, strength: np.ndarray, threshold: float) -> np.ndarray:
    """Return a mask of ink without the lines of ruled or squared paper.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
        Where there is ink.
    strength : ndarray of float32, shape (h, w)
    threshold : float
        Ink that is stronger by this much than the line is kept on it.

    Returns
    -------
    ndarray of bool, shape (h, w)
        Strokes that cross a line are mended.
    """
    across, n_across = _on_lines(mask, strength, threshold)
    upright, n_upright = _on_lines(mask.T, strength.T, threshold)
    if not n_across and not n_upright:
        return mask
    rest = mask & ~across & ~upright.T
    mended = across & _fill_downwards(rest, n_across)
    mended |= (upright & _fill_downwards(rest.T, n_upright)).T
    return rest | (mended & mask)


def remove_boxes(mask: np.ndarray, strength: np.ndarray, threshold: float) -> np.ndarray:
    """Return a mask of ink without the boxes of a form, and the lines between them.

    A connected component whose four sides are straight lines is a box. What touches it from inside
    stays.

    Parameters
    ----------
    mask, strength, threshold
        As in `remove_lines`.
    """
    mask = mask.copy()
    for box in ndimage.find_objects(ndimage.label(mask, np.ones((3, 3)))[0]):
        if is_box(mask[box]):
            mask[box] = remove_lines(mask[box], strength[box], threshold)
    return mask


def is_box(mask: np.ndarray) -> bool:
    """Return whether straight lines go along the four sides of a mask."""
    if min(mask.shape) < MIN_BOX_SIDE:
        return False
    for turned in (mask, mask.T):
        height = len(turned)
        band = max(3, round(BOX_BAND * height))
        if any(edge.any(axis=0).mean() < MIN_BOX_COVER for edge in (turned[:band], turned[-band:])):
            return False  # this is quick, and true of nearly all characters
        middles = [top for top, _, _ in find_lines(turned)]
        if not middles or min(middles) > band or max(middles) < height - 1 - 2 * band:
            return False
    return True


def _on_lines(mask: np.ndarray, strength: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """Return where lines are that reach from left to right, and the rows of the thickest."""
    h, w = mask.shape
    on_lines = np.zeros((h, w), bool)
    end = max(1, int(END * w))
    if not (mask[:, :end].any() and mask[:, -end:].any()):
        return on_lines, 0
    lines = find_lines(mask)
    rows, columns = np.arange(h)[:, np.newaxis], np.arange(w) - w / 2
    for top, slope, thickness in lines:
        depth = rows - (top + slope * columns)
        on_line = (depth > -1.5) & (depth < thickness + 0.5)
        # The edges of a line are weaker than its middle, of which each column has one pixel.
        level = np.median(np.where(on_line & mask, strength, 0).max(axis=0))
        on_lines |= on_line & (strength < level + threshold)
    return on_lines, max((thickness for _, _, thickness in lines), default=0)


def _fill_downwards(mask: np.ndarray, n_rows: int) -> np.ndarray:
    """Return a mask with gaps of up to so many rows filled between what is above and below."""
    n_steps = n_rows + 3
    return _smear(mask, n_steps) & _smear(mask[::-1], n_steps)[::-1]


def find_lines(mask: np.ndarray) -> list[tuple[float, float, int]]:
    """Return the lines that cross a mask from its left to its right edge.

    The upper edges of all ink are counted along straight lines (a Hough transform of few pixels).

    Returns
    -------
    list of (top, slope, thickness)
        The upper edge in the middle column, its slope, and the rows that the line is thick.
    """
    h, w = mask.shape
    edges = mask.copy()
    edges[1:] &= ~mask[:-1]
    ys, xs = np.nonzero(edges)
    bottoms = _run_lengths(mask)[ys, xs]
    lines = []
    max_thickness = max(4, round(MAX_THICKNESS * max(h, w)))
    thin = bottoms <= max_thickness
    ys, xs, lengths = ys[thin], xs[thin], bottoms[thin]
    margin = int(MAX_SLOPE * w / 2) + 2
    # Of slopes that explain a line equally well, the first is found: the least.
    slopes = np.array(sorted(np.linspace(-MAX_SLOPE, MAX_SLOPE, N_SLOPES), key=abs))
    counts = np.empty((N_SLOPES, h + 2 * margin))
    for index, slope in enumerate(slopes):
        offsets = np.rint(ys - slope * (xs - w / 2)).astype(np.intp) + margin
        counts[index] = np.bincount(offsets, minlength=h + 2 * margin)
    # Of three rows that are together in equally many columns, the middle one is found.
    counts[:, 1:-1] = counts[:, :-2] + counts[:, 1:-1] * (1 + 1e-6) + counts[:, 2:]
    while counts.max() >= MIN_COVER * w:
        k, offset = map(int, np.unravel_index(counts.argmax(), counts.shape))
        top, slope = float(offset - margin), float(slopes[k])
        near = np.abs(ys - slope * (xs - w / 2) - top) < 1.6
        counts[:, max(0, offset - 4) : offset + 5] = 0
        seen = np.unique(xs[near])
        if len(seen) >= MIN_COVER * w and seen[0] < END * w and seen[-1] >= (1 - END) * w:
            lines.append((top, slope, int(np.percentile(lengths[near], 75))))
    return lines


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """Return for each pixel how many pixels of the mask follow without a gap, downwards."""
    lengths = np.zeros(mask.shape, np.int32)
    below = np.zeros(mask.shape[1], np.int32)
    for row in range(len(mask) - 1, -1, -1):
        below = (below + 1) * mask[row]
        lengths[row] = below
    return lengths


def _smear(mask: np.ndarray, n_steps: int) -> np.ndarray:
    """Return a mask extended downwards by some pixels, and sideways by half as many."""
    smeared = mask.copy()
    for step in range(n_steps):
        smeared[1:] |= smeared[:-1]
        if step % 2:
            smeared[:, 1:] |= smeared[:, :-1]
            smeared[:, :-1] |= smeared[:, 1:]
    return smeared
