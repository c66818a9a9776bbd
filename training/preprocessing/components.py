"""Find the separate shapes of ink in a picture, and tell characters from what lies beside them."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

MIN_AREA = 4  # pixels: smaller components are noise
MAX_COMPONENTS = 64  # of more, the largest
MIN_SIDE = 0.03  # of the picture's longer side: smaller shapes are specks
MIN_PART = 0.02  # area of a part of a character, of its largest part
REACH = 0.15  # distance of a part from the rest of a character, of its longer side
STACKED_REACH = 0.2  # the same, where one is above the other, as the bar of a 5
LIKE_SIZE = 0.5  # a shape of this share of another one's height is a character as well
OVERLAP = 0.3  # parts one above the other share this much of their columns
EDGE = 2  # pixels: what comes nearer to the edge of the picture touches it
MAX_CUT = 0.03  # share of the picture's outline that a part may touch if the others do not
MAX_EDGE_CONTACT = 0.12  # share of the picture's outline that a character may touch
CUT_SCORE = 0.3  # of a shape that touches the edge, less than a whole one of its size
FRAME_BAND = 0.05  # of a frame's side: its ink lies within this distance of its bounding box


class Shape(NamedTuple):
    """A connected piece of ink, or several that make a character.

    Attributes
    ----------
    labels : tuple of int
        Of the connected components.
    top, bottom, left, right : int
        The bounding box; bottom and right are past its end.
    area : int
        Pixels of ink.
    mass : float
        Sum of their strengths.
    edge : float
        The share of the picture's outermost pixels that belong to the shape.
    """

    labels: tuple[int, ...]
    top: int
    bottom: int
    left: int
    right: int
    area: int
    mass: float
    edge: float

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def side(self) -> int:
        """The longer side of the bounding box."""
        return max(self.height, self.width)


def label_components(mask: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, list[Shape]]:
    """Return the label of each pixel, and the connected components, the largest first.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    strength : ndarray of float32, shape (h, w)
    """
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=n + 1)
    masses = np.bincount(labels.ravel(), strength.ravel(), n + 1)
    sides = labels[:EDGE], labels[-EDGE:], labels[:, :EDGE].T, labels[:, -EDGE:].T
    outline = np.concatenate([side.max(axis=0) for side in sides])
    edges = np.bincount(outline, minlength=n + 1) / len(outline)
    shapes = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if areas[label] < MIN_AREA:
            continue
        (top, bottom), (left, right) = ((part.start, part.stop) for part in box)
        shapes.append(
            Shape(
                (label,), top, bottom, left, right, int(areas[label]), masses[label], edges[label]
            )
        )
    shapes.sort(key=lambda shape: -shape.area)
    return labels, shapes[:MAX_COMPONENTS]


def merge(first: Shape, second: Shape) -> Shape:
    """Return two shapes as one."""
    return Shape(
        first.labels + second.labels,
        min(first.top, second.top),
        max(first.bottom, second.bottom),
        min(first.left, second.left),
        max(first.right, second.right),
        first.area + second.area,
        first.mass + second.mass,
        first.edge + second.edge,
    )


def gap(first: Shape, second: Shape) -> float:
    """Return the distance between two bounding boxes, 0 if they touch or overlap."""
    rows = max(first.top, second.top) - min(first.bottom, second.bottom)
    columns = max(first.left, second.left) - min(first.right, second.right)
    return float(np.hypot(max(rows, 0), max(columns, 0)))


def shared_columns(first: Shape, second: Shape) -> float:
    """Return the share of the narrower shape's columns that the other one has as well."""
    shared = min(first.right, second.right) - max(first.left, second.left)
    return max(0, shared) / min(first.width, second.width)


def belongs(part: Shape, character: Shape) -> bool:
    """Return whether a smaller shape is a part of a character, and not something beside it."""
    if part.area < MIN_PART * character.area:
        return False
    is_stacked = shared_columns(part, character) >= OVERLAP
    if bool(part.edge) != bool(character.edge) and not (
        is_stacked and part.edge + character.edge < MAX_CUT
    ):
        return False
    reach = STACKED_REACH if is_stacked else REACH
    if gap(part, character) > reach * merge(part, character).side:
        return False
    return is_stacked or part.height < LIKE_SIZE * character.height


def group_shapes(components: list[Shape], picture_side: int) -> list[Shape]:
    """Join the components that make a character; return the characters, the largest first.

    Parameters
    ----------
    components : list of Shape
        The largest first.
    picture_side : int
        Longer side of the picture, in pixels.
    """
    characters: list[Shape] = []
    for part in components:
        near = [character for character in characters if belongs(part, character)]
        if near:
            nearest = min(near, key=lambda character: gap(part, character))
            characters[characters.index(nearest)] = merge(nearest, part)
        else:
            characters.append(part)
    return [character for character in characters if character.side >= MIN_SIDE * picture_side]


def remove_frames(mask: np.ndarray) -> np.ndarray:
    """Return a mask of ink without the frames that surround a character.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    """
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    frames = [
        label
        for label, box in enumerate(ndimage.find_objects(labels), 1)
        if is_frame(labels[box] == label, mask[box])
    ]
    return mask & ~np.isin(labels, frames) if frames else mask


def is_frame(component: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether a component is a rectangle about something else.

    Parameters
    ----------
    component, mask : ndarray of bool, shape (h, w)
        The bounding box of the component: its own ink, and all ink.
    """
    rows, columns = (max(2, round(FRAME_BAND * n)) for n in component.shape)
    inner = slice(rows, -rows), slice(columns, -columns)
    n_inner = int(np.count_nonzero(component[inner]))
    is_hollow = n_inner < 0.1 * int(np.count_nonzero(component))
    return is_hollow and int(np.count_nonzero(mask[inner])) > n_inner


def drop_cut_off(components: list[Shape]) -> list[Shape]:
    """Return the components without those that touch the edge along much of the outline."""
    return [shape for shape in components if shape.edge <= MAX_EDGE_CONTACT]


def choose_main(characters: list[Shape], shape: tuple[int, int]) -> Shape:
    """Return the character that a picture (h, w) shows: much ink, near the middle, whole."""

    def score(character: Shape) -> float:
        row = (character.top + character.bottom) / 2 / shape[0] - 0.5
        column = (character.left + character.right) / 2 / shape[1] - 0.5
        central = 1.2 - float(np.hypot(row, column))
        whole = CUT_SCORE if character.edge else 1.0
        return float(np.sqrt(character.mass * character.side)) * central * whole

    return max(characters, key=score)
