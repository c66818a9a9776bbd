"""Decoding of pictures of every format and mode, and the size and color that a set gets."""

import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from training import InputError
from training.datasets import picture_file
from training.datasets.dataset import ReadOptions
from training.datasets.pictures import decode_pictures
from training.datasets.resize import to_grey
from training.input_format import InputFormat

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 5, 3), np.uint8)
GREYS = RNG.integers(0, 256, (6, 5), np.uint8)


def encode(array, kind="PNG", mode=None, **options):
    """Return the file of a picture, from an array of pixels or a picture."""
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = BytesIO()
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def decode(*files, **options):
    names = [f"{index}.png" for index in range(len(files))]
    return decode_pictures(names, files.__getitem__, ReadOptions(**options))


def smooth(rows, columns, channels=3):
    """Return a picture that changes slowly, from a bright corner to a dark one."""
    y, x = np.mgrid[:rows, :columns]
    ramp = 250 - 240 * (y / rows + x / columns) / 2
    return np.stack([ramp * (1 - c / 4) for c in range(channels)], -1).astype(np.uint8)


def test_pictures_of_one_size_keep_their_pixels():
    others = COLORS[::-1].copy()
    read = decode(encode(COLORS), encode(others, "BMP"), encode(COLORS, "WEBP", lossless=True))
    assert read.images.dtype == np.uint8
    np.testing.assert_array_equal(
        read.images, np.stack([COLORS, others, COLORS]).transpose(0, 3, 1, 2)
    )
    assert read.decoded.tolist() == [0, 1, 2]
    assert read.resize == "pad"
    assert read.notes == ("rgb: not every picture is grey, such as 0.png",)


def test_paths_and_contents_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(GREYS))
    files = [tmp_path / "a.png", encode(GREYS)]
    read = decode_pictures(["a", "b"], files.__getitem__, ReadOptions())
    np.testing.assert_array_equal(read.images, np.stack([GREYS, GREYS])[:, np.newaxis])


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")),
        *(("GIF", mode) for mode in ("L", "P", "RGB")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")),
        *(("BMP", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_every_format_and_mode_gives_the_same_grey_pixels(kind, mode):
    array = np.where(np.arange(64 * 64).reshape(64, 64) % 64 < 32, 0, 255).astype(np.uint8)
    picture = Image.fromarray(array)
    if mode == "I;16":
        picture = Image.fromarray(array.astype(np.uint16) * 257)
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    read = decode(encode(picture, kind, None if mode == "I;16" else mode, **options))
    assert read.images.shape == (1, 1, 64, 64)
    assert read.images.dtype == (np.float32 if mode == "I;16" else np.uint8)
    assert read.notes == ("grey: every picture is grey",)
    atol = 2 if kind == "JPEG" else 0
    np.testing.assert_allclose(read.images[0, 0].astype(int), array, atol=atol)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "YCbCr", "RGB"])
def test_every_mode_keeps_the_colors(mode):
    array = np.zeros((16, 16, 3), np.uint8)
    array[:8, :, 0], array[8:, :, 1], array[:, 8:, 2] = 204, 102, 51
    kind = {"RGBA": "PNG", "P": "GIF"}.get(mode, "JPEG")
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    read = decode(encode(array, kind, mode, **options))
    np.testing.assert_allclose(read.images[0].transpose(1, 2, 0).astype(int), array, atol=3)


def test_sixteen_bits_are_scaled_and_not_rounded():
    deep = RNG.integers(0, 65536, (6, 5)).astype(np.uint16)
    read = decode(encode(deep), encode(GREYS), encode(GREYS, mode="RGB"))
    assert read.images.dtype == np.float32
    assert read.images.shape == (3, 1, 6, 5)
    np.testing.assert_allclose(read.images[0, 0], deep / 257, rtol=1e-6)
    np.testing.assert_array_equal(read.images[1:, 0], [GREYS, GREYS])
    later = decode(encode(GREYS), encode(deep))
    np.testing.assert_array_equal(later.images, read.images[[1, 0]])


def test_grey_pixels_do_not_depend_on_pictures_of_sixteen_bits():
    nearly_grey = np.repeat(GREYS[..., np.newaxis] // 2, 3, axis=-1) + np.array([0, 4, 2], np.uint8)
    alone = decode(encode(nearly_grey)).images[0]
    assert alone.shape == (1, 6, 5)
    with_deep = decode(encode(GREYS.astype(np.uint16)), encode(nearly_grey)).images
    assert with_deep.shape == (2, 1, 6, 5)
    np.testing.assert_array_equal(with_deep[1], alone)
    like = InputFormat((1, 6, 5), ("a", "b"))
    np.testing.assert_array_equal(decode(encode(nearly_grey), like=like).images[0], alone)


def test_more_than_sixteen_bits_are_refused():
    for array in (GREYS.astype(np.float32), GREYS.astype(np.int32) * 1000):
        with pytest.raises(InputError, match=r"^0\.png: has .* save it with 8 or 16 bits$"):
            decode(encode(array, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_laid_on_white(kind):
    layers = np.dstack([COLORS, np.full((6, 5), 255, np.uint8)])
    layers[:2, :, 3] = 0
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    read = decode(encode(layers, kind, **options))
    want = COLORS.copy()
    want[:2] = 255
    np.testing.assert_array_equal(read.images[0].transpose(1, 2, 0), want)
    assert "transparent pixels are laid on white (pictures with some: 1)" in read.notes


def test_transparent_color_of_a_palette_and_of_grey_is_laid_on_white():
    array = np.array([[0, 100], [200, 0]], np.uint8)
    for kind, mode in (("PNG", "L"), ("GIF", "P"), ("PNG", "P")):
        read = decode(encode(array, kind, mode, transparency=0))
        np.testing.assert_array_equal(read.images[0, 0], [[255, 100], [200, 255]])
    half = np.dstack([array, np.full((2, 2), 128, np.uint8)])
    read = decode(encode(half))  # mode LA
    np.testing.assert_allclose(read.images[0, 0].astype(int), 127 + array * 0.502, atol=1)
    premultiplied = np.dstack([array // 2, np.full((2, 2), 128, np.uint8)])
    entry = b"\x52\1\3\0\1\0\0\0"  # the kind of the second channel, one number of 16 bits
    file = encode(premultiplied, "TIFF").replace(entry + b"\2", entry + b"\1")
    with Image.open(BytesIO(file)) as picture:
        assert picture.mode == "La"
    np.testing.assert_allclose(decode(file).images[0].astype(int), read.images[0], atol=2)
    opaque = np.dstack([array, np.full((2, 2), 255, np.uint8)])
    assert decode(encode(opaque)).notes == ("grey: every picture is grey",)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("size", [None, (12, 8)])
def test_exif_orientation(kind, size):
    upright = smooth(48, 32)
    picture = Image.fromarray(upright)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # methods of Image.transpose
    want = decode(encode(upright), image_size=size).images[0].astype(int)
    for tag, method in inverse.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        options = {"lossless": True} if kind == "WEBP" else {}
        file = encode(picture.transpose(method), kind, exif=exif, **options)
        got = decode(file, image_size=size).images[0]
        np.testing.assert_allclose(got, want, atol=6, err_msg=f"tag {tag}")


def test_damaged_exif_is_ignored():
    file = encode(COLORS, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\1\x12")
    assert decode(file).images.shape == (1, 3, 6, 5)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    file = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    np.testing.assert_allclose(decode(file).images[0, :, 4, 4].astype(int), [255, 0, 0], atol=4)


# -- the form of a set ----------------------------------------------------------------------------
def test_the_color_is_that_of_the_whole_set():
    grey, nearly, colored = GREYS, np.repeat(GREYS[..., np.newaxis], 3, -1), COLORS
    assert decode(encode(grey), encode(nearly)).images.shape[1] == 1
    read = decode(encode(grey), encode(nearly), encode(colored))
    assert read.notes == ("rgb: not every picture is grey, such as 2.png",)
    np.testing.assert_array_equal(read.images[0], np.stack([GREYS] * 3))
    np.testing.assert_array_equal(read.images[2], COLORS.transpose(2, 0, 1))
    smallest = nearly // 2
    smallest[3, 3, 0] += 5
    assert decode(encode(smallest)).images.shape[1] == 3
    smallest[3, 3, 0] -= 1
    assert decode(encode(smallest)).images.shape[1] == 1


def test_options_and_a_model_decide_the_color():
    files = encode(GREYS), encode(COLORS)
    grey = decode(*files, color="grey")
    assert grey.notes == ()
    weighted = COLORS @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey.images[1, 0].astype(int), weighted, atol=0.51)
    like = InputFormat((1, 6, 5), ("a", "b"))
    np.testing.assert_array_equal(decode(*files, like=like).images, grey.images)
    assert decode(files[0], color="rgb").images.shape == (1, 3, 6, 5)
    assert decode(*files, color="rgb", like=like).images.shape == (2, 3, 6, 5)
    with pytest.raises(InputError, match=r"0\.png: is a picture, .* have 2 channels"):
        decode(*files, like=InputFormat((2, 6, 5), ("a", "b")))


def test_equal_channels_become_the_same_grey():
    images = np.repeat(np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8), 3, axis=1)
    np.testing.assert_array_equal(to_grey(images), images[:, :1])


def sized(*sides):
    return [encode(smooth(rows, columns)) for rows, columns in sides]


@pytest.mark.parametrize(
    ("sides", "shape"),
    [
        ([(256, 20), (256, 20)], (256, 20)),
        ([(257, 20), (257, 20)], (64, 64)),
        ([(20, 30), (30, 20)], (30, 30)),
        ([(20, 30), (10, 10), (5, 14)], (14, 14)),
        ([(20, 30), (100, 10), (5, 140)], (64, 64)),
    ],
)
def test_the_size_is_that_of_all_or_the_median_of_the_longer_sides(sides, shape):
    read = decode(*sized(*sides))
    assert read.images.shape[2:] == shape
    notes = [note for note in read.notes if "resized" in note]
    if shape == sides[0]:
        assert not notes
    else:
        assert notes[0].endswith(f": they are resized to {shape[0]}x{shape[1]} (pad)")


def test_options_and_a_model_decide_the_size_and_the_rule():
    files = sized((20, 30), (30, 20))
    assert decode(*files, image_size=(7, 9)).images.shape == (2, 3, 7, 9)
    like = InputFormat((3, 8, 4), ("a", "b"), "crop")
    read = decode(*files, like=like)
    assert read.images.shape == (2, 3, 8, 4)
    assert read.resize == "crop"
    want = decode(*files, image_size=(8, 4), resize="crop").images
    np.testing.assert_array_equal(read.images, want)
    assert (decode(*files, like=like, resize="pad").images != want).any()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pad_crop_and_stretch(kind):
    """A picture twice as wide as high: red, then blue in the middle half, then red."""
    array = np.zeros((64, 128, 3), np.uint8)
    array[..., 0] = 240
    array[:, 32:96] = 0, 0, 240
    file = encode(array, kind)
    is_blue = {
        rule: decode(file, image_size=(16, 16), resize=rule).images[0, 2] > 120
        for rule in ("pad", "crop", "stretch")
    }
    want = np.zeros((16, 16), bool)
    want[4:12, 4:12] = True
    np.testing.assert_array_equal(is_blue["pad"], want)
    np.testing.assert_array_equal(is_blue["crop"], np.ones((16, 16), bool))
    want[:, 4:12] = True
    np.testing.assert_array_equal(is_blue["stretch"], want)
    padded = decode(file, image_size=(16, 16)).images[0]
    np.testing.assert_allclose(padded[:, :4].mean(axis=(1, 2)), [240, 0, 0], atol=12)


def test_reducing_averages_over_all_pixels():
    stripes = np.zeros((100, 100), np.uint8)
    stripes[:, ::2] = 250
    image = decode(encode(stripes), image_size=(10, 10)).images[0, 0]
    np.testing.assert_allclose(image.astype(int), 125, atol=8)


# -- one picture is always the same ---------------------------------------------------------------
def test_a_large_jpeg_is_decoded_at_a_fraction(monkeypatch):
    """Its pixels are nearly those of the whole picture, and need no other size of the set."""
    array = np.asarray(
        Image.fromarray(RNG.integers(0, 256, (16, 24, 3), np.uint8)).resize((720, 480))
    )
    file = encode(array, "JPEG", quality=95)
    decoded_sizes = []
    original = picture_file.fit_picture

    def fit(picture, size, rule, full):
        decoded_sizes.append(picture.size)
        assert full in (None, (720, 480))
        assert (full is None) == (picture.size == (720, 480))
        return original(picture, size, rule, full)

    monkeypatch.setattr(picture_file, "fit_picture", fit)
    for rule in ("pad", "crop", "stretch"):
        fast = decode(file, image_size=(32, 32), resize=rule).images.astype(int)
        exact = decode(encode(array), image_size=(32, 32), resize=rule).images
        assert np.abs(fast - exact).mean() < 2
        assert np.abs(fast - exact).max() < 20
    assert decoded_sizes[::2] == [(90, 60), (180, 120), (180, 120)]


@pytest.mark.parametrize("rule", ["pad", "crop", "stretch"])
def test_a_picture_is_the_same_alone_and_in_any_set(rule):
    files = [
        encode(smooth(64, 64), "JPEG"),
        encode(smooth(300, 200), "JPEG"),
        encode(smooth(90, 31), "WEBP"),
        encode(smooth(64, 64)[..., 0]),
    ]
    together = decode(*files, resize=rule)
    assert together.images.shape == (4, 3, 64, 64)
    like = InputFormat((3, 64, 64), ("a", "b"), rule)
    for file, image in zip(files, together.images, strict=True):
        np.testing.assert_array_equal(decode(file, like=like).images[0], image)
    alike = decode(files[0], files[0])
    np.testing.assert_array_equal(alike.images[0], together.images[0])


def test_the_number_of_threads_changes_nothing(monkeypatch):
    files = [encode(smooth(20 + n % 7, 30 - n % 5), "JPEG") for n in range(200)]
    files[70] = files[3] = b"no picture"
    files[150] = encode(GREYS.astype(np.uint16))
    reads = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(os, "cpu_count", lambda n_threads=n_threads: n_threads)
        reads.append(decode(*files))
    for read in reads[1:]:
        np.testing.assert_array_equal(read.images, reads[0].images)
        np.testing.assert_array_equal(read.decoded, reads[0].decoded)
        assert read.notes == reads[0].notes


# -- pictures that cannot be decoded --------------------------------------------------------------
def test_a_few_pictures_are_skipped_and_named():
    files = [encode(GREYS)] * 20
    files[4] = b"no picture"
    files[9] = encode(COLORS)[:-30]
    read = decode(*files)
    assert read.decoded.tolist() == [n for n in range(20) if n not in (4, 9)]
    assert read.images.shape == (18, 1, 6, 5)  # the damaged picture does not decide the color
    assert sorted(read.skipped) == [4, 9]
    note = read.notes[-1]
    assert note.startswith("skipped 2 of 20 pictures: 4.png cannot be read as a picture: ")
    assert "9.png" in note


def test_skipped_pictures_keep_the_images_in_order():
    arrays = [np.full((3, 3), n, np.uint8) for n in range(12)]
    files = [encode(array) for array in arrays]
    files[0] = files[5] = b""
    read = decode(*files)
    assert read.images[:, 0, 0, 0].tolist() == read.decoded.tolist() == [1, 2, 3, 4, *range(6, 12)]


@pytest.mark.parametrize(("bad", "total"), [(11, 1099), (12, 1100)])
def test_too_many_damaged_pictures_are_refused(bad, total):
    files = [b"no picture"] * bad + [encode(GREYS)] * (total - bad)
    with pytest.raises(InputError, match=rf"^0\.png: cannot be .* {bad} of 1,\d+ pictures cannot"):
        decode(*files)


@pytest.mark.parametrize(("bad", "total"), [(10, 30), (11, 1100)])
def test_as_many_damaged_pictures_are_skipped(bad, total):
    read = decode(*[b"no picture"] * bad, *[encode(GREYS)] * (total - bad))
    assert len(read.images) == total - bad
    assert "4.png" in read.notes[-1]
    assert "5.png" not in read.notes[-1]
    assert read.notes[-1].endswith(f"; and {bad - 5} more")


def test_a_set_of_damaged_pictures_is_refused():
    with pytest.raises(InputError, match=r"^0\.png: cannot be read as a picture: it is none of"):
        decode(b"no picture")
    with pytest.raises(InputError, match=r"^0\.png: .* nor can any of the 2 pictures be used$"):
        decode(b"no picture", b"")
    with pytest.raises(InputError, match=r"^0\.png: cannot be read as a picture: "):
        decode(encode(RNG.integers(0, 256, (40, 40), np.uint8))[:-500])


def test_too_large_pictures_are_skipped(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    read = decode(encode(GREYS), encode(smooth(11, 10)), encode(smooth(100, 100)))
    assert read.skipped == dict.fromkeys((1, 2), "is larger than 100 pixels")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"^a\.png: is a pipe or a device: give a file$"):
        decode_pictures(["a.png"], lambda _: tmp_path / "a.png", ReadOptions())


def test_large_files_are_read_in_parts(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(COLORS))
    monkeypatch.setattr(picture_file, "MAX_READ_BYTES", 10)
    read = decode_pictures(["a.png"], lambda _: tmp_path / "a.png", ReadOptions())
    np.testing.assert_array_equal(read.images[0], COLORS.transpose(2, 0, 1))


def test_missing_pillow_is_named(monkeypatch):
    monkeypatch.setattr("training.datasets.resize.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"0\.png: .* pip install pillow"):
        decode(encode(GREYS))


def test_an_interrupt_ends_the_threads():
    def read(index):
        if index == 5:
            raise KeyboardInterrupt
        return encode(GREYS)

    with pytest.raises(KeyboardInterrupt):
        decode_pictures([str(n) for n in range(100)], read, ReadOptions())
