"""Paper, ink, light and cameras: images (H, W, 3) of float32 from 0 to 1."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Color = tuple[float, float, float]
WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def paint(cover: np.ndarray, paper: np.ndarray | Color, ink: Color) -> np.ndarray:
    """Return paper, of one color or an image, with ink where `cover` (H, W) is 1."""
    ground = np.broadcast_to(np.float32(paper), (*cover.shape, 3))
    return ground + (np.float32(ink) - ground) * cover[..., np.newaxis]


def off_white(rng: np.random.Generator) -> Color:
    """Return the color of a sheet of white paper in a photograph."""
    level = rng.uniform(0.8, 0.97)
    warmth = rng.uniform(-0.02, 0.05)
    return level, level - warmth / 2, level - warmth


def pen_color(rng: np.random.Generator) -> Color:
    """Return the color of a blue or black pen."""
    dark = rng.uniform(0.05, 0.22)
    if rng.random() < 0.5:
        return dark, dark, dark + rng.uniform(0, 0.05)
    return dark, dark + rng.uniform(0.0, 0.12), dark + rng.uniform(0.25, 0.45)


def grain(shape: tuple[int, int], size: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth random values (H, W) with mean 0 and deviation 1, about `size` pixels wide."""
    coarse = [max(2, round(n / size)) for n in shape]
    values = rng.standard_normal(coarse).astype(np.float32)
    smooth = Image.fromarray(values).resize(shape[::-1], Image.Resampling.BICUBIC)
    values = np.asarray(smooth)
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def lines(
    shape: tuple[int, int], spacing: float, width: float, offset: float, axis: int = 0
) -> np.ndarray:
    """Return parallel lines (H, W), 1 on a line: across for axis 0, upright for axis 1."""
    position = np.arange(shape[axis], dtype=np.float32) + 0.5 - offset
    distance = np.abs((position + spacing / 2) % spacing - spacing / 2)
    line = np.clip((width + 1) / 2 - distance, 0, min(1, width))
    return np.broadcast_to(line[:, np.newaxis] if axis == 0 else line, shape)


def rectangle(
    shape: tuple[int, int], top: float, left: float, bottom: float, right: float, width: float
) -> np.ndarray:
    """Return the lines (H, W) of a rectangle, whose outer edges are given."""
    row = np.arange(shape[0], dtype=np.float32)[:, np.newaxis] + 0.5
    column = np.arange(shape[1], dtype=np.float32) + 0.5
    depth = np.minimum(
        np.minimum(row - top, bottom - row), np.minimum(column - left, right - column)
    )
    return np.clip(depth + 0.5, 0, 1) * np.clip(width - depth + 0.5, 0, 1)


def print_text(
    shape: tuple[int, int], text: str, height: float, top: float, left: float
) -> np.ndarray:
    """Return printed text (H, W) with letters of about `height` pixels."""
    canvas = Image.new("L", shape[::-1], 0)
    font = ImageFont.load_default(max(8, height / 0.7))
    ImageDraw.Draw(canvas).text((left, top), text, fill=255, font=font, anchor="lt")
    return np.asarray(canvas, np.float32) / 255


def text_width(text: str, height: float) -> float:
    """Return the width of text that `print_text` prints, in pixels."""
    return ImageFont.load_default(max(8, height / 0.7)).getlength(text)


def slope(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the light (H, W) of a lamp at one side: falls to 0.35 to 0.6 of the brightest."""
    angle = rng.uniform(0, 2 * np.pi)
    row, column = _grid(shape)
    way = np.cos(angle) * row + np.sin(angle) * column
    way = (way - way.min()) / (way.max() - way.min())
    return 1 - rng.uniform(0.4, 0.65) * way ** rng.uniform(0.8, 1.5)


def shadow(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the light (H, W) beside the soft shadow of a hand or a telephone."""
    angle = rng.uniform(0, 2 * np.pi)
    row, column = _grid(shape)
    bend = rng.uniform(-0.3, 0.3) * (np.sin(angle) * row - np.cos(angle) * column) ** 2
    way = np.cos(angle) * row + np.sin(angle) * column + bend - rng.uniform(-0.5, 0.5)
    softness = rng.uniform(0.06, 0.25)
    return 1 - rng.uniform(0.2, 0.5) / (1 + np.exp(-way / softness))


def vignette(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the light (H, W) of a lens: the corners have 0.35 to 0.65 of the center."""
    row, column = _grid(shape)
    radius = (row**2 + column**2) / 2
    return 1 - rng.uniform(0.35, 0.65) * radius ** rng.uniform(0.9, 1.4)


def _grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (H, 1) and columns (1, W) from -1 to 1."""
    row, column = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    return row[:, np.newaxis], column[np.newaxis]


def photograph(
    scene: np.ndarray,
    light: np.ndarray | float,
    rng: np.random.Generator,
    noise: float,
    blur: float = 0.0,
) -> np.ndarray:
    """Return what a camera makes of a scene: its light, blur in pixels, and sensor noise."""
    light = np.broadcast_to(np.float32(light), scene.shape[:2])
    lit = scene * light[..., np.newaxis]
    if blur > 0:
        lit = ndimage.gaussian_filter(lit, (blur, blur, 0))
    shared = rng.standard_normal((*lit.shape[:2], 1), dtype=np.float32)
    own = rng.standard_normal(lit.shape, dtype=np.float32)
    # Cameras smooth colors more than brightness, so that most of the noise is grey.
    return np.clip(lit + noise * (0.9 * shared + 0.45 * own), 0, 1)
