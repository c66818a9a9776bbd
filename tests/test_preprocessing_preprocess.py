"""The one function that brings pictures and rows of numbers to the form of training images."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from training import InputError
from training.datasets import Dataset, load_dataset, load_images, load_predict_inputs, pictures
from training.datasets.dataset import ReadOptions
from training.datasets.picture_file import PictureSource
from training.input_format import InputFormat
from training.input_stats import InputStats
from training.preprocessing import ink as ink_module
from training.preprocessing.ink import InkReading
from training.preprocessing.preprocess import count_rules, invert, preprocess


@pytest.fixture(scope="module")
def mnist():
    """Return the format of a model of digits, and 40 digits that it was not trained on."""
    train, test = load_dataset("mnist-5k")
    return train.input_format, test.images[:40]


def encode(picture, kind="PNG", **options):
    file = BytesIO()
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    picture.save(file, kind, **options)
    return file.getvalue()


def bring(content, like, mode="auto"):
    return preprocess(PictureSource(content, like, like.resize), like, mode)


def enlarge(digit, side=280):
    """Return a digit (28, 28) as a smooth drawing."""
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def similarity(image, digit):
    """Return the correlation of two images."""
    return np.corrcoef(image.ravel(), digit.ravel())[0, 1]


def test_digits_like_those_of_the_training_stay_as_they_are(mnist):
    like, digits = mnist
    for digit in digits:
        found = bring(encode(digit[0]), like)
        assert (found.rule, found.remarks) == ("as it is", ())
        assert found.image.dtype == np.uint8
        np.testing.assert_array_equal(found.image, digit)


def test_digits_of_the_other_polarity_are_inverted_and_nothing_else(mnist):
    like, digits = mnist
    for digit in digits:
        found = bring(encode(255 - digit[0]), like)
        assert found.rule == "inverted"
        assert found.image.dtype == np.uint8
        np.testing.assert_array_equal(found.image, digit)


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_of_a_picture_gives_the_same_pixels(mnist, mode):
    like, digits = mnist
    picture = Image.fromarray(255 - digits[0, 0]).convert(mode)
    found = bring(encode(picture, "TIFF" if mode == "CMYK" else "PNG"), like)
    assert found.rule == "inverted"
    np.testing.assert_array_equal(found.image, digits[0])


def test_ink_on_a_transparent_ground_is_found_by_its_alpha(mnist):
    like, digits = mnist
    for color, rule in ((0, "inverted"), (255, "ink")):  # today's pictures of the right size
        layers = np.full((28, 28, 4), color, np.uint8)
        layers[..., 3] = digits[0, 0]
        found = bring(encode(layers), like)
        assert found.rule == rule
        assert similarity(found.image, digits[0]) > 0.8


def test_white_is_noted_only_where_transparent_pixels_are_laid_on_it(mnist, tmp_path):
    like, digits = mnist
    for color, n_notes in ((0, 1), (255, 0)):  # inverted; ink, which is laid on black
        layers = np.full((28, 28, 4), color, np.uint8)
        layers[..., 3] = digits[0, 0]
        (tmp_path / "a.png").write_bytes(encode(layers))
        notes = load_predict_inputs(tmp_path / "a.png", like).notes
        assert [note.split(" (")[0] for note in notes] == (
            ["transparent pixels are laid on white"] * n_notes
        )


@pytest.mark.parametrize("divisor", [1, 16])
def test_sixteen_bits(mnist, divisor):
    like, digits = mnist
    deep = digits[0, 0].astype(np.uint16) * 257
    found = bring(encode(deep // divisor), like)
    assert found.rule == ("as it is" if divisor == 1 else "ink")
    assert similarity(found.image, digits[0]) > (0.9999 if divisor == 1 else 0.8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_the_right_size_after_its_exif_rotation(kind):
    """28 rows and 20 columns, stored on its side."""
    like = InputFormat((1, 28, 20), ("a", "b"))
    upright = np.zeros((28, 20), np.uint8)
    upright[4:20, 3:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    options = {"quality": 98} if kind == "JPEG" else {}
    found = bring(encode(stored, kind, exif=exif, **options), like)
    assert found.rule == "as it is"
    assert similarity(found.image, upright) > 0.99
    assert bring(encode(stored, kind, **options), like).rule == "resized"


@pytest.mark.parametrize("inverted", [False, True])
def test_a_large_drawing_becomes_like_the_training_images(mnist, inverted):
    """Off center, so that resizing alone does not do it."""
    like, digits = mnist
    drawing = np.full((400, 600), 255, np.uint8)
    drawing[90:370, 300:580] = 255 - enlarge(digits[0, 0])
    found = bring(encode(255 - drawing if inverted else drawing), like)
    assert (found.rule, found.remarks) == ("ink", ())
    assert found.image.shape == (1, 28, 28)
    assert similarity(found.image, digits[0]) > 0.8


@pytest.mark.parametrize("inverted", [False, True])
def test_a_large_drawing_that_is_like_the_training_images_is_only_resized(mnist, inverted):
    like, digits = mnist
    drawing = np.pad(enlarge(digits[0, 0]), 14)  # resizing blurs it, which makes it larger
    content = encode(255 - drawing if inverted else drawing)
    found = bring(content, like)
    assert found.rule == ("inverted" if inverted else "resized")
    resized = bring(content, like, "none").image
    np.testing.assert_array_equal(found.image, 255 - resized if inverted else resized)


def test_a_blank_page(mnist):
    like, _ = mnist
    for level in (0, 120, 255):
        found = bring(encode(np.full((90, 70), level, np.uint8)), like)
        assert (found.rule, found.remarks) == ("ink", ("blank page",))
        np.testing.assert_array_equal(found.image, np.zeros((1, 28, 28)))


def test_remarks(mnist, monkeypatch):
    like, _ = mnist
    reading = InkReading(np.zeros((28, 28), np.float32), 3, True)
    monkeypatch.setattr(ink_module, "read_ink", lambda *arguments: reading)
    found = bring(encode(np.zeros((50, 50), np.uint8)), like)
    assert found.remarks == ("3 shapes found, the largest was read", "the ink fills the picture")
    monkeypatch.setattr(ink_module, "read_ink", lambda *arguments: reading._replace(n_shapes=1))
    found = bring(encode(np.zeros((50, 50), np.uint8)), like)
    assert found.remarks == ("the ink fills the picture",)


def test_the_mode_decides(mnist):
    like, digits = mnist
    content = encode(digits[0, 0])
    assert bring(content, like, "ink").rule == "ink"
    assert bring(content, like, "none").rule == "as it is"
    light = encode(255 - digits[0, 0])
    np.testing.assert_array_equal(bring(light, like, "none").image, 255 - digits[0])
    assert bring(encode(enlarge(digits[0, 0])), like, "none").rule == "resized"
    with pytest.raises(InputError, match="preprocess ink is for a model whose training images"):
        bring(content, like._replace(ink=None), "ink")


def test_photographs_keep_their_pixels():
    rng = np.random.default_rng(0)
    color = InputFormat((3, 32, 32), ("a", "b"), stats=InputStats(0, 255, 10, 120, 60))
    array = rng.integers(0, 256, (32, 32, 3), np.uint8)
    array[[0, -1]] = array[:, [0, -1]] = 250  # a light border is not inverted
    found = bring(encode(array), color)
    assert found.rule == "as it is"
    np.testing.assert_array_equal(found.image, array.transpose(2, 0, 1))
    assert bring(encode(array[:20]), color).rule == "resized"
    grey = bring(encode(array[..., 0]), color).image
    np.testing.assert_array_equal(grey, [array[..., 0]] * 3)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 16), (0, 65535)])
def test_pixels_have_the_scale_of_the_training_images(mnist, low, high):
    _, digits = mnist
    train = load_dataset("mnist-5k")[0].images[:500]
    scaled = low + train.astype(np.float32) * ((high - low) / 255)
    like = Dataset(scaled, np.arange(500) % 2, ("a", "b"), "").input_format
    assert like.ink is not None
    want = low + digits[0].astype(np.float32) * ((high - low) / 255)
    for array, rule in ((digits[0, 0], "as it is"), (255 - digits[0, 0], "inverted")):
        found = bring(encode(array), like)
        assert found.rule == rule
        np.testing.assert_allclose(found.image, want, atol=1e-6 * (high - low))
    drawing = np.zeros((400, 600), np.uint8)
    drawing[90:370, 300:580] = enlarge(digits[0, 0])
    found = bring(encode(drawing), like)
    assert found.rule == "ink"
    assert similarity(found.image, digits[0]) > 0.8
    assert found.image.max() == pytest.approx(high, abs=0.05 * (high - low))


def test_dark_pictures_of_training_have_the_scale_of_pictures():
    like = InputFormat((1, 4, 4), ("a", "b"), stats=InputStats(3, 90, 10))
    array = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.testing.assert_array_equal(bring(encode(array), like).image[0], array)


def test_inverting_keeps_the_dtype():
    stats = InputStats(-1, 1)
    np.testing.assert_array_equal(invert(np.float32([-1, 0.25]), stats), np.float32([1, -0.25]))
    inverted = invert(np.array([0, 255], np.uint8), InputStats())
    assert inverted.dtype == np.uint8
    assert inverted.tolist() == [255, 0]


def test_counts():
    assert count_rules([], []) == []
    rules = ["as it is"] * 1200 + ["ink"]
    assert count_rules(rules, [()] * 1201) == ["preprocessing: as it is (1,200), ink (1)"]


# -- all ways in ----------------------------------------------------------------------------------
def test_every_way_in_gives_the_same_pixels(mnist, tmp_path):
    """A folder and a file of --predict, a folder of --test, and rows of numbers."""
    like, digits = mnist
    for index, digit in enumerate(digits[:6, 0]):
        folder = tmp_path / "pictures" / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        array = (digit, 255 - digit, enlarge(255 - digit))[index // 2]
        if index // 2 == 2:
            array = np.pad(array, ((10, 200), (150, 0)), constant_values=255)
        Image.fromarray(array).save(folder / f"{index}.png")
    predicted = load_predict_inputs(tmp_path / "pictures", like)
    assert predicted.names == ["0/0.png", "0/2.png", "0/4.png", "1/1.png", "1/3.png", "1/5.png"]
    assert predicted.rules == ["as it is", "inverted", "ink"] * 2
    tested = load_images(tmp_path / "pictures", like=like)
    np.testing.assert_array_equal(tested.images, predicted.images)
    assert "preprocessing: as it is (2), inverted (2), ink (2)" in tested.notes
    alone = load_predict_inputs(tmp_path / "pictures" / "1" / "5.png", like)
    np.testing.assert_array_equal(alone.images[0], predicted.images[5])
    rows = digits[:40].reshape(40, -1)
    (tmp_path / "rows.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    numbers = load_predict_inputs(tmp_path / "rows.csv", like)
    assert numbers.rules == ["as it is"] * 40
    np.testing.assert_array_equal(numbers.images, digits[:40])
    for index in range(6):
        assert predicted.read_original(index).shape[:2] in ((28, 28), (256, 225))
    np.testing.assert_array_equal(numbers.read_original(3), digits[3, 0])


def test_rows_of_other_sizes_and_of_dark_ink(mnist, tmp_path):
    like, digits = mnist
    large = np.full((60, 60), 255, np.uint8)
    large[2:34, 26:58] = 255 - enlarge(digits[0, 0], 32)
    (tmp_path / "a.csv").write_text(",".join(map(str, large.ravel())))
    found = load_predict_inputs(tmp_path / "a.csv", like)
    assert found.rules == ["ink"]
    assert similarity(found.images[0], digits[0]) > 0.8
    resized = load_predict_inputs(tmp_path / "a.csv", like, mode="none")
    assert resized.rules == ["resized"]
    with pytest.raises(InputError, match=r"a\.csv: preprocess ink is for"):
        load_predict_inputs(tmp_path / "a.csv", like._replace(ink=None), mode="ink")
    Image.fromarray(large).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: preprocess ink is for"):
        load_predict_inputs(tmp_path / "a.png", like._replace(ink=None), mode="ink")


def test_training_images_are_not_preprocessed(mnist, tmp_path):
    """Nor are those that continue the training of a saved model, or the parts beside them."""
    like, digits = mnist
    for part in ("train", "test"):
        for label in (0, 1):
            folder = tmp_path / part / str(label)
            folder.mkdir(parents=True)
            Image.fromarray(255 - digits[label, 0]).save(folder / "a.png")
    train = load_images(tmp_path)
    np.testing.assert_array_equal(train.images, 255 - digits[:2])
    np.testing.assert_array_equal(train.test.images, 255 - digits[:2])
    again = load_images(tmp_path / "train", like=like, preprocess="none")
    np.testing.assert_array_equal(again.images, 255 - digits[:2])
    tested = load_images(tmp_path, like=like)
    np.testing.assert_array_equal(tested.images, digits[:2])
    with pytest.raises(InputError, match="preprocess must be one of auto, ink, none, got 'Ink'"):
        load_images(tmp_path, like=like, preprocess="Ink")


def test_the_parts_of_a_source_of_training_images_have_one_scale(tmp_path):
    """Masks of zeros and ones are pictures as well, though their scale is not that of pictures."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 3] = 1
    for part in ("train", "test"):
        for label in (0, 1):
            folder = tmp_path / part / str(label)
            folder.mkdir(parents=True)
            Image.fromarray(mask).save(folder / "a.png")
    train = load_images(tmp_path)
    np.testing.assert_array_equal(train.images[0, 0], mask)
    np.testing.assert_array_equal(train.test.images[0, 0], mask)


def test_a_changed_program_reads_pictures_again(monkeypatch, mnist):
    like, _ = mnist
    training, tested = ReadOptions(like=like), ReadOptions(like=like, preprocess="auto")
    before = pictures.decoder_version(training), pictures.decoder_version(tested)
    monkeypatch.setattr(pictures, "code_version", lambda: "other")
    assert pictures.decoder_version(training) == before[0]
    assert pictures.decoder_version(tested) != before[1]
    other = like._replace(ink=like.ink._replace(ink=200.0))
    assert tested.for_cache != tested._replace(like=other).for_cache
    assert training.for_cache == training._replace(like=other).for_cache


def test_inverting_a_pixel_outside_the_range_does_not_wrap():
    image = np.array([[[0, 16, 20]]], np.uint8)
    assert invert(image, InputStats(0, 16, 0)).tolist() == [[[16, 0, 0]]]
    assert invert(image.astype(np.float32), InputStats(0, 16, 0)).tolist() == [[[16, 0, -4]]]


def test_the_cache_depends_on_the_source_of_reading_and_preprocessing():
    names = {path.name for path in pictures._code_files() if path.is_file()}
    assert {"picture_file.py", "resize.py", "input_stats.py", "ink.py", "paper.py"} <= names
    assert len(names) == len(pictures._code_files())
