"""One picture as brightness and as a thumbnail, from files of every kind."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import picture_file
from training.datasets.picture_file import DecodingError, read_gray, read_thumbnail

RNG = np.random.default_rng(0)


def encode(array, kind="PNG", mode=None, **options):
    """Return the file of a picture, from an array of pixels or a picture."""
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def encode_deep(array):
    """Return a PNG of 16 bits with the colors (h, w, 3), which Pillow does not write."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    h, w, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def page(h=40, w=60):
    """Return black ink, not centered, on white paper: (h, w) in uint8."""
    array = np.full((h, w), 255, np.uint8)
    array[h // 8 : h // 2, w // 10 : w // 3] = 0
    return array


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")),
        *(("GIF", mode, {}) for mode in ("L", "P", "RGB")),
        *(("JPEG", mode, {"quality": 98}) for mode in ("L", "RGB", "CMYK")),
        ("BMP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
    ],
)
def test_every_format_and_mode_has_the_same_brightness(kind, mode, options):
    array = page() // 3 + 100
    if mode == "1":
        array = page()
    picture = Image.fromarray(array)
    picture = picture.convert("RGB") if mode == "LAB" else picture
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
    gray = read_gray(encode(picture, kind, mode, **options))
    assert gray.dtype == np.float32
    atol = 3 if kind == "JPEG" or mode == "LAB" else 0.01
    np.testing.assert_allclose(gray * 255, array, atol=atol)


def test_colors_are_weighted():
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(read_gray(encode(colors)), [[0.299, 0.587, 0.114]], atol=2e-3)


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        ((256, 256), (256, 256)),
        ((512, 512), (256, 256)),
        ((1000, 500), (256, 128)),
        ((3000, 1), (256, 1)),
        ((28, 28), (28, 28)),
        ((700, 1100), (163, 256)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_at_most_256_pixels_a_side(size, reduced, kind):
    gray = read_gray(encode(page(*size), kind))
    assert gray.shape == reduced
    assert gray.mean() == pytest.approx(page(*size).mean() / 255, abs=0.02)


def test_reducing_loses_no_thin_line():
    array = np.full((1024, 1024), 255, np.uint8)
    array[:, ::8] = 0  # every second pixel of 256 has a line of one of its four columns
    for kind, mode in (("PNG", "L"), ("PNG", "1"), ("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "L")):
        gray = read_gray(encode(array, kind, mode))
        np.testing.assert_allclose(gray[100, 100::2], 0.75, atol=0.02)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [60, 600])
def test_exif_orientation(kind, side):
    upright = page(side, side // 2)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # methods of Image.transpose
    options = {"quality": 98} if kind == "JPEG" else {}
    want = read_gray(encode(upright, kind))
    assert want.shape == ((60, 30) if side == 60 else (256, 128))
    for tag, method in inverse.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        turned = Image.fromarray(upright).transpose(method)
        gray = read_gray(encode(turned, kind, exif=exif, **options))
        np.testing.assert_allclose(gray, want, atol=0.2, err_msg=f"tag {tag}")
        assert np.abs(gray - want).mean() < 0.01
        thumbnail = read_thumbnail(encode(turned, kind, exif=exif, **options), 256)
        np.testing.assert_allclose(thumbnail[..., 1] / 255, want, atol=0.2)


# -- transparency ---------------------------------------------------------------------------------
def drawn_on_nothing(color, h=40, w=60):
    layers = np.zeros((h, w, 4), np.uint8)
    layers[..., :3] = color
    layers[..., 3] = 255 - page(h, w)
    return layers


@pytest.mark.parametrize(("color", "ground"), [(0, 1), (100, 1), (200, 0), (255, 0)])
@pytest.mark.parametrize("h", [40, 400])
def test_the_ground_of_a_drawing_is_opposite_to_its_ink(color, ground, h):
    gray = read_gray(encode(drawn_on_nothing(color, h, 60)))
    ink = read_gray(encode(page(h, 60))) < 0.01
    paper = read_gray(encode(page(h, 60))) > 0.99
    np.testing.assert_allclose(gray[ink], color / 255, atol=0.01)
    np.testing.assert_array_equal(gray[paper], ground)


def test_color_below_transparent_parts_does_not_matter():
    layers = drawn_on_nothing(255, 600, 600)
    layers[..., :3][layers[..., 3] == 0] = 17
    np.testing.assert_array_equal(
        read_gray(encode(layers)), read_gray(encode(drawn_on_nothing(255, 600, 600)))
    )


def test_ink_that_fills_most_of_a_picture_still_has_a_ground():
    layers = drawn_on_nothing(0)
    layers[..., 3] = 255
    layers[10:12, :, 3] = 0
    gray = read_gray(encode(layers))
    assert gray[11, 5] == 1
    assert gray[20, 5] == 0


def test_transparent_corners_of_a_photograph_are_no_ink():
    """As a rounded corner or the edge of a scan that was rotated."""
    layers = np.dstack([page()] * 3 + [np.full((40, 60), 255, np.uint8)])
    layers[..., :3] = layers[..., :3] // 2 + 90
    layers[:4, :4] = 0
    assert read_gray(encode(layers))[1, 1] == pytest.approx((255 // 2 + 90) / 255, abs=0.01)
    empty = np.zeros((5, 5, 4), np.uint8)
    np.testing.assert_array_equal(read_gray(encode(empty)), 1)


def test_transparent_color_of_a_palette_and_half_transparent_grey():
    array = np.array([[0, 255, 255], [0, 0, 255]], np.uint8)
    for kind, mode in (("PNG", "L"), ("GIF", "P"), ("PNG", "P")):
        gray = read_gray(encode(array, kind, mode, transparency=255))
        np.testing.assert_array_equal(gray, array / 255)
    layers = np.dstack([np.zeros((2, 3), np.uint8), 255 - array])
    np.testing.assert_array_equal(read_gray(encode(layers)), array / 255)


# -- 16 bits --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("n_bits", [8, 10, 12, 16])
@pytest.mark.parametrize("side", [32, 400])
def test_sixteen_bits_are_scaled_by_the_bits_in_use(kind, n_bits, side):
    full = 2**n_bits - 1
    array = (page(side, side) / 255 * full).astype(np.uint16)
    want = read_gray(encode(page(side, side)))
    np.testing.assert_allclose(read_gray(encode(array, kind)), want, atol=0.005)
    half = read_gray(encode((array * 0.6).astype(np.uint16), kind))
    np.testing.assert_allclose(half, want * 0.6, atol=0.005)
    shown = read_thumbnail(encode(array, kind), 256)
    np.testing.assert_allclose(shown[..., 0] / 255, want, atol=0.005)


def test_black_pictures_of_sixteen_bits():
    assert read_gray(encode(np.zeros((4, 5), np.uint16))).max() == 0


@pytest.mark.parametrize("n_bits", [12, 16])
def test_colors_of_sixteen_bits(n_bits):
    """Pillow reads their upper 8 bits, of which those of a 12-bit camera fill four."""
    array = (np.dstack([page()] * 3) / 255 * (2**n_bits - 1)).astype(np.uint16)
    gray = read_gray(encode_deep(array))
    np.testing.assert_allclose(gray, page() / 255, atol=0.01)
    dim = read_gray(encode((np.dstack([page()] * 3) // 20).astype(np.uint8)))
    assert dim.max() < 0.06


def test_more_than_sixteen_bits_are_refused():
    for array in (page().astype(np.float32), page().astype(np.int32) * 1000):
        with pytest.raises(DecodingError, match=r"^has .* save it with 8 or 16 bits$"):
            read_gray(encode(array, "TIFF"))


# -- files ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("read", [read_gray, lambda content: read_thumbnail(content, 96)])
def test_damage_is_reported(read, tmp_path):
    noise = RNG.integers(0, 256, (80, 80), np.uint8)
    for kind in ("PNG", "JPEG", "GIF"):
        with pytest.raises(DecodingError, match=r"^cannot be read as a picture: "):
            read(encode(noise, kind)[:-1500])
    with pytest.raises(DecodingError, match=r"^cannot be read as a picture: it is none of"):
        read(b"no picture")
    with pytest.raises(DecodingError, match=r"^no such file"):
        read(tmp_path / "none.png")


def test_a_jpeg_is_decoded_at_a_fraction(monkeypatch):
    sizes = []
    original = picture_file._reduce

    def reduce(picture, size):
        sizes.append(picture.size)
        return original(picture, size)

    monkeypatch.setattr(picture_file, "_reduce", reduce)
    small = Image.fromarray(RNG.integers(0, 256, (16, 16, 3), np.uint8))
    array = np.asarray(small.resize((2400, 2400)))
    for side, decoded in ((2400, 300), (1000, 500), (300, 300)):
        part = array[:side, :side]
        fast, exact = read_gray(encode(part, "JPEG", quality=95)), read_gray(encode(part))
        assert np.abs(fast - exact).max() < 0.05
        assert sizes[-2:] == [(decoded, decoded), (side, side)]


def test_thumbnails_show_transparent_parts_as_a_checkerboard():
    shown = read_thumbnail(encode(drawn_on_nothing(255)), 256)
    assert shown.shape == (40, 60, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[6, 7], 255)
    assert sorted(np.unique(shown[25:, 25:])) == [112, 144]
    large = read_thumbnail(encode(np.dstack([page(300, 500)] * 3)), 96)
    assert large.shape == (58, 96, 3)


def test_file_without_the_right_to_read_is_named_once(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "a.png"
    path.write_bytes(encode(page()))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DecodingError, match=r"^cannot be read as a picture: Permission denied$"):
        read_gray(path)
