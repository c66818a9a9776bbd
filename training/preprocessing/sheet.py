"""Find the sheet of paper in a picture that shows what it lies on as well."""

import numpy as np
from scipy import ndimage

from training.preprocessing.paper import otsu_threshold, resize

COPY_SIDE = 64  # longer side of the copy of a picture in which the sheet is sought
MIN_CONTRAST = 0.15  # between what is around the sheet and the sheet
MIN_OUTLINE = 0.3  # share of the picture's outline that is not of the sheet
MIN_AREA, MAX_AREA = 0.2, 0.97  # of a sheet, of the picture
# Of the smallest rectangle around it: an ellipse, such as a filled 0, has 0.79 of it.
MIN_RECTANGLE = 0.87
MIN_INK, MAX_INK = 0.01, 0.5  # share of the sheet that is as dark, or light, as its surroundings
# Of the contrast of all light and dark pixels, that at the sheet's edge. Less is a lamp's light.
MIN_SHARPNESS = 0.7
N_ANGLES = 31  # in which a rectangle is sought, 3 degrees apart
INSET = 2  # pixels of the copy, at the sheet's edge, that are not read


def crop_to_sheet(gray: np.ndarray) -> np.ndarray:
    """Return the part of a picture that shows a sheet of paper, or a window with a drawing.

    A sheet is a rectangle, turned by any angle, that differs from all that is around it, and has
    something like it inside: ink. What is around the sheet in the rows and columns that it takes
    becomes as light as the nearest part of the sheet.

    Parameters
    ----------
    gray : ndarray of float32, shape (h, w)
        Brightness from 0 to 1.

    Returns
    -------
    ndarray of float32, shape (h', w')
        The picture itself if it shows no such rectangle, as most do.
    """
    copy = resize(gray, tuple(max(4, round(n * COPY_SIDE / max(gray.shape))) for n in gray.shape))
    sheet = find_sheet(copy)
    if sheet is None:
        return gray
    # The edge is found to a pixel of the copy, and antialiasing makes another pixel gray.
    inner = ndimage.binary_erosion(sheet, iterations=INSET)
    if not inner.any():
        return gray
    nearest = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
    paper = resize(copy[tuple(nearest)], gray.shape)
    weight = resize(np.float32(inner), gray.shape)
    filled = np.where(weight > 0.5, gray, paper)
    part = tuple(
        slice(int(np.flatnonzero(seen)[0]), int(np.flatnonzero(seen)[-1]) + 1)
        for seen in ((weight > 0.5).any(axis=1), (weight > 0.5).any(axis=0))
    )
    return np.ascontiguousarray(filled[part])


def find_sheet(gray: np.ndarray) -> np.ndarray | None:
    """Return where the sheet is in a small picture (h, w), as a mask, or None."""
    threshold = otsu_threshold(gray)
    sheet = _find_at(gray, threshold)
    dark = gray < threshold
    if sheet is None and _outline(dark).mean() >= MIN_OUTLINE:  # that of a shadow on the sheet
        sheet = _find_at(gray, otsu_threshold(gray[dark]))
    return sheet


def _find_at(gray: np.ndarray, threshold: float) -> np.ndarray | None:
    """Return where the sheet is, as a mask, if a threshold separates it from what is around it."""
    is_light = gray > threshold
    if not 0 < np.count_nonzero(is_light) < gray.size:
        return None
    contrast = float(gray[is_light].mean() - gray[~is_light].mean())
    if contrast < MIN_CONTRAST:
        return None
    for outer in (~is_light, is_light):
        # These are quick, and true of most pictures: ink covers less of them than a sheet.
        if _outline(outer).mean() < MIN_OUTLINE:
            continue
        if np.count_nonzero(~outer) < (1 - MAX_INK) * MIN_AREA * gray.size:
            continue
        sheet = _inside(outer)
        if sheet is None or not MIN_AREA * gray.size <= sheet.sum() <= MAX_AREA * gray.size:
            continue
        ink = float(outer[sheet].mean())
        if not MIN_INK <= ink <= MAX_INK or rectangularity(sheet) < MIN_RECTANGLE:
            continue
        if edge_contrast(gray, sheet) >= MIN_SHARPNESS * contrast:
            return sheet
    return None


def _outline(image: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of an image (h, w)."""
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def _inside(outer: np.ndarray) -> np.ndarray | None:
    """Return the largest part of a picture that a mask is around, with its holes, or None."""
    labels, _ = ndimage.label(outer)
    outside = np.unique(_outline(labels))
    rest, n = ndimage.label(~np.isin(labels, outside[outside > 0]))
    if not n:
        return None
    return rest == 1 + int(np.bincount(rest[rest > 0] - 1).argmax())


def rectangularity(mask: np.ndarray) -> float:
    """Return the area of a mask as a share of the smallest rectangle around it."""
    edge = mask & ~ndimage.binary_erosion(mask)
    points = np.argwhere(edge)
    angles = np.linspace(0, np.pi / 2, N_ANGLES)[:-1]
    axes = np.stack([np.cos(angles), np.sin(angles)]), np.stack([-np.sin(angles), np.cos(angles)])
    height, width = (np.ptp(points @ axis, axis=0) + 1 for axis in axes)
    return float(mask.sum() / (height * width).min())


def edge_contrast(gray: np.ndarray, mask: np.ndarray) -> float:
    """Return how much the median brightness differs within 3 pixels of a mask's edge."""
    inside = mask & ~ndimage.binary_erosion(mask, iterations=3, border_value=1)
    outside = ndimage.binary_dilation(mask, iterations=3) & ~mask
    return abs(float(np.median(gray[inside]) - np.median(gray[outside])))
